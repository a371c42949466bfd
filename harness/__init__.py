"""Architecture studies of large-kernel convolutional networks: from one YAML file to a statistically tested answer."""

from pathlib import Path as _Path

from harness.models.timm.hook import install as _install

__version__ = "0.1.0"

__path__.append(str(_Path(__file__).parent / "models" / "earlier_names"))

_install()
