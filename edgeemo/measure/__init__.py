"""What a model file costs and predicts on this machine, for compress and bench alike.

latency.py runs turns.py and cold_start.py in processes of their own; logits.py runs a model over many faces.
"""
