"""Modules under names that users type or that model cards of earlier versions import.

The folder is on the path of the package `harness`, so that `harness.weights` is found here.
"""
