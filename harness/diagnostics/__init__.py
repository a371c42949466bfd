"""The harness about itself: what must hold, and what it costs."""
