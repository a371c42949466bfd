"""Trainings at full scale of what says something about every part of an image: segmentation and detection."""
