"""Checks of the harness that need no training: each yields findings with an expected and a found value.

`findings` has the results of checks and recorded claims; neither it nor this package imports torch. `checks` is the
table of all checks and imports the rest: a module per subject, and `models.equivalence`, which the tests use, too.
"""
