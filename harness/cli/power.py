"""`harness power`: how many seeds, and how many minutes, the claims of a study need to be decided."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import (
    Subparsers,
    add_json_option,
    add_study_command,
    positive,
    print_json,
    print_view,
    workspace_of,
)
from harness.errors import UserError


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(
        commands,
        "power",
        "show how many seeds and minutes the claims of a study need to be decided",
        details="For each claim, by the size of the true effect: the pairs of runs with which it is decided with the "
        "asked power, how many it takes on average, their time, and the chance of a verdict with the seeds that the "
        "file allows. The spread is that of the stored runs; without any, effects are in units of it.",
    )
    parser.add_argument(
        "--effect", type=float, nargs="+", metavar="E", default=(), help="true effects, in units of the claim's metric"
    )
    parser.add_argument(
        "--sd",
        type=float,
        metavar="S",
        help="assume this standard deviation of the contrast, instead of the stored one",
    )
    parser.add_argument("--power", type=float, default=0.8, metavar="P", help="asked power (default: 0.8)")
    parser.add_argument("--workers", type=positive, metavar="N", help="workers (default: as many as fit)")
    add_json_option(parser)
    return parser


def run(args: Namespace) -> int:
    """Print what each claim needs."""
    import math
    from functools import partial

    from harness.analysis.claim_power import claim_powers
    from harness.analysis.study_reader import open_space
    from harness.config.study_file import load_study
    from harness.errors import NotFound
    from harness.report.power import power_values, power_view
    from harness.storage import Store
    from harness.system.machine import workers_that_fit

    if not 0.05 < args.power < 1:
        raise UserError("`--power` must be above 0.05 and below 1", value=args.power)
    if args.sd is not None and not (math.isfinite(args.sd) and args.sd > 0):
        raise UserError("`--sd` must be a number above 0", value=args.sd)
    if not all(map(math.isfinite, args.effect)):
        raise UserError("`--effect` must be numbers", value=args.effect)
    file = load_study(args.file, is_quick=args.quick)
    study, space, workspace = file.study, open_space(file), workspace_of(args)
    if not study.claims:
        raise UserError("a study must have claims for their power", value=study.study, place=str(args.file))
    workers = args.workers or workers_that_fit(study.resources.cpus)
    assumed = partial(claim_powers, study, space, effects=args.effect, sd=args.sd, power=args.power)
    try:
        with Store.open(workspace.database, read_only=True) as store:
            claims = assumed(store)
    except NotFound:
        claims = assumed(None)
    if args.json:
        return print_json(power_values(claims, args.power, workers))
    return print_view(power_view(claims, args.power, workers))
