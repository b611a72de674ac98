"""Faults done to the scripts on purpose: kills, full disks, damaged inputs, senseless options; and mutants of the code.

``make campaign`` runs the long form (tests/campaign/__main__.py); tests/faults/ runs a small one.
"""
