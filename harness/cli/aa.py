"""`harness aa`: the rate of false verdicts on recorded runs, and the coverage of their intervals."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.arguments import (
    Subparsers,
    add_command,
    add_json_option,
    add_workspace_options,
    positive,
    print_json,
    print_view,
    workspace_of,
)
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.analysis.statistics import Plan
    from harness.diagnostics.error_rate import RecordedClaim

LEAST_STUDIES, MOST_STUDIES = 1000, 1_000_000


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_command(
        commands,
        "aa",
        "measure the rate of false verdicts on the recorded runs of two equal arms",
        details="For one study whose arms are replicas: the share of studies, drawn at random from its runs, that "
        "reach a verdict; the exit code is 1 if it is more than the plan allows. For several studies that make the "
        "same claim on different data sets: how often the interval of one study contains the effect over all of them. "
        "With `--validation-sets`, for one study with any arms: its networks are evaluated on further images, to show "
        "how much of the effect's error is due to the images.",
    )
    parser.add_argument(
        "files", metavar="FILE", type=Path, nargs="+", help="a study file, such as search_spaces/aa.yaml"
    )
    parser.add_argument("--first", type=positive, default=3, metavar="N", help="pairs at the first look (default: 3)")
    parser.add_argument("--most", type=positive, default=8, metavar="N", help="pairs at the last look (default: 8)")
    parser.add_argument(
        "--pairing",
        choices=("seed", "none"),
        help="test the drawn studies with this `search.pairing` (default: that of the study)",
    )
    parser.add_argument(
        "--studies", type=int, default=10_000, metavar="N", help="studies to draw at random (default: 10000)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the random draws (default: 0)")
    parser.add_argument(
        "--validation-sets",
        type=positive,
        metavar="N",
        help="evaluate the networks of one study on N further sets of generated images, shared by all (10 to 1000)",
    )
    parser.add_argument(
        "--images", type=positive, metavar="N", help="images per set (default: as many as a run is evaluated on)"
    )
    add_json_option(parser)
    add_workspace_options(parser)
    parser.set_defaults(quick=False)
    return parser


def run(args: Namespace) -> int:
    """Print the rate of false verdicts on equal arms, or the coverage over data sets or validation sets."""
    from harness.analysis.statistics import Plan
    from harness.diagnostics.error_rate import (
        measure_error_rate,
        outcome_values,
        outcome_view,
        read_claim,
        split_effect,
    )

    if not LEAST_STUDIES <= args.studies <= MOST_STUDIES:
        raise UserError(f"`--studies` must be from {LEAST_STUDIES:,} to {MOST_STUDIES:,}", value=args.studies)
    try:
        plan = Plan(first=args.first, most=args.most)
    except ValueError as error:
        raise UserError(f"`--first` and `--most` must be a plan: {error}") from error
    if args.images is not None and args.validation_sets is None:
        raise UserError("`--images` needs `--validation-sets`", value=args.images)
    if args.pairing is not None and (args.validation_sets is not None or len(args.files) > 1):
        raise UserError("`--pairing` needs one study of two equal arms, and no `--validation-sets`", value=args.pairing)
    claims = tuple(read_claim(path, workspace_of(args)) for path in args.files)
    if args.validation_sets is not None:
        return _judge_further(args, claims, plan)
    if len(claims) == 1:
        outcome = measure_error_rate(claims[0], plan, args.pairing, studies=args.studies, seed=args.seed)
    else:
        outcome = split_effect(claims, plan)
    if args.json:
        print_json(outcome_values(outcome))
    else:
        print_view(outcome_view(outcome))
    if not outcome.holds:
        print("error: more false verdicts than the plan allows", file=sys.stderr)
    return 0 if outcome.holds else 1


def _judge_further(args: Namespace, claims: "tuple[RecordedClaim, ...]", plan: "Plan") -> int:
    """Print how much of the error of a study's claim is due to its validation images."""
    from harness.diagnostics.image_noise import (
        ValidationSettings,
        image_noise_values,
        image_noise_view,
        images_of,
        measure_image_noise,
    )
    from harness.report.console import is_live, make_console, make_status_line

    if len(claims) != 1:
        raise UserError("`--validation-sets` needs one study", value=", ".join(claim.study for claim in claims))
    result, console = claims[0].result, make_console()
    images = images_of(result.runs[0].run.recipe, args.images)
    settings = ValidationSettings(args.validation_sets, images, plan, args.studies, args.seed)
    with make_status_line(console, is_live=is_live(console) and not args.json) as line:

        def tell(done: int) -> None:
            if not args.json:
                line.update(f"{done} of {settings.sets} validation sets")

        noise = measure_image_noise(claims[0].study, result, settings, workspace_of(args), tell)
    return print_json(image_noise_values(noise)) if args.json else print_view(image_noise_view(noise))
