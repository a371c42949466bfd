"""Model card of an exported network: its spec, training, metrics and cost, and how each file is loaded."""

import json
from collections.abc import Iterable, Mapping, Sequence

from harness.analysis.formatting import si
from harness.config.space import plain_fields
from harness.config.yaml_file import write_yaml
from harness.export.comparison import EXAMPLE_BATCHES, TOLERANCE, FormatResult
from harness.export.exportable import Exportable
from harness.export.formats import Format
from harness.models.cost import Cost, network_cost
from harness.models.spec.published import preset_of, published
from harness.storage.load_network import WeightsOrigin

FAMILY_TITLES = {"replknet": "RepLKNet", "mobilenet_v2": "MobileNetV2", "convnext": "ConvNeXt"}
"""Names of the families, as their papers write them."""
MAX_CLASSES_SHOWN = 100
"""Maximum number of class names that the card lists."""
CODE_LICENSE = "The code that builds and loads the network, large-kernel-harness, is under the MIT license."


def model_card(
    exportable: Exportable, formats: Mapping[str, Format], results: Sequence[FormatResult], versions: Mapping[str, str]
) -> str:
    """The text of the card; each block of code runs in the card's folder, after the block that defines `images`."""
    facts = exportable.facts
    parts = [
        _head(exportable),
        "## Network",
        _code("yaml", write_yaml(plain_fields(exportable.spec))),
        "## Training",
        _items(facts.training),
    ]
    if facts.settings is not None:
        parts += [_folded("The recipe, every default included", _code("yaml", write_yaml(facts.settings)))]
    parts += [
        "## Metrics",
        *_metrics_section(exportable),
        "## Cost",
        _cost(exportable),
        "## Images",
        _images(exportable),
    ]
    if exportable.classes is not None:
        parts += ["## Classes", _classes(exportable.classes)]
    parts += ["## Files", _files(formats, results), "## How to load it", *_usage(exportable, formats)]
    parts += ["## License", _license(exportable), "## Versions", _items(versions)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _head(exportable: Exportable) -> str:
    spec, name = exportable.spec, preset_of(exportable.network.spec)
    family = FAMILY_TITLES[spec.family]
    subject = f"`{name}`, a {family}," if name else f"A {family}"
    form = "Its small kernels are merged into the large ones" if exportable.is_merged else "It is in its training form"
    front = "---\ntags:\n- image-classification\npipeline_tag: image-classification\n---"
    return (
        f"{front}\n\n# {exportable.network.name}\n\n{subject} for {spec.classes:,} classes, made for images of "
        f"{exportable.resolution} px with {spec.in_channels} channel{'s' * (spec.in_channels > 1)}. {form}."
    )


def _metrics_section(exportable: Exportable) -> list[str]:
    rows = [(metric.name, metric.value, metric.conditions) for metric in exportable.facts.metrics]
    parts = [_table(("metric", "value", "measured on"), rows)] if rows else ["None is recorded for these weights."]
    papers = [(f"{row.top1:g}", str(row.resolution), row.training, row.source) for row in published(exportable.spec)]
    if papers:
        parts.append(
            "Published for networks like this one, with **other weights unless these are their official ones**:"
        )
        parts.append(_table(("top-1 %", "px", "trained on", "source"), papers))
    return parts


def _cost(exportable: Exportable) -> str:
    spec, side = exportable.spec, exportable.resolution
    training, merged = (network_cost(spec, side, merged=is_merged) for is_merged in (False, True))
    rows = [
        ("in training", f"{training.params:,}", *_macs(training)),
        ("merged", f"{merged.params:,}", *_macs(merged)),
        ("merged, batch norms folded", f"{merged.params_folded:,}", *_macs(merged)),
    ]
    table = _table(("form", "parameters", "MACs", "of these on the map, not its padding"), rows)
    return f"For one image of {side} x {side}; a multiply-accumulate (MAC) counts once.\n\n{table}"


def _macs(cost: Cost) -> tuple[str, str]:
    return f"{cost.macs:,} ({si(cost.macs)})", f"{cost.macs_in_bounds:,} ({si(cost.macs_in_bounds)})"


def _images(exportable: Exportable) -> str:
    preprocessing = exportable.preprocessing
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (preprocessing.mean, preprocessing.std))
    about = {
        "source": preprocessing.known_from,
        "shape": f"(N, {exportable.spec.in_channels}, H, W), float32, values in [0, 1] before they are normalized",
        "color": {1: "gray", 3: "red, green, blue"}.get(exportable.spec.in_channels, "as in training"),
        "made for": f"H = W = {exportable.resolution}",
        "mean": mean,
        "standard deviation": std,
        "resizing": f"{preprocessing.interpolation}; the crop is {preprocessing.crop:g} of the resized image's side, "
        f"mode `{preprocessing.mode}`",
    }
    return _items(about)


def _classes(names: Sequence[str]) -> str:
    listed = json.dumps(list(names[:MAX_CLASSES_SHOWN]), ensure_ascii=False)
    more = (
        f"\n\nThe first {MAX_CLASSES_SHOWN} of {len(names):,}; the files contain all."
        if len(names) > MAX_CLASSES_SHOWN
        else ""
    )
    return f"In the order of the logits:\n\n{_code('json', listed)}{more}"


def _files(formats: Mapping[str, Format], results: Sequence[FormatResult]) -> str:
    table = []
    for result in results:
        assert result.comparison is not None, "a format without an error was compared with the network"
        errors = f"{result.comparison.difference:.2g}", f"{result.comparison.relative:.2g}"
        sizes = ", ".join(f"{size:,}" for size in result.sizes.values())
        table.append((", ".join(f"`{name}`" for name in result.sizes), formats[result.format].about, sizes, *errors))
    batches = " and ".join(map(str, EXAMPLE_BATCHES))
    return (
        "Each was loaded back, and its logits compared with those of the original network, on noise in batches of "
        f"{batches}, and of 2 at another size if the graphs accept it. A difference may be {TOLERANCE:g} of what "
        "images change in a logit (`relative`).\n\n"
        + _table(("file", "for", "bytes", "largest difference", "relative"), table)
    )


def _usage(exportable: Exportable, formats: Mapping[str, Format]) -> Iterable[str]:
    spec, side, least = exportable.spec, exportable.resolution, exportable.least_side
    sizes = "only of this size" if least is None else f"of any height and width of at least {least} px"
    shape = f"2, {spec.in_channels}, {side}, {side}"
    yield _code("python", f"import torch\n\nimages = torch.randn({shape})  # replace by images, prepared as above")
    graphs = [formats[name].file for name in ("onnx", "torch") if name in formats]
    if graphs:
        named = " and ".join(f"`{file}`" for file in graphs)
        yield f"{named} accept any number of images, {sizes}; they do not need the harness, and cannot be trained."
    for file_format in formats.values():
        yield f"`{file_format.file}`: {file_format.about}."
        yield _code("python", file_format.usage(exportable))


def _license(exportable: Exportable) -> str:
    network = exportable.network
    if network.origin == WeightsOrigin.RANDOM:
        return f"{CODE_LICENSE} The weights are random."
    if network.origin != WeightsOrigin.FILE:
        recipe = network.full_recipe
        has_others = recipe is not None and recipe.needs_weights
        began = "They started from other weights, whose license applies, too. " if has_others else ""
        chosen = f"Those who trained the weights choose their license. {began}Consider that of the training images."
        return f"{CODE_LICENSE} {chosen}"
    return (
        f"{CODE_LICENSE}\n\nThe weights were imported from `{exportable.source['source']}`. **The license under "
        "which that file was published applies to them**; the harness has no record of it."
    )


def _items(values: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in values.items())


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
