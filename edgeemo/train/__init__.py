"""The workshop's first room: labelled faces in, a trained network with its card out. Needs torch."""
