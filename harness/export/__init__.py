"""Export of a network: merged, written in several formats, each loaded back and compared with the original."""
