"""The earlier name of the module that reads image files, for scripts that open images as a training does."""

from harness.data.image_file import read_full_image as open_image

__all__ = ["open_image"]
