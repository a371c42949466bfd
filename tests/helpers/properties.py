"""How many examples a property is tested with."""

from hypothesis import settings

BRIEF_PROFILE = "brief"
"""Hypothesis's profile for `make test`; `tests/conftest.py` registers it."""
BRIEF_SHARE, BRIEF_LEAST = 0.1, 5


def examples(number: int) -> settings:
    """Test a property with `number` examples; with `--hypothesis-profile=brief`, a tenth of them, but at least five.

    An example has no deadline, because the machine may be busy.
    """
    if settings.get_current_profile_name() == BRIEF_PROFILE:
        number = min(number, max(BRIEF_LEAST, round(BRIEF_SHARE * number)))
    return settings(max_examples=number, deadline=None)
