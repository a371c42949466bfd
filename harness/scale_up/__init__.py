"""Training at full scale: a winner's choices on a network of its real size, with a recipe from `harness/recipes`."""
