"""What scripts share in composing models and data."""
