"""Checks, when a study file is read, that its runs can yield the metrics, images and devices that it requests."""

from collections.abc import Iterator

from harness.config.formula import Formula
from harness.config.measures import ON_CPU, ON_GPU, is_among, metrics_of, sources
from harness.config.problems import FileErrors
from harness.config.recipe_axes import CURVE_KEYS, UNTRAINED_KEYS, is_recipe_axis
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study import Study
from harness.config.yaml_file import Document, KeyPath, dotted, quoted
from harness.errors import StudyError, did_you_mean

DIRECTIONS = {"top1": "maximize", "val_loss": "minimize"}
"""Metrics that can be optimized in one direction only."""


def check_metrics(study: Study, problems: FileErrors) -> None:
    """Report metrics that no run of the study's recipe yields, and keys that have no effect."""
    for name, direction in study.objectives.items():
        at: KeyPath = ("objectives", name)
        _check_metric(name, at, study, problems)
        required = DIRECTIONS.get(name, direction)
        if direction != required:
            remedy = f"The best network would be the worst; write `{name}: {required}`."
            problems.add(at, f"`{dotted(at)}` must be {required}", value=quoted(direction), remedy=remedy)
    for i, claim in enumerate(study.claims):
        for name in _names(claim.metric):
            _check_metric(name, ("claims", i, "metric"), study, problems)
    _check_resources(study, problems)
    _check_recipe(study, problems)
    _check_recipe_axes(study, problems)


def check_classes(study: Study, classes: tuple[str, ...], document: Document) -> None:
    """Raise `StudyError` for a metric of a class that the data set lacks."""
    for at, name in _requested_metrics(study):
        if not is_among(name, metrics_of(study.proxy), classes):
            rule = f"`{dotted(at)}` must be a metric of a class that the data set has"
            remedy = f"Classes: {', '.join(classes[:20])}."
            raise StudyError(rule, value=name, place=document.place(at), remedy=remedy)


def check_sizes(study: Study, images: tuple[int | None, int | None], document: Document) -> None:
    """Raise `StudyError` for more images than the data set has, and for batches larger than an epoch.

    `images` are the numbers for training and validation; None if it is unlimited or not known.
    """
    recipe, (train, val) = study.proxy, images
    for key, most, split in (
        ("train_size", train, "training"),
        ("val_size", val, "validation"),
        ("final_val_size", val, "validation"),
    ):
        size = getattr(recipe, key)
        if size is not None and most is not None and size > most:
            rule = f"`proxy.{key}` must be at most the {most:,} {split} images of the data set"
            remedy = "Lower it, or leave it out for all images."
            raise StudyError(rule, value=size, place=document.place(("proxy", key)), remedy=remedy)
    if recipe.train_size is None and train is not None:
        problems = FileErrors(document)
        _check_batches(study, train, f"the {train:,} training images of the data set", problems)
        problems.raise_if_any()


def check_device(study: Study, document: Document, *, device: str) -> None:
    """Raise `StudyError` for a precision or a metric that runs on this kind of device, `cpu` or `cuda`, do not have."""
    if device == "cpu" and study.proxy.precision == "float16":
        rule = "`proxy.precision` must be float32 or bfloat16 where runs are trained on a CPU"
        remedy = "Write `precision: bfloat16`, or give runs a GPU under `resources.gpus` where there is one."
        raise StudyError(rule, value="float16", place=document.place(("proxy", "precision")), remedy=remedy)
    for at, name in _requested_metrics(study):
        if name in (ON_GPU if device == "cpu" else ON_CPU):
            names = metrics_of(study.proxy, device=device)
            raise StudyError(
                f"`{dotted(at)}` must be a metric that runs on a {'CPU' if device == 'cpu' else 'GPU'} yield",
                value=name,
                place=document.place(at),
                remedy=did_you_mean(name, names, "Metrics"),
            )


def _requested_metrics(study: Study) -> Iterator[tuple[KeyPath, str]]:
    """Every metric that the file names, with its place."""
    yield from ((("objectives", name), name) for name in study.objectives)
    for i, claim in enumerate(study.claims):
        yield from ((("claims", i, "metric"), name) for name in _names(claim.metric))


def _names(metric: str) -> list[str]:
    """The metrics in a formula; none if it is invalid, which is reported elsewhere."""
    try:
        return sorted(Formula(metric).names)
    except StudyError:
        return []


def _check_metric(name: str, at: KeyPath, study: Study, problems: FileErrors) -> None:
    names = metrics_of(study.proxy)
    if is_among(name, names):
        return
    needs = next((source.needs for source in sources(study.proxy) if is_among(name, source.names)), None)
    remedy = did_you_mean(name, names, "Metrics") if needs is None else f"It needs {needs}."
    problems.add(
        at, f"`{dotted(at)}` must be a metric that runs of this recipe yield", value=quoted(name), remedy=remedy
    )


def _check_resources(study: Study, problems: FileErrors) -> None:
    if study.resources.gpus > 1:
        at: KeyPath = ("resources", "gpus")
        remedy = "Write `gpus: 1`; more GPUs train more runs at a time."
        rule = "`resources.gpus` must be at most 1, since a run trains on one device"
        problems.add(at, rule, value=quoted(study.resources.gpus), remedy=remedy)


def _check_recipe(study: Study, problems: FileErrors) -> None:
    """Report the keys of the proxy that would have no effect."""
    recipe, at = study.proxy, ("proxy",)
    is_shapes = recipe.dataset == "shapes"
    if is_shapes and recipe.root is not None:
        rule, remedy = "`proxy.root` must be left out for `dataset: shapes`, which is generated", "Leave it out."
        problems.add((*at, "root"), rule, value=quoted(recipe.root), remedy=remedy)
    if recipe.cue_correlation > 0 and (not is_shapes or recipe.rendering != "textured"):
        rule = "`proxy.cue_correlation` must be 0 where images have no textures"
        remedy = "Write `dataset: shapes` and `rendering: textured`, or leave it out."
        problems.add((*at, "cue_correlation"), rule, value=quoted(recipe.cue_correlation), remedy=remedy)
    if recipe.train_size is not None:
        _check_batches(study, recipe.train_size, f"`proxy.train_size` ({recipe.train_size})", problems)
    if study.search.pruner not in ("none", "wilcoxon") and recipe.epochs == 1:
        rule = "`search.pruner` must be none where `proxy.epochs` is 1, after which nothing is left to prune"
        remedy = "Train for more epochs, or leave it out."
        problems.add(("search", "pruner"), rule, value=quoted(study.search.pruner), remedy=remedy)


def _check_recipe_axes(study: Study, problems: FileErrors) -> None:
    """Report axes of the recipe that would have no effect, or with which configurations could not be compared."""
    recipe, axes = study.proxy, [name for name in study.axes if is_recipe_axis(name)]
    pruned = next((name for name in axes if name in CURVE_KEYS), None)
    if study.search.pruner != "none" and pruned is not None:
        rule = f"`search.pruner` must be none where `{pruned}` is an axis: it compares learning curves at equal epochs"
        remedy = f"Leave it out, or compare values of `{pruned}` in a study of their own."
        problems.add(("search", "pruner"), rule, value=quoted(study.search.pruner), remedy=remedy)
    for name in axes:
        if reason := _no_effect(name, recipe):
            problems.add(("axes", name), f"`{name}` must be left out {reason}", remedy="Leave the axis out.")
    if "recipe.train_size" in axes and recipe.dataset != "shapes" and recipe.resample != "none":
        rule = (
            "`recipe.train_size` cannot be an axis where images of a folder are resampled: the validation images of a "
            "seed follow from the number of training images"
        )
        problems.add(("axes", "recipe.train_size"), rule, remedy="Write `resample: none` in `proxy`.")


def _no_effect(name: str, recipe: ProxyRecipe) -> str | None:
    """Why an axis has no effect on runs of this recipe; None if it has one."""
    if name.startswith("recipe.transfer."):
        return "where `proxy.transfer` is null" if recipe.transfer is None else None
    if name == "recipe.cue_correlation" and (recipe.dataset, recipe.rendering) != ("shapes", "textured"):
        return "where images have no textures"
    if recipe.epochs == 0 and name not in UNTRAINED_KEYS:
        return "where `proxy.epochs` is 0 and nothing is trained"
    return None


def _check_batches(study: Study, train: int, of_what: str, problems: FileErrors) -> None:
    """Report batches that are larger than the `train` images: an epoch would have no full step."""
    recipe = study.proxy
    batches: list[tuple[KeyPath, int]] = [(("proxy", "batch_size"), recipe.batch_size)] if recipe.epochs else []
    batches += [(("proxy", "transfer", "batch_size"), recipe.transfer.batch_size)] if recipe.transfer else []
    for at, batch in batches:
        if batch > train:
            problems.add(at, f"`{dotted(at)}` must be at most {of_what}", value=quoted(batch), remedy="Lower it.")
