"""What must hold without training: checks that yield what was expected beside what was found.

`findings` is what checks and recorded claims yield; neither it nor this package imports torch. `checks` is the table of
all checks and imports everything else: a file per subject, and `models.equivalence`, which they share with the tests.
"""

from harness.diagnostics.verify.findings import Check, CheckGroup, ClaimRow, Finding, Line, Section

__all__ = ["Check", "CheckGroup", "ClaimRow", "Finding", "Line", "Section"]
