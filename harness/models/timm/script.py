"""`python -m harness.timm_script train.py ARGUMENTS`: a script of timm's, or any other, that finds our presets
in timm.

Likewise `torchrun --nproc-per-node 8 -m harness.timm_script train.py ARGUMENTS`.
"""

import runpy
import sys
from pathlib import Path


def main() -> int:
    """Run the script that the command line names as if Python had been called with it."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print("usage: python -m harness.timm_script SCRIPT [ARGUMENTS]", file=sys.stderr)
        return 2
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent.absolute())
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
