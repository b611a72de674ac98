"""What knows nothing of the project's matter: options, faults, files, downloads; no import of other packages."""

__version__ = "0.1.0"
