"""`python -m harness.timm_script train.py ARGUMENTS`: run a script of timm, or any other, with our presets
registered in timm.

With several processes: `torchrun --nproc-per-node 8 -m harness.timm_script train.py ARGUMENTS`.
"""

import runpy
import sys
from pathlib import Path


def main() -> int:
    """Run the script given on the command line as Python itself would."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print("usage: python -m harness.timm_script SCRIPT [ARGUMENTS]", file=sys.stderr)
        return 2
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).parent.absolute())
    runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
