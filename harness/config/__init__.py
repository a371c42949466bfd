"""Configuration files as frozen values: study files, search spaces, recipes; imports no torch."""
