"""The worked examples of a page of the documentation: what they change, what they type, and what they expect to see.

Run as a program in a copy of the repository with the changes of a page, it plays its examples: `python
worked_examples.py PAGE FOLDER TEST...`, and runs tests of the copy in the same process, because loading torch takes
longer than most of them.
"""

import contextlib
import doctest
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from brief_timing import time_briefly

FENCE = re.compile(
    r"(?:^(?P<before>[^\n]+)\n\n)?^```(?P<language>\w+)\n(?P<body>.*?)^```$|^## (?P<heading>[^\n]+)$",
    re.MULTILINE | re.DOTALL,
)
NEW_FILE = re.compile(r"New file `(harness/[^`]+)`:$")
NAMED_FILE = re.compile(r"`([\w.]+\.yaml)`(?::|\?.*)$")
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """One block of code of a section, with the paragraph's last line before it."""

    before: str
    language: str
    body: str

    @property
    def new_file(self) -> str | None:
        named = NEW_FILE.search(self.before)
        return named[1] if named else None


def read_sections(text: str) -> dict[str, list[Block]]:
    """The blocks of code of a page by the section's heading."""
    sections: dict[str, list[Block]] = {}
    blocks: list[Block] = []
    for match in FENCE.finditer(text):
        if match["heading"]:
            blocks = sections.setdefault(match["heading"], [])
        else:
            blocks.append(Block(match["before"] or "", match["language"], match["body"]))
    return {heading: blocks for heading, blocks in sections.items() if blocks}


# What an example changes


def apply_changes(blocks: list[Block], repository: Path) -> None:
    """Write the new files and apply the differences of a section in a copy of the repository."""
    for block in blocks:
        if block.new_file is not None:
            path = repository / block.new_file
            assert not path.exists(), f"{block.new_file} exists already"
            path.write_text(block.body, encoding="utf-8")
        elif block.language == "diff":
            apply_difference(block.body, repository)


def apply_difference(difference: str, repository: Path) -> None:
    """Apply a difference without line numbers: each part must fit exactly one place of the file."""
    head, *parts = re.split(r"^@@\n", difference, flags=re.MULTILINE)
    before, after = re.fullmatch(r"--- (\S+)\n\+\+\+ (\S+)\n", head).groups()  # type: ignore[union-attr]
    assert before == after
    path = repository / after
    text = path.read_text(encoding="utf-8")
    for part in parts:
        lines = part.splitlines(keepends=True)
        assert {line[0] for line in lines} <= set(" +-\n"), f"{after}: every line begins with a space, + or -"
        old, new = ("".join(line[1:] or "\n" for line in lines if line[0] not in sign) for sign in "+-")
        assert text.count(old) == 1, f"{after} has {text.count(old)} places for\n{part}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


# What an example types


def play(blocks: list[Block]) -> Iterator[str]:
    """Run what a section types in the current folder; yields a text for each output that is not as printed there."""
    session: dict[str, object] = {}
    for number, block in enumerate(blocks):
        if block.language == "yaml":
            named = NAMED_FILE.search(block.before)
            assert named is not None, f"a file needs a name: {block.before}"
            Path(named[1]).write_text(block.body, encoding="utf-8")
        elif block.language == "pycon":
            yield from _play_session(block.body, session, f"session {number}")
        elif block.language == "console":
            yield from _play_commands(block.body)


def _play_session(text: str, scope: dict[str, object], name: str) -> Iterator[str]:
    out = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=LOOSELY)
    test = doctest.DocTestParser().get_doctest(text, scope, name, None, 0)
    if runner.run(test, out=out.write, clear_globs=False).failed:
        yield out.getvalue()
    scope |= test.globs


def _play_commands(text: str) -> Iterator[str]:
    for typed, expected in re.findall(r"^\$ harness ([^\n]*)\n((?:(?!\$ )[^\n]*\n)*)", text, re.MULTILINE):
        printed = _output_of(shlex.split(typed))
        if not doctest.OutputChecker().check_output(expected, printed, LOOSELY):
            yield f"$ harness {typed}\nexpected:\n{expected}printed:\n{printed}"


def _output_of(arguments: list[str]) -> str:
    from harness.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main(arguments)
    return out.getvalue()


def main_of(page: str, folder: str, *tests: str) -> int:
    """Play the sections in folders of their own, then run tests in this one; prints what is not as expected, and
    returns 1 then."""
    faults = []
    time_briefly()
    for number, (section, blocks) in enumerate(read_sections(Path(page).read_text(encoding="utf-8")).items()):
        work = Path(folder, str(number))
        work.mkdir()
        with contextlib.chdir(work):
            faults += [f"{section}\n{fault}" for fault in play(blocks)]
    print("\n".join(faults))
    options = ("--assert=plain", "-p", "no:xdist", "-p", "no:cacheprovider", "--basetemp", f"{folder}/pytest")
    return int(bool(faults)) or int(pytest.main([*options, *tests]))


if __name__ == "__main__":
    sys.exit(main_of(*sys.argv[1:]))
