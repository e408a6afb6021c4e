"""The adapt stage: fit a model to the place where it runs, on the device itself; NumPy alone.

people   who is on each face, from folders, file names or a table
result   before and after on held-out people, as text and JSON
plots    the learning curve
run      the stage
"""
