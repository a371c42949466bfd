"""The search: chooses what to train next and processes the results. `Driver` is a study's only database writer."""
