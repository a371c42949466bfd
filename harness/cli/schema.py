"""`harness schema`: print the JSON schema of study files."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import Subparsers, add_command, print_json


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    return add_command(commands, "schema", "print the JSON schema of study files, for editors")


def run(_: Namespace) -> int:
    """Print the schema."""
    from harness.config.json_schema import json_schema

    return print_json(json_schema())
