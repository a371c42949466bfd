"""`python run_study.py FILE`: train what a study needs and print its answer; the same door as `harness run FILE`."""

import sys

from harness.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["run", *sys.argv[1:]], run_name="run_study.py"))
