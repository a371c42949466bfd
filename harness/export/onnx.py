"""ONNX format: the graph, with large kernels as plain convolutions.

It is checked on the graph itself, and with onnxruntime. A network above 1.5 GB has its weights in a second file.
"""

import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import ExportFailure, UserError
from harness.export.comparison import Network
from harness.export.exportable import INPUT, OUTPUT, Exportable
from harness.models.large_kernels.peripheral import SharedConv2d

FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""Packages of the project's extra `export`, which only this format needs."""


class Convolution(NamedTuple):
    """Properties of a convolution that must be equal in the graph and in the network."""

    sides: tuple[int, ...]
    """Height and width of the kernel."""
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]


def require_packages() -> None:
    """Raise `UserError` if one of `PACKAGES` is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the format onnx needs {', '.join(missing)}",
            remedy=f"Install them: `pip install {' '.join(missing)}`; or name other formats with `--format`.",
        )


def write(exportable: Exportable, folder: Path) -> None:
    """Write the graph of `Exportable.program`, dynamic in the batch size and, if possible, in the image size."""
    program = torch.onnx.export(
        exportable.program,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=(exportable.dynamic_shapes,),
        dynamo=True,
        verbose=False,
    )
    assert program is not None, "the exporter of programs returns one"
    program.model.metadata_props.update(exportable.metadata)
    program.save(folder / FILE)


def load(exportable: Exportable, folder: Path) -> Network:
    """Load with onnxruntime, as in the model card. Raises `ExportFailure` for a graph with other convolutions."""
    import onnxruntime

    check_convolutions(exportable, folder / FILE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return run


def check_convolutions(exportable: Exportable, path: Path) -> None:
    """Compare the graph's convolutions with the network's. Raises `ExportFailure` if they differ.

    This ensures that each large kernel is one `Conv` node with a group per channel, neither split nor rewritten.
    """
    import onnx

    onnx.checker.check_model(path)
    nodes = onnx.load(path, load_external_data=False).graph.node
    exported = Counter(_of_node(node) for node in nodes if node.op_type == "Conv")
    expected = Counter(_of_network(exportable.deployable))
    if exported != expected:
        missing, unexpected = list((expected - exported).elements()), list((exported - expected).elements())
        raise ExportFailure(f"has other convolutions than the network: lacks {missing[:3]}, and has {unexpected[:3]}")


def _of_node(node: Any) -> Convolution:
    values = {attribute.name: attribute for attribute in node.attribute}
    sides, strides, dilations = (tuple(values[name].ints) for name in ("kernel_shape", "strides", "dilations"))
    return Convolution(sides, values["group"].i, strides, dilations)


def _of_network(network: nn.Module) -> Iterator[Convolution]:
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            kernel = layer.kernel() if isinstance(layer, SharedConv2d) else layer.weight
            yield Convolution(tuple(kernel.shape[2:]), layer.groups, layer.stride, layer.dilation)


def usage(exportable: Exportable) -> str:  # noqa: ARG001 (the table's signature)
    """Code for the model card; `images` is already defined."""
    return f"""\
import onnxruntime

session = onnxruntime.InferenceSession("{FILE}")
(logits,) = session.run(["{OUTPUT}"], {{"{INPUT}": images.numpy()}})
"""
