"""Structured pruning: removing channels (channels.py), and how much each layer tolerates (sensitivity.py)."""
