"""Architecture studies of large-kernel convolutional networks: from one YAML file to a statistically tested answer."""

from harness.models.timm.hook import install as _install

__version__ = "0.1.0"

_install()
