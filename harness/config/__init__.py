"""What files say, as frozen values: study files, search spaces, recipes; without torch."""
