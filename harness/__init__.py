"""Architecture studies of large-kernel convolutional networks: one YAML file in, a defended answer out."""

__version__ = "0.1.0"
