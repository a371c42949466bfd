"""What must hold without training: checks that yield what was expected beside what was found.

`findings` is what checks yield, `claims` the seam to what studies have claimed; neither they nor this package import
torch. `checks` is the table of all checks and imports everything else: a file per subject, and `equality` and
`counting`, which they share with the tests.
"""

from harness.verify.claims import ClaimRow
from harness.verify.findings import Check, Finding, Line, Section, Subject

__all__ = ["Check", "ClaimRow", "Finding", "Line", "Section", "Subject"]
