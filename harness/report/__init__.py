"""Views of studies and networks for people: the live view, the results, tables and plots."""
