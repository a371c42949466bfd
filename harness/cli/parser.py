"""The grammar of the command line; knows every verb, and imports nothing that one needs."""

import argparse

from harness.cli.bench_parser import add_bench
from harness.cli.downstream_parser import add_downstream
from harness.cli.evaluate_parser import add_evaluation
from harness.cli.networks import add_networks
from harness.cli.studies_parser import add_studies, add_version
from harness.cli.train_parser import add_trainings

__all__ = ["build_parser"]


def build_parser(run_name: str | None = None) -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    parser = argparse.ArgumentParser(
        prog="harness", description="Architecture studies of large-kernel networks: a YAML file in, an answer out."
    )
    add_version(parser)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    add_studies(verbs, run_name)
    add_networks(verbs)
    add_trainings(verbs)
    add_downstream(verbs)
    add_evaluation(verbs)
    add_bench(verbs)
    return parser
