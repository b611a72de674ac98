"""What knows nothing of the project's matter: options, faults, files, downloads. It imports nothing of the project."""

__version__ = "0.1.0"
