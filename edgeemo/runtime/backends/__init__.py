"""Backends: one module per library that runs model files, which imports the library only when a file is opened."""
