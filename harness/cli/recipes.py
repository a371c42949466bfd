"""`harness recipes`: list the recipes for training at full scale and on downstream tasks."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import Subparsers, add_command, print_view


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    about = "list the recipes of `harness train` and `harness downstream`, or print one of them"
    parser = add_command(commands, "recipes", about)
    parser.add_argument("name", metavar="RECIPE", nargs="?", help="print this recipe as YAML, to copy and change")
    return parser


def run(args: Namespace) -> int:
    """Print all recipes, or one of them."""
    from harness.config.recipes.loading import load_any_recipe, recipe_file, recipe_names
    from harness.config.yaml_file import read_document
    from harness.report.console import plain_table

    if args.name is not None:
        print(read_document(recipe_file(args.name)).text, end="")
        return 0
    table = plain_table()
    for column in ("recipe", "for"):
        table.add_column(column)
    for name in recipe_names(None):
        table.add_row(name, load_any_recipe(name).about)
    return print_view(table)
