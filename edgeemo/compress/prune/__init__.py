"""Structured pruning: which channels to remove (channels.py), and what each layer tolerates (sensitivity.py)."""
