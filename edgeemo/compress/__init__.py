"""The workshop's second room: a trained network made small and fast, judged at every step. Needs torch."""
