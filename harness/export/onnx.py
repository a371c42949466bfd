"""The graph in ONNX, its large kernels as plain convolutions.

Checked on the graph itself, and by onnxruntime. A network above 1.5 GB has its weights in a file beside the graph.
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
"""The extra `export` of the project: nothing but this format needs them."""


class Convolution(NamedTuple):
    """What a graph and a network must agree in, convolution by convolution."""

    sides: tuple[int, ...]
    """Of the kernel."""
    groups: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]


def require_packages() -> None:
    """Raise `UserError` where one is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the format onnx needs {', '.join(missing)}",
            remedy=f"Install them: `pip install {' '.join(missing)}`; or name other formats with `--format`.",
        )


def write(exportable: Exportable, folder: Path) -> None:
    """The merged network without batch norms; open in the number of images and, where it can be, in their size."""
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
    """In onnxruntime, as the card tells it. Raises `ExportFailure` for a graph of other convolutions."""
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
    """Hold the graph's convolutions against the network's. Raises `ExportFailure` where one is not the network's own.

    So each large kernel is one node `Conv` with a group per channel: it was neither split nor written as other sums.
    """
    import onnx

    onnx.checker.check_model(path)
    nodes = onnx.load(path, load_external_data=False).graph.node
    found = Counter(_of_node(node) for node in nodes if node.op_type == "Conv")
    wanted = Counter(_of_network(exportable.deployable))
    if found != wanted:
        missing, besides = list((wanted - found).elements()), list((found - wanted).elements())
        raise ExportFailure(f"has other convolutions than the network: lacks {missing[:3]}, and has {besides[:3]}")


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
    """Code for the card; `images` is given."""
    return f"""\
import onnxruntime

session = onnxruntime.InferenceSession("{FILE}")
(logits,) = session.run(["{OUTPUT}"], {{"{INPUT}": images.numpy()}})
"""
