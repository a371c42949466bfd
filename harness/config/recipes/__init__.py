"""Training recipes as frozen values, and the recipes that come with the harness."""
