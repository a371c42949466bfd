"""YAML as study files use it: what its scalars mean, the positions of values, and which messages refuse what."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from harness.config.yaml_file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, parse_stored, read_document, write_yaml
from harness.errors import StudyError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("no", "no"),
        ("y", "y"),
        ("3", 3),
        ("-3", -3),
        ("012", 12),
        ("0x10", 16),
        ("0o10", 8),
        ("1_000_000", 1_000_000),
        ("1e6", 1_000_000),
        ("2E3", 2000),
        ("1e-3", 0.001),
        ("3.0e+6", 3e6),
        (".5", 0.5),
        ("5.", 5.0),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("0x", "0x"),
        ("'3'", "3"),
        ('"null"', "null"),
        ("!!str 3", "3"),
        ("!!float 3", 3),
    ],
)
def test_scalars(tmp_path: Path, text: str, value: Any) -> None:
    read = read_document(written(tmp_path, f"key: {text}\n")).data["key"]
    assert read == value
    assert type(read) is type(value)


def test_values_have_their_lines(tmp_path: Path) -> None:
    text = (
        "# a question\n"
        "axes:\n"
        "  K[3]:\n"
        "    - [3,\n"
        "       5]\n"
        "    - 7\n"
        "common: &common {a: 1}\n"
        "other:\n"
        "  <<: *common\n"
        "  b: 2\n"
    )
    document = read_document(written(tmp_path, text))
    assert document.data["axes"] == {"K[3]": [[3, 5], 7]}
    assert document.data["other"] == {"a": 1, "b": 2}
    lines = {
        ("axes",): 2,
        ("axes", "K[3]"): 3,
        ("axes", "K[3]", 0): 4,
        ("axes", "K[3]", 0, 1): 5,
        ("axes", "K[3]", 1): 6,
        ("axes", "K[3]", 9): 3,
        ("other", "a"): 7,
        ("other", "b"): 10,
        ("nowhere", "at", "all"): 2,
    }
    assert {at: document.line(at) for at in lines} == lines
    assert document.place(("axes", "K[3]", 1)) == f"{tmp_path}/study.yaml:6"
    assert document.text == text


@pytest.mark.parametrize("text", ["a: 1\r\nb: [2]\r\n", "\ufeffa: 1\nb: [2]"])
def test_line_ends_and_byte_order_marks(tmp_path: Path, text: str) -> None:
    assert read_document(written(tmp_path, text)).data == {"a": 1, "b": [2]}


def test_merge_keys_give_way_to_own_keys_and_to_earlier_ones(tmp_path: Path) -> None:
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3, d: 3}\n"
    assert read_document(written(tmp_path, text)).data["z"] == {"a": 1, "b": 1, "c": 3, "d": 3}


REFUSED: dict[str, tuple[str | bytes, int, str]] = {
    "empty": ("", 0, "must not be empty"),
    "comments": ("# nothing\n", 0, "must not be empty"),
    "null": ("---\n~\n", 2, "must be a mapping of keys to values, but got null"),
    "list": ("- a\n- b\n", 1, 'must be a mapping of keys to values, but got ["a", "b"]'),
    "text": ("hello", 1, 'but got "hello"'),
    "tab": ("a:\n\tb: 1\n", 2, "Indent with spaces, not with tabs."),
    "open bracket": ("a: [1, 2\nb: 3\n", 2, "Look for a missing quote, bracket or colon"),
    "open quote": ("a: 'x\nb: 3\n", 3, "end of stream"),
    "two colons": ("a: b: c\n", 1, "mapping values are not allowed here"),
    "bare at": ("a: @x\n", 1, "cannot start any token"),
    "brackets in braces": ("axes: {K[3]: [3]}\n", 1, 'Inside braces, quote a key such as "K[3]".'),
    "two documents": ("a: 1\n---\nb: 2\n", 2, "Write one study per file"),
    "unknown alias": ("a: 1\nb: *nope\n", 2, "undefined alias 'nope'"),
    "anchor twice": ("a: &x 1\nb: &x 2\n", 2, "duplicate anchor 'x'"),
    "duplicate key": ("a: 1\nb: 2\na: 3\n", 3, "`a` must occur once, but line 1 has it too"),
    "nested duplicate": ("a:\n  b: 1\n  b: 1\n", 3, "`b` must occur once, but line 2 has it too"),
    "number as key": ("a: {1: 2}\n", 1, "Keys must be text, but got 1"),
    "truth as key": ("true: 2\n", 1, "Keys must be text, but got true"),
    "null as key": ("? \n: 2\n", 1, "Keys must be text"),
    "list as key": ("? [a, b]\n: 2\n", 1, "Keys must be text, but got a list or mapping"),
    "nan": ("a:\n  b: [1, .nan]\n", 2, "`a.b[1]` must be a finite number of at most 9007199254740992, but got .nan"),
    "infinity": ("a: -.inf\n", 1, "but got -.inf"),
    "overflow": ("a: 1e999\n", 1, "but got 1e999"),
    "huge": (f"a: {'9' * 5000}\n", 1, "`a` must be a finite number"),
    "huge in hexadecimal": (f"a: 0x{'F' * 3000}\n", 1, "`a` must be a finite number"),
    "above 2**53": ("a: 9007199254740994\n", 1, "but got 9007199254740994"),
    "python tag": ("a: !!python/object/apply:os.system [true]\n", 1, "python/object/apply:os.system` does not fit"),
    "python tag on text": ("a: !!python/name:os.system ''\n", 1, "does not fit here"),
    "own tag": ("a: !thing {b: 1}\n", 1, "The tag `!thing` does not fit here"),
    "date tag": ("a: !!timestamp 2024-01-01\n", 1, "does not fit here"),
    "false tag": ("a: !!int abc\n", 1, "does not fit here"),
    "holds itself": ("a: &a [*a]\n", 1, "no alias may hold itself"),
    "merges itself": ("a: &a {<<: *a}\n", 1, "no alias may hold itself"),
    "merges a number": ("a: {<<: 3}\n", 1, "`<<` must take in mappings only"),
    "deep": ("a: " + "[" * (MAX_DEPTH + 8) + "]" * (MAX_DEPTH + 8), 1, f"nested at most {MAX_DEPTH} deep"),
    "very deep": ("a: " + "[" * 1000 + "]" * 1000, 0, f"nested at most {MAX_DEPTH} deep"),
    "very deep braces": ("a: " + "{a: " * 1000 + "}" * 1000, 0, f"nested at most {MAX_DEPTH} deep"),
    "a billion laughs": (LAUGHS, 0, f"at most {MAX_VALUES} values, aliases followed"),
    "large": (b"a" * (MAX_BYTES + 1), 0, f"at most {MAX_BYTES} bytes, but got {MAX_BYTES + 1}"),
    "control character": ("a: b\nc: \x01\n", 2, "no control characters"),
    "zero byte": ("a: b\nc: \0\n", 2, "no control characters"),
    "latin-1": (b"a: b\nc: \xe9\n", 2, "must be UTF-8 text (byte 8 is not)"),
    "utf-16": ("a: b\n".encode("utf-16"), 1, "must be UTF-8 text"),
    "binary": (bytes(range(256)), 2, "must be UTF-8 text (byte 128 is not)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    text, line, words = REFUSED[name]
    start = time.monotonic()
    with pytest.raises(StudyError) as caught:
        read_document(written(tmp_path, text))
    assert words in str(caught.value)
    assert f"study.yaml:{line})" in str(caught.value) if line else "study.yaml" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert time.monotonic() - start < 10


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        read_document(written(tmp_path, "a: 1\na: 2\n3: 4\nb: .nan\n"))
    assert [problem.place for problem in caught.value.problems] == [f"{tmp_path}/study.yaml:{n}" for n in (2, 3, 4)]
    assert str(caught.value).count("\n") == 3


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.yaml", "The file must exist"),
        (".", "a folder or a device"),
        ("/dev/null", "a folder or a device"),
        ("x" * 5000, "must be readable"),
        ("a\0b", "The file must"),
    ],
)
def test_paths_that_lead_nowhere(tmp_path: Path, path: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        read_document(tmp_path / path)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(-(2.0**53), 2.0**53)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
    | st.sampled_from(
        ["on", "1e3", "012", "null", "<<", "0x1", "1_0", "", " x ", "a: b", "# no", "- x", "1:30", "=", "~"]
    )
)
keys = st.text(max_size=6, alphabet="abcK[3]:#- 0e") | st.sampled_from(["on", "1e3", "true", "3", "null", "K[3]"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@examples(100)
@given(data=st.dictionaries(keys, values, min_size=1, max_size=5), comment=st.none() | st.text(max_size=20))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any], comment: str
) -> None:
    printable = (
        None
        if comment is None
        else "".join(character for character in comment if character.isprintable() or character == "\n")
    )
    text = write_yaml(data, printable)
    assert same(read_document(written(tmp_path_factory.getbasetemp(), text)).data, data)
    assert same(parse_stored(text), data)


def same(one: Any, other: Any) -> bool:
    """Equal in value and in kind: 1 is neither 1.0 nor true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return type(one) is type(other) and bool(one == other)
