"""Pictures: claims, receptive fields, kernel weights."""
