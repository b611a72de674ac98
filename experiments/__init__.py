"""Grids of runs: their options, their processes, their progress."""
