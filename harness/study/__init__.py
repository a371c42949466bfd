"""The study file: YAML to frozen values, every error with file and line, and the JSON schema for editors."""

from harness.study.files import StudyFile, build_space, load_study, resolved_yaml
from harness.study.full_recipes import (
    load_any_recipe,
    load_full_recipe,
    load_recipe_of,
    recipe_file,
    recipe_kind,
    recipe_names,
)
from harness.study.model import Budgets, FullScale, Resources, Search, Study
from harness.study.schema import json_schema
from harness.study.specs import dump_spec, find_spec, load_spec, named_spec

__all__ = [
    "Budgets",
    "FullScale",
    "Resources",
    "Search",
    "Study",
    "StudyFile",
    "build_space",
    "dump_spec",
    "find_spec",
    "json_schema",
    "load_any_recipe",
    "load_full_recipe",
    "load_recipe_of",
    "load_spec",
    "load_study",
    "named_spec",
    "recipe_file",
    "recipe_kind",
    "recipe_names",
    "resolved_yaml",
]
