"""The verbs on studies, and what is checked without one."""

import argparse
from pathlib import Path

from harness import __version__
from harness.cli.arguments import Verbs, add_place, add_verb, port, positive, verb

VERIFIED = ("counts", "closed_form", "merge", "operator", "specs", "full_scale", "claims")
"""What `harness verify` looks at."""


def add_studies(verbs: Verbs, run_name: str | None) -> None:
    """`run`, `status`, `show`, `best`, `presets`, `dashboard`, `schema`, `reproduce`, `aa`, `plot`, `verify`."""
    _add_run(verbs, run_name)
    status = add_verb(verbs, "status", "show where a study stands, also while another process drives it")
    show = add_verb(
        verbs,
        "show",
        "show a network by stage; or all configurations of a study, or one trial from close up",
        file="a preset, as replknet_31b; a network's file; or a study file, as search_spaces/kernel_size.yaml",
    )
    show.add_argument("trial", metavar="TRIAL", type=int, nargs="?", help="the number of a trial, from the column #")
    best = add_verb(verbs, "best", "print the winner's network as YAML, to be the base of another study")
    best.add_argument("--trial", type=int, metavar="N", help="another trial than the winner, from the column #")
    presets = verbs.add_parser("presets", help=(about := "list all presets beside the figures of their papers"))
    presets.description = f"{about[0].upper()}{about[1:]}."
    presets.set_defaults(call=verb("presets"))
    for priced in (show, presets):
        priced.add_argument("--resolution", type=int, metavar="N", help="side of the images (default: as published)")
    for listing in (status, show, presets, best):
        listing.add_argument("--json", action="store_true", help="print JSON")
    dashboard = add_verb(verbs, "dashboard", "show a study in Optuna's dashboard, on this machine only")
    dashboard.add_argument(
        "--port", type=port, default=8080, metavar="N", help="port to listen on; 0 for any (default: 8080)"
    )
    schema = verbs.add_parser("schema", help="print the JSON schema of study files, for editors")
    schema.set_defaults(call=verb("schema"))
    _add_reproduce(verbs)
    _add_aa(verbs)
    _add_plot(verbs)
    _add_verify(verbs)


def _add_run(verbs: Verbs, name: str | None) -> None:
    run = add_verb(verbs, "run", "train what a study needs, and print its answer")
    run.prog = name or run.prog
    add_version(run)
    workers = run.add_argument_group("workers")
    workers.add_argument(
        "--executor", choices=("ray", "inline"), default="ray", help="who trains (default: ray; inline: this process)"
    )
    workers.add_argument(
        "--workers", type=positive, metavar="N", help="runs at a time (default: as many as the machine has room for)"
    )
    workers.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster that is running, as host:6379 or auto")
    how = run.add_argument_group("how")
    how.add_argument(
        "--dry-run", action="store_true", help="list what would be trained, its cost and time; write nothing"
    )
    how.add_argument(
        "--reuse",
        choices=("any", "same"),
        default="any",
        help="runs to take that are there already: of any environment, or of one like this (code, libraries, "
        "processor, threads, device), the others being trained again; times are never taken from another "
        "(default: any)",
    )
    how.add_argument("--fresh", action="store_true", help="forget this study's trials, and its runs that no other has")
    how.add_argument("--quiet", action="store_true", help="print the answer only")


def _add_reproduce(verbs: Verbs) -> None:
    about = "train a recorded run again, and compare the two bit by bit"
    reproduce = add_verb(verbs, "reproduce", about, file="a study file, or a summary.json or the folder that holds it")
    reproduce.description = (
        f"{about[0].upper()}{about[1:]}. Says `same bits`, or `not the same environment`, what differs and how far "
        "apart the values are, or SAME ENVIRONMENT AND OTHER BITS, which alone gives exit code 1. Nothing of the study "
        "is changed."
    )
    reproduce.add_argument(
        "which", metavar="TRIAL|RUN", nargs="?", help="a trial's number, or a run's id (default: the best trial)"
    )
    reproduce.add_argument("--json", action="store_true", help="print JSON")


def _add_aa(verbs: Verbs) -> None:
    about = "count the false verdicts that recorded runs of two equal arms come to"
    more = (
        "Of one study, whose arms are replicas: the share of studies drawn from its runs that come to a verdict; more "
        "than the plan allows gives exit code 1. Of several studies, which make one claim on different data sets: how "
        "often the interval of one holds the effect over all. With `--validation-sets`, of a study with any arms: its "
        "networks are judged on further images, to show how much of the effect's error belongs to these."
    )
    aa = verbs.add_parser("aa", help=about, description=f"{about[0].upper()}{about[1:]}. {more}")
    aa.add_argument("files", metavar="FILE", type=Path, nargs="+", help="a study file, as search_spaces/aa.yaml")
    aa.add_argument("--first", type=positive, default=3, metavar="N", help="pairs at the first look (default: 3)")
    aa.add_argument("--most", type=positive, default=8, metavar="N", help="pairs at the last look (default: 8)")
    aa.add_argument("--studies", type=int, default=10_000, metavar="N", help="studies to draw (default: 10000)")
    aa.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the drawing (default: 0)")
    aa.add_argument(
        "--validation-sets",
        type=positive,
        metavar="N",
        help="judge the networks of one study on so many further sets of generated images, shared by all (10 to 1000)",
    )
    aa.add_argument(
        "--images", type=positive, metavar="N", help="images of each such set (default: as many as a run is judged on)"
    )
    aa.add_argument("--json", action="store_true", help="print JSON")
    add_place(aa)
    aa.set_defaults(call=verb("aa"), quick=False)


def _add_plot(verbs: Verbs) -> None:
    about = "draw the claims of a study from its summary alone, as `claims.png` beside it"
    plot = verbs.add_parser("plot", help=about, description=f"{about[0].upper()}{about[1:]}.")
    plot.add_argument(
        "summaries", metavar="SUMMARY", type=Path, nargs="+", help="a summary.json, or the folder that holds it"
    )
    plot.set_defaults(call=verb("plot"))


def _add_verify(verbs: Verbs) -> None:
    about = "check all that needs no training, then show the verdicts of all recorded claims"
    codes = (
        "A check that does not hold, and a claim study whose runs cannot be read, give exit code 1; a claim that is "
        "contradicted is a finding, not a fault."
    )
    verify = verbs.add_parser("verify", help=about, description=f"{about[0].upper()}{about[1:]}. {codes}")
    verify.add_argument("--only", choices=VERIFIED, nargs="+", metavar="SUBJECT", help=f"of {', '.join(VERIFIED)}")
    verify.add_argument(
        "--full", action="store_true", help="the slow checks, too: 31L and XL in float64, 8 GB of memory"
    )
    verify.add_argument("--json", action="store_true", help="print JSON, every finding included")
    add_place(verify)
    verify.set_defaults(call=verb("verify"), quick=False)


def add_version(parser: argparse.ArgumentParser) -> None:
    """The option `--version`."""
    parser.add_argument("--version", action="version", version=f"harness {__version__}")
