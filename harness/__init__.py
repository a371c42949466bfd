"""Architecture studies of large-kernel convolutional networks: one YAML file in, a defended answer out."""

from harness.models.timm.hook import install as _install

__version__ = "0.1.0"

_install()
