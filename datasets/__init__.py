"""Slides, tables, splits, descriptions and features: made, checked and read."""
