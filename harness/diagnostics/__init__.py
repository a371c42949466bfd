"""Diagnostics of the harness itself: checks, error rates, reproduction of runs, and benchmarks."""
