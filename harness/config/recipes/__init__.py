"""How networks are trained, as frozen values, and the recipes that come with the harness."""
