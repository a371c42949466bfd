"""Expressions of study files: what they can say, and that nothing else gets through."""

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from harness.config.expressions import MAX_CONDITION_LENGTH, Expression
from harness.config.space import plain_fields
from harness.errors import StudyError
from harness.models.spec.presets import PRESETS

FIELDS = plain_fields(PRESETS["replknet_nano"].replace(reparam=[5, 5, None, 5]))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("max(K) > 5", True),
        ("C[3] <= 8 * C[0]", True),
        ("C[3] < 8 * C[0]", False),
        ("sum(B) == 5 and len(K) == 4", True),
        ("K == [31, 29, 27, 13]", True),
        ("K == (31, 29, 27, 13)", True),
        ("K != [3, 3, 3, 3]", True),
        ("13 in K and 11 not in K", True),
        ("all(k > 5 for k in K)", True),
        ("any(s == null for s in reparam)", True),
        ("max(s or 0 for s in reparam) == 5", True),
        ("min(K[:3]) > 20 and K[-1] < 20", True),
        ("not shortcut or depthwise", True),
        ("shortcut == true and depthwise != False", True),
        ("reparam[2] is null", True),
        ("reparam[2] == null or reparam[2] > 3", True),
        ("abs(-3) + 2 ** 3 - 7 // 2 % 5 == 8", True),
        ("family == 'replknet'", True),
        ("(K[0] > 5) if shortcut else (K[0] > 50)", True),
        ("1 <= stem_stride < 4 <= ffn_ratio", True),
        ("  drop_path == 0  ", True),
    ],
)
def test_valid_expressions(text: str, outcome: bool) -> None:
    assert Expression(text).holds(FIELDS) is outcome


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be an expression"),
        ("K[0] = 3", "must be an expression"),
        ("K[0] > 3 && shortcut", "must be an expression"),
        ("K[0] > 5\nimport os", "must be an expression"),
        ("1if 1 else 0", "must be an expression"),
        ("\x00", "must be an expression"),
        ("(" * 250, "must be an expression"),
        ("not " * 60 + "shortcut", "nested at most"),
        ("-" * 250 + "1 > 0", "nested at most"),
        ("K[0] > 5 or " * 100 + "shortcut", f"at most {MAX_CONDITION_LENGTH} characters"),
        ("Q > 3", "`Q`, which is no field of a network"),
        ("chanels > 3", "Fields: family, B, C, K"),
        ("depth_wise", "Did you mean `depthwise`?"),
        ("max > 3", "`max`, which is no field"),
        ("mx(K) > 3", "Did you mean `max`?"),
        ("open('/etc/passwd')", "`open`, which is no function"),
        ("__import__('os').system('true')", "is no"),
        ("K.__class__", "`K.__class__` is none of them"),
        ("().__class__.__bases__[0].__subclasses__()", "is no function"),
        ("(lambda: 1)()", "is no"),
        ("[k for k in K if k.real]", "is none of them"),
        ("{1: 2}", "is none of them"),
        ("{k for k in K}", "is none of them"),
        ("f'{K}'", "is none of them"),
        ("(K := 3)", "is none of them"),
        ("max(*K) > 3", "is none of them"),
        ("max(K, default=3) > 3", "is none of them"),
        ("K[0] << 900000000", "is none of them"),
        ("b'x' == b'x'", "plain numbers and text only"),
        ("3j == 3j", "plain numbers and text only"),
        ("... == 3", "plain numbers and text only"),
        ("all(K > 3 for K in K)", "must not use `K` as the variable of a loop"),
    ],
)
def test_invalid_expressions(text: str, words: str) -> None:
    with pytest.raises(StudyError) as caught:
        Expression(text, key="rules[2]", place="study.yaml:7")
    assert words in str(caught.value)
    assert "`rules[2]`" in str(caught.value)
    assert "(study.yaml:7)" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max(K)", "it is `31`; write a comparison"),
        ("K[0] and K[1]", "it is `29`"),
        ("'yes'", 'it is `"yes"`'),
        ("null", "it is `null`"),
        ("10**6**3", "powers go up to"),
        ("9**9**9 > 1", "powers go up to"),
        ("*".join(["(10**6)**64"] * 20), "it is a huge number"),
        ("[" + "*".join(["(10**6)**64"] * 20) + "]", "it is a huge number"),
        ("('a' * 10**9) == 'b'", "arithmetic needs numbers, not text"),
        ("[0] * 10**9 == K", "arithmetic needs numbers, not a list"),
        ("'%999999999d' % 3 == ''", "arithmetic needs numbers, not text"),
        ("-K == 3", "arithmetic needs numbers, not a list"),
        ("K == 13", "a list can be compared with a list only"),
        ("reparam == null", "a list can be compared with a list only"),
        ("max(reparam) > 3", "null has no size"),
        ("reparam[2] > 3", "null is neither more nor less"),
        ("K[7] > 3", "list index out of range"),
        ("K['a'] > 3", "list indices must be integers"),
        ("K[0] / 0 > 1", "division by zero"),
        ("family > 3", "not supported"),
        ("k > 3 and all(k > 5 for k in K)", "'k' is not defined"),
        ("sum([1 for a in K for b in K for c in K for d in K for e in K for f in K for g in K]) > 0", "too many"),
    ],
)
def test_an_expression_that_is_neither_true_nor_false(text: str, words: str) -> None:
    condition = Expression(text, key="when.K", place="study.yaml:7")
    start = time.monotonic()
    with pytest.raises(StudyError) as caught:
        condition.holds(FIELDS)
    assert time.monotonic() - start < 2
    assert words in str(caught.value)
    assert "`when.K` must be true or false" in str(caught.value)
    assert "(study.yaml:7)" in str(caught.value)


def test_the_error_names_the_values() -> None:
    with pytest.raises(StudyError, match=r"With K=\[31, 29, 27, 13\], reparam=\[5, 5, null, 5\]: null is neither"):
        Expression("reparam[2] < K[0]").holds(FIELDS)


def test_references_tell_stages_apart() -> None:
    expression = Expression("K[0] > 5 and max(C) < 9 and reparam[-1] == null and all(k > B[1] for k in B)")
    assert expression.references() == {("K", 0), ("C", None), ("reparam", -1), ("B", 1), ("B", None)}


def test_expressions_are_values() -> None:
    one, other = Expression("max(K) > 5", key="a", place="b"), Expression("max(K) > 5")
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)).holds(FIELDS)


TOKENS = ["K", "C", "reparam", "shortcut", "max", "all", "(", ")", "[", "]", "0", "9", "1e9", ">", "==", "and", "not"]
TOKENS += [
    "or",
    "for",
    "in",
    "k",
    "if",
    "else",
    "*",
    "**",
    "/",
    "-",
    ",",
    ":",
    ".",
    "'",
    '"',
    "\\",
    "lambda",
    "__",
    "null",
]


@examples(300)
@given(st.lists(st.sampled_from(TOKENS), max_size=14).map(" ".join) | st.text(max_size=40))
def test_any_text_is_an_expression_or_a_study_error(text: str) -> None:
    try:
        assert Expression(text).holds(FIELDS) in (True, False)
    except StudyError as error:
        assert str(error)
