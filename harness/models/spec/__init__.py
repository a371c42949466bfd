"""A network as a frozen value; without torch."""
