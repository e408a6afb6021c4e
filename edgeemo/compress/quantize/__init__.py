"""Float ONNX → INT8 or FP16, and the checks that the file still predicts the same.

In order of use: calibrate.py (calibration set), ranges.py (activation ranges), qat.py (quantization-aware training),
qdq.py (INT8 file with Q/DQ nodes), rounding.py (GPTQ), overflow.py (can a kernel saturate?), precision.py (share of
multiply-adds in integers), fidelity.py (agreement with float); fp16.py (FP16 for GPUs).
"""
