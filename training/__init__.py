"""Training: the loop, its metrics, the folder of a run, and the one way into it."""
