"""The messages of ONNX (onnx.proto of ONNX 1.23), with the fields that no file may have."""

from __future__ import annotations

from edgeemo.runtime.onnx_check.protobuf import FLOAT, INT, SPAN, TEXT, Field, Schema

SECOND_FILE = "keeps weights in a second file, which the card's hash does not cover; export it with all weights inside"
SUBGRAPH = "holds a graph (as If, Loop and Scan do)"
SPARSE = "holds a sparse tensor"
OTHER_TYPE = "has a value that is not a tensor"

METADATA = Field("metadata_props", repeated=True)  # ONNX Runtime reads none of it by default
DOC_STRING = Field("doc_string")

TENSOR: Schema = {
    1: Field("dims", INT, repeated=True),
    2: Field("data_type", INT),
    3: Field("segment", refused="is one segment of a tensor"),
    4: Field("float_data"),
    5: Field("int32_data"),
    6: Field("string_data", repeated=True, refused="holds text"),
    7: Field("int64_data"),
    8: Field("name", TEXT),
    9: Field("raw_data"),
    10: Field("double_data"),
    11: Field("uint64_data"),
    12: DOC_STRING,
    13: Field("external_data", repeated=True, refused=SECOND_FILE),
    14: Field("data_location", INT),
    16: METADATA,
}

DIMENSION: Schema = {1: Field("dim_value", INT), 2: Field("dim_param", TEXT), 3: Field("denotation")}
SHAPE: Schema = {1: Field("dim", DIMENSION, repeated=True)}
TENSOR_TYPE: Schema = {1: Field("elem_type", INT), 2: Field("shape", SHAPE)}
TYPE: Schema = {
    1: Field("tensor_type", TENSOR_TYPE),
    4: Field("sequence_type", refused=OTHER_TYPE),
    5: Field("map_type", refused=OTHER_TYPE),
    6: Field("denotation"),
    7: Field("opaque_type", refused=OTHER_TYPE),
    8: Field("sparse_tensor_type", refused=OTHER_TYPE),
    9: Field("optional_type", refused=OTHER_TYPE),
}
VALUE: Schema = {1: Field("name", TEXT), 2: Field("type", TYPE), 3: DOC_STRING, 4: METADATA}

ATTRIBUTE: Schema = {
    1: Field("name", TEXT),
    2: Field("f", FLOAT),
    3: Field("i", INT),
    4: Field("s", TEXT),
    5: Field("t", TENSOR),
    6: Field("g", refused=SUBGRAPH),
    7: Field("floats", FLOAT, repeated=True),
    8: Field("ints", INT, repeated=True),
    9: Field("strings", repeated=True, refused="holds a list of texts"),
    10: Field("tensors", repeated=True, refused="holds a list of tensors"),
    11: Field("graphs", repeated=True, refused=SUBGRAPH),
    13: DOC_STRING,
    14: Field("tp", refused="holds a type"),
    15: Field("type_protos", repeated=True, refused="holds a list of types"),
    20: Field("type", INT),
    21: Field("ref_attr_name", refused="refers to an attribute of a function"),
    22: Field("sparse_tensor", refused=SPARSE),
    23: Field("sparse_tensors", repeated=True, refused=SPARSE),
}
ATTRIBUTE_TYPES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}

NODE: Schema = {
    1: Field("input", TEXT, repeated=True),
    2: Field("output", TEXT, repeated=True),
    3: Field("name", TEXT),
    4: Field("op_type", TEXT),
    5: Field("attribute", ATTRIBUTE, repeated=True),
    6: DOC_STRING,
    7: Field("domain", TEXT),
    8: Field("overload", refused="calls a function"),
    9: METADATA,
    10: Field("device_configurations", repeated=True, refused="is for several devices"),
}

ANNOTATION: Schema = {
    1: Field("tensor_name", TEXT),
    2: Field("quant_parameter_tensor_names", SPAN, repeated=True),
}
GRAPH: Schema = {
    1: Field("node", NODE, repeated=True),
    2: Field("name", TEXT),
    5: Field("initializer", TENSOR, repeated=True),
    10: DOC_STRING,
    11: Field("input", VALUE, repeated=True),
    12: Field("output", VALUE, repeated=True),
    13: Field("value_info", repeated=True),  # shapes in between, which engines compute themselves
    14: Field("quantization_annotation", ANNOTATION, repeated=True),
    15: Field("sparse_initializer", repeated=True, refused=SPARSE),
    16: METADATA,
}

OPERATOR_SET: Schema = {1: Field("domain", TEXT), 2: Field("version", INT)}
MODEL: Schema = {
    1: Field("ir_version", INT),
    2: Field("producer_name", TEXT),
    3: Field("producer_version", TEXT),
    4: Field("domain", TEXT),
    5: Field("model_version", INT),
    6: DOC_STRING,
    7: Field("graph", GRAPH),
    8: Field("opset_import", OPERATOR_SET, repeated=True),
    14: METADATA,
    20: Field("training_info", repeated=True, refused="holds a graph for training"),
    25: Field("functions", repeated=True, refused="defines functions of its own"),
    26: Field("configuration", repeated=True, refused="is for several devices"),
}
