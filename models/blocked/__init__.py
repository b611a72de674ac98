"""Message passing in blocks of parents: what models/network.py computes, several times faster and in less memory."""
