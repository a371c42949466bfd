"""`python -m harness.timm_script train.py ARGUMENTS` runs a script of timm's with our presets."""

from harness.models.timm.script import main

if __name__ == "__main__":
    raise SystemExit(main())
