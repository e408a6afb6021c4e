"""Check an .onnx file before an engine opens it: what ONNX Runtime, OpenVINO and TensorRT would read and allocate.

A parser allocates what a file asks for, and a file of 100 bytes can ask for gigabytes, or for another file. Only what
image classifiers need is accepted, and its cost is bounded from the shapes. The file is read in place, a few thousand
fields of it; weights are skipped over.

    protobuf   messages by a schema, strictly
    schema     the messages of ONNX, and which fields no file may have
    graph      nodes and tensors of a file; what is declared must match the bytes
    operators  the accepted operators: the shape that each one gives, and its multiply-adds
    check      the limits, and the check of a file
"""

from edgeemo.runtime.onnx_check.check import check_file, has_uint8_activations, is_quantized

__all__ = ["check_file", "has_uint8_activations", "is_quantized"]
