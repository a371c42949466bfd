"""Entry point of `python -m harness`, which is the same as the console script `harness`."""

from harness.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
