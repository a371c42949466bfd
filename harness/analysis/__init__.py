"""From stored runs to an answer; without torch, and without printing."""
