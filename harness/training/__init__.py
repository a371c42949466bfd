"""What happens to one network: its run, its training, its accuracy."""
