"""What must hold without training: checks that yield what was expected beside what was found.

`findings` is what checks and recorded claims yield; neither it nor this package imports torch. `checks` is the table of
all checks and imports everything else: a file per subject, and `models.equivalence`, which they share with the tests.
"""

from harness.diagnostics.verify.findings import Check, ClaimRow, Finding, Line, Section, Subject

__all__ = ["Check", "ClaimRow", "Finding", "Line", "Section", "Subject"]
