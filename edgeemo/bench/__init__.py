"""Measure a model on this machine and check it against the gates of a target."""
