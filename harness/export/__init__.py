"""A network for use elsewhere: merged, written in several formats, each loaded back and held against the original."""
