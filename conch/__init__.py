"""CONCH's networks and tokenizer, and the place of its weights."""
