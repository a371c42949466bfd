"""Computes the results of studies from stored runs; without torch, and without printing."""
