"""Measure a model on this machine and hold it against the gates of a target."""
