"""The parts of HiVE-MIL as the authors' released code computes them."""
