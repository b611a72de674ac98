"""Configuration, training loop, evaluation, results and files; imports nothing else of the project."""

__version__ = "0.1.0"
