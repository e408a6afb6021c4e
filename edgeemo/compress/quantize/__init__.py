"""Float ONNX → INT8 or FP16, and the proof that the file still predicts the same.

In the order of use: calibrate.py (which training faces), ranges.py (of activations), tune.py (quantization-aware
training), qdq.py (the file), rounding.py (GPTQ), overflow.py (can a kernel saturate?), precision.py (what runs in
integers?), fidelity.py (what has changed?); fp16.py for GPUs.
"""
