"""The action of `harness train`: a training at full scale of a classifier."""

from argparse import Namespace
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.analysis.network_forms import NetworkUse
from harness.analysis.networks import NetworkRef, resolve_network
from harness.cli.arguments import network_query, network_words
from harness.cli.launch import PlannedTraining, estimate, launch, make_job, with_options, worker_request
from harness.config.recipes.full_scale import ClassificationRecipe, adapt_to_data
from harness.config.recipes.loading import load_classification_recipe, recipe_names
from harness.data.batching import BatchPlan
from harness.data.image_sources import (
    check_classification,
    count_classes,
    count_images,
    expected_images,
    is_data_present,
    record_classification,
)
from harness.errors import UserError
from harness.executors.full_scale import open_task
from harness.report.console import make_console
from harness.report.full_scale import job_view
from harness.storage.full_run_recorder import full_scale_row
from harness.training.full_scale.job import FullScaleJob

FULL_SCALE_FOLDER = "full_scale"
"""Name of the folder of all trainings of `harness train`, in the results folder."""


def train(args: Namespace, use: NetworkUse) -> int:
    """Train a network at full scale; returns the exit code."""
    network_ref = resolve_network(network_words(args), network_query(args), use)
    recipe = _recipe(args, network_ref)
    if args.dry_run and not is_data_present(recipe.data.dataset, args.data):
        return _dry_run(args, network_ref, recipe)
    _require_weights(args, recipe)
    job, request = _job(args, network_ref, recipe, count_classes(recipe, args.data)), worker_request(args)
    batch_plan = BatchPlan.of(recipe, count_images(recipe, args.data), request.workers or 1)
    planned = PlannedTraining(
        job,
        request,
        job_view(job, batch_plan, network_ref.name),
        check_images=lambda: check_classification(recipe, job.root, job.cache),
        estimate=lambda: _estimate(args, job, batch_plan),
        data_record=lambda: record_classification(recipe, job.root, job.cache),
        row=lambda data: full_scale_row(
            job,
            data,
            network_ref.name,
            args.recipe or network_ref.recipe or "",
            study=network_ref.study,
            trial=network_ref.trial,
        ),
    )
    return launch(args, planned)


def _estimate(args: Namespace, job: FullScaleJob[ClassificationRecipe], batch_plan: BatchPlan) -> str:
    """The estimated time as one line; a dry run writes no prepared data set."""
    with TemporaryDirectory() if args.dry_run else nullcontext(job.cache) as cache:
        return estimate(job, batch_plan, open_task(replace(job, cache=Path(cache), loaders=0)))


def _dry_run(args: Namespace, network_ref: NetworkRef, recipe: ClassificationRecipe) -> int:
    """Print what would be trained on images that are not here, and the estimated time, measured on noise images."""
    from harness.training.full_scale.step_time import noise_classification

    expected = expected_images(recipe.data, recipe.data.dataset)
    job, request = _job(args, network_ref, recipe, expected.classes or network_ref.spec.classes), worker_request(args)
    images = expected.images or recipe.batch_size
    batch_plan, console = BatchPlan.of(recipe, images, request.workers or 1), make_console()
    console.print(job_view(job, batch_plan, network_ref.name, expected))
    if request.address is None:
        job = replace(job, loaders=0)
        console.print(estimate(job, batch_plan, open_task(job, partial(noise_classification, images=images)), expected))
    if _lacks_weights(args, recipe):
        console.print("weights: not checked; to train, `--weights` must name the file that the training starts from")
    return 0


def _lacks_weights(args: Namespace, recipe: ClassificationRecipe) -> bool:
    """Whether the training starts from weights that are not here."""
    return recipe.needs_weights if args.weights is None else not args.weights.is_file()


def _recipe(args: Namespace, network_ref: NetworkRef) -> ClassificationRecipe:
    """The recipe of the command line, else of the study, with the options of the command line applied."""
    named = args.recipe or network_ref.recipe
    if named is None:
        names = ", ".join(recipe_names())
        raise UserError("`--recipe` must name a recipe if no study does", remedy=f"Recipes: {names}.")
    return with_options(load_classification_recipe(named), args, named)


def _require_weights(args: Namespace, recipe: ClassificationRecipe) -> None:
    """Raise `UserError` if the weights that the training starts from are not given or do not exist."""
    if recipe.needs_weights and args.weights is None:
        rule = "`--weights` must name a weights file for this recipe, which starts from one"
        raise UserError(rule, value=recipe.about)
    if args.weights is not None and not args.weights.is_file():
        raise UserError("`--weights` must be an existing file", value=str(args.weights))


def _job(
    args: Namespace, network_ref: NetworkRef, recipe: ClassificationRecipe, classes: int
) -> FullScaleJob[ClassificationRecipe]:
    """The job of the network, adapted to the images."""
    weights = args.weights.absolute() if args.weights is not None and args.weights.is_file() else None
    spec = adapt_to_data(network_ref.spec, recipe, classes)
    return make_job(args, spec, recipe, weights, parent=FULL_SCALE_FOLDER, name=network_ref.name)
