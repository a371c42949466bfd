"""The action of `harness evaluate`: find network, images and preprocessing, then measure the accuracy."""

import statistics
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.arguments import named_network
from harness.config.recipes.full_scale import ClassificationDataConfig
from harness.data.batching import split_cpus
from harness.data.cifar import kind_of
from harness.data.image_sources import DATA_OPTION, ImageSource, InMemoryImages
from harness.data.labels import IMAGENET_CLASSES, imagenet_synsets
from harness.data.validation_images import ValidationImages, open_validation
from harness.errors import DataError, UserError
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import accuracies, preset_of, resolutions
from harness.report.console import is_live, make_console, make_status_line
from harness.report.evaluation import AccuracyReport, progress_line
from harness.system.device_slot import computing
from harness.system.machine import available_cpus
from harness.training.accuracy_results import MERGED, TRAINING, AccuracyProgress, AccuracyResult

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.data.preprocessing import Preprocessing
    from harness.storage.load_network import LoadedNetwork

SHAPES = "shapes"
LEAST_SIDE, MOST_SIDE = 8, 4096


def evaluate(args: Namespace) -> AccuracyReport:
    """Measure the accuracy of the network of the command line. Raises `UserError`s for options that do not fit."""
    import torch

    from harness.analysis.networks import load_network
    from harness.models.finite import as_user_error
    from harness.training.device import find_device, process_environment, started_record

    device = find_device(args.device)
    network = load_network(named_network(args), which=args.which)
    if network.spec.in_channels not in (1, 3):
        raise UserError("the network must be for color or gray images", value=f"{network.spec.in_channels} channels")
    preprocessing = _changed(_preprocessing(args, network), args, network.spec, device)
    network_cost(network.spec, preprocessing.resolution)  # raises for images that are too small for the network
    evaluated = _evaluation_images(args, network, preprocessing.resolution)
    loaders, threads = split_cpus(available_cpus(), args.loaders, has_gpu=device.type == "cuda")
    torch.set_num_threads(threads)
    with as_user_error(network.name, _remedy(preprocessing)):
        result = _measure(args, _forms(args, network), evaluated.images, preprocessing, device, loaders)
    return AccuracyReport(
        network=network,
        data=evaluated.about,
        labels=evaluated.labels,
        normalized=f"{_numbers(preprocessing.mean)} and {_numbers(preprocessing.std)}, "
        f"{_statistics_from(args, network)}",
        preprocessing=preprocessing,
        result=result,
        published=accuracies(network.spec, preprocessing.resolution)
        if _is_imagenet(evaluated, network.spec.classes)
        else (),
        started=started_record(
            device,
            threads,
            epochs=0,
            environment=process_environment(device, precision=preprocessing.precision, threads=threads),
        ),
        loaders=loaders,
    )


def _remedy(preprocessing: "Preprocessing") -> str:
    if preprocessing.precision == "float16":
        return "Numbers above 65,504 are infinite in float16: take `--precision bfloat16` or float32."
    return "Take the weights of an earlier epoch, or train again."


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _statistics_from(args: Namespace, network: "LoadedNetwork") -> str:
    """The source of the images' mean and standard deviation, as text."""
    if args.mean is not None or args.std is not None:
        return "from the command line"
    if network.recipe is not None or network.full_recipe is not None:
        return "as in its training"
    name = preset_of(network.spec)
    return f"as published for {name}" if name else "ImageNet's, because its training is unknown"


def _preprocessing(args: Namespace, network: "LoadedNetwork") -> "Preprocessing":
    """The preprocessing of the network's own training at validation; if that is unknown, the paper's."""
    from harness.data.preprocessing import WHOLE_FROM_RESOLUTION, Preprocessing

    published = Preprocessing.published(network.spec, args.resolution or resolutions(network.spec)[0])
    if network.recipe is not None and (dataset := network.load_images()) is not None:
        return Preprocessing.of_run(network.recipe, dataset)
    if network.full_recipe is None:
        return published
    preprocessing = Preprocessing.of(network.full_recipe)
    if preprocessing.resolution < WHOLE_FROM_RESOLUTION <= (args.resolution or preprocessing.resolution):
        return replace(preprocessing, crop=published.crop, mode=published.mode)
    return preprocessing


def _changed(
    preprocessing: "Preprocessing", args: Namespace, spec: NetworkSpec, device: "torch.device"
) -> "Preprocessing":
    """The preprocessing with the options of the command line applied, for the number of channels of the network."""
    from harness.training.device import require_precision

    names = {"resolution": "resolution", "crop": "crop", "mode": "crop_mode", "interpolation": "interpolation"}
    names |= {"mean": "mean", "std": "std", "batch_size": "batch", "precision": "precision"}
    changes = {name: value for name, option in names.items() if (value := getattr(args, option)) is not None}
    for name in ("mean", "std"):
        values = tuple(changes.get(name, getattr(preprocessing, name)))
        if spec.in_channels == 1 and len(values) > 1 and name not in changes:
            values = (statistics.fmean(values),)
        if len(values) != spec.in_channels:
            rule = f"`--{name}` must have one number for each of the network's channels ({spec.in_channels})"
            raise UserError(rule, value=" ".join(f"{value:g}" for value in values))
        changes[name] = values
    preprocessing = replace(preprocessing, **changes)
    if not LEAST_SIDE <= preprocessing.resolution <= MOST_SIDE:
        raise UserError(f"`--resolution` must be from {LEAST_SIDE} to {MOST_SIDE}", value=preprocessing.resolution)
    if not 0 < preprocessing.crop <= 1:
        raise UserError("`--crop` must be above 0 and at most 1", value=preprocessing.crop)
    if min(preprocessing.std) <= 0:
        raise UserError("`--std` must be above 0", value=min(preprocessing.std))
    if preprocessing.precision == "float16" and device.type == "cpu":
        if args.precision is not None:
            require_precision(preprocessing.precision, device, "`--precision float16`")
        preprocessing = replace(preprocessing, precision="float32")
    return preprocessing


@computing()
def _evaluation_images(args: Namespace, network: "LoadedNetwork", resolution: int) -> ValidationImages:
    """The images of `--data`; without it, the validation images of the network's own training."""
    from harness.storage.load_network import class_names

    full_recipe, recipe = network.full_recipe, network.recipe
    kind = _kind(args.data)
    if recipe is not None and (kind is None or kind == recipe.dataset == SHAPES):
        dataset = network.load_images()
        if dataset is not None:
            about = f"validation images of {recipe.dataset}, as the run has them"
            return ValidationImages(InMemoryImages(dataset.val), about, "of the data that the run was trained on", ())
    if kind is None and full_recipe is None:
        raise DataError(
            f"`{DATA_OPTION}` must name the images: a folder with one folder of images per class, of CIFAR, or "
            f"`{SHAPES}`",
            value=network.name,
            remedy="ImageNet's validation images are expected by class: val/n01440764/ILSVRC2012_val_00000293.JPEG.",
        )
    if full_recipe is None or kind not in (None, full_recipe.data.dataset):
        data = ClassificationDataConfig(dataset=kind)
    else:
        data = full_recipe.data
    root = None if args.data is None or kind == SHAPES else Path(args.data)
    return open_validation(
        data,
        network.spec.classes,
        resolution,
        root,
        Path(args.results) / "data",
        class_names(network),
        is_by_name=args.labels == "name",
    )


def _is_imagenet(images: ValidationImages, classes: int) -> bool:
    """Whether the images are from a folder with exactly the classes of ImageNet-1K."""
    return classes == len(images.names) == IMAGENET_CLASSES and set(images.names) == set(imagenet_synsets())


def _kind(data: str | None) -> Any:
    """The kind of data set that `--data` names: `shapes`, CIFAR, or a folder of images by class; None without it."""
    if data is None or data == SHAPES:
        return data
    return kind_of(Path(data).expanduser()) or "imagefolder"


@computing()
def _forms(args: Namespace, network: "LoadedNetwork") -> "dict[str, nn.Module]":
    """The network in the requested forms, by the name of the form."""
    from harness.models.build import merge
    from harness.models.weights.matching import is_merged_form

    if is_merged_form(network.spec, network.model.state_dict()):
        if args.both:
            raise UserError("`--both` needs weights in training form; these are already merged", value=network.name)
        return {MERGED: network.model}
    forms = {} if args.merged else {TRAINING: network.model}
    return forms | ({MERGED: merge(network.model)} if args.merged or args.both else {})


def _measure(
    args: Namespace,
    forms: "dict[str, nn.Module]",
    images: ImageSource,
    preprocessing: "Preprocessing",
    device: "torch.device",
    loaders: int,
) -> AccuracyResult:
    """Measure the accuracy, showing the progress unless `--json` is given."""
    from harness.training.accuracy import measure_accuracy

    console = make_console()
    with computing(device), make_status_line(console, is_live=is_live(console) and not args.json) as line:
        for record in measure_accuracy(forms, images, preprocessing, device, loaders=loaders):
            if not isinstance(record, AccuracyProgress):
                return record
            if not args.json:
                line.update(progress_line(record))
    raise AssertionError("an evaluation ends with its result")
