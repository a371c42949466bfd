"""Plots of claims, receptive fields and kernel weights."""
