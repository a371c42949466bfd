"""Networks looked at: how far they see, where their large kernels have their weight, and whether they go by shape."""
