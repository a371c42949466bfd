"""What must hold without training: checks that yield what was expected beside what was found.

`findings` is what checks yield, `claim_rows` the seam to what studies have claimed; neither they nor this package
import torch. `checks` is the table of all checks and imports everything else: a file per subject, and
`models.equivalence`, which they share with the tests.
"""

from harness.diagnostics.verify.claim_rows import ClaimRow
from harness.diagnostics.verify.findings import Check, Finding, Line, Section, Subject

__all__ = ["Check", "ClaimRow", "Finding", "Line", "Section", "Subject"]
