"""Message passing in blocks of parents: what models/network.py computes, many times faster and in bounded memory."""
