"""Segmentation heads and detectors on a network's feature maps."""
