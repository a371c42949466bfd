"""Training of a network: runs, training loops, checkpoints, and accuracy."""
