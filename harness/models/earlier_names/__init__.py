"""Modules under the names that scripts, commands and model cards of earlier versions import.

The folder is on the path of the package `harness`, so that `harness.weights` is found here.
"""
