"""Latency, cold start and logits of a model file on this machine, for compress and bench.

latency.py runs turns.py and cold_start.py in processes of their own; logits.py runs a model over many faces.
"""
