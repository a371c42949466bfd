"""`python run_study.py FILE` trains a study and prints its results; it is the same command as `harness run FILE`."""

import sys

from harness.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["run", *sys.argv[1:]], run_name="run_study.py"))
