"""The messages of `inference.GRPCInferenceService`, built from a table of their fields.

Names, numbers and types are those of the protocol's `open_inference_grpc.proto`, and of Triton's `grpc_service.proto`
for the repository index. A pool of their own: any other program may define the package `inference` beside us.
"""

from functools import cache
from typing import Any, NamedTuple

from boucle.errors import MissingExtra

__all__ = ["CONTENTS", "METHODS", "SERVICE", "message"]

SERVICE = "inference.GRPCInferenceService"
METHODS = {
    name: (f"{name}Request", f"{name}Response")
    for name in (
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
        "RepositoryIndex",
    )
}

_TENSOR = "name:1:string datatype:2:string shape:3:int64* parameters:4:InferParameter% contents:5:InferTensorContents"
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:1:bool",
    "ModelReadyRequest": "name:1:string version:2:string",
    "ModelReadyResponse": "ready:1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:1:string version:2:string extensions:3:string*",
    "ModelMetadataRequest": "name:1:string version:2:string",
    "ModelMetadataResponse": "name:1:string versions:2:string* platform:3:string"
    " inputs:4:ModelMetadataResponse.TensorMetadata* outputs:5:ModelMetadataResponse.TensorMetadata*",
    "ModelMetadataResponse.TensorMetadata": "name:1:string datatype:2:string shape:3:int64*",
    "ModelInferRequest": "model_name:1:string model_version:2:string id:3:string parameters:4:InferParameter%"
    " inputs:5:ModelInferRequest.InferInputTensor* outputs:6:ModelInferRequest.InferRequestedOutputTensor*"
    " raw_input_contents:7:bytes*",
    "ModelInferRequest.InferInputTensor": _TENSOR,
    "ModelInferRequest.InferRequestedOutputTensor": "name:1:string parameters:2:InferParameter%",
    "ModelInferResponse": "model_name:1:string model_version:2:string id:3:string parameters:4:InferParameter%"
    " outputs:5:ModelInferResponse.InferOutputTensor* raw_output_contents:6:bytes*",
    "ModelInferResponse.InferOutputTensor": _TENSOR,
    "InferParameter": "bool_param:1:bool| int64_param:2:int64| string_param:3:string| double_param:4:double|"
    " uint64_param:5:uint64|",
    "InferTensorContents": "bool_contents:1:bool* int_contents:2:int32* int64_contents:3:int64*"
    " uint_contents:4:uint32* uint64_contents:5:uint64* fp32_contents:6:float* fp64_contents:7:double*"
    " bytes_contents:8:bytes*",
    "RepositoryIndexRequest": "repository_name:1:string ready:2:bool",
    "RepositoryIndexResponse": "models:1:RepositoryIndexResponse.ModelIndex*",
    "RepositoryIndexResponse.ModelIndex": "name:1:string version:2:string state:3:string reason:4:string",
}
"""`name:number:type`, then `*` repeated, `%` a map from string, `|` of the oneof `parameter_choice`."""


class _Field(NamedTuple):
    name: str
    number: int
    kind: str
    mark: str


@cache
def message(name: str) -> Any:
    """The class of a message; MissingExtra without protobuf."""
    return _classes()[name]


CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype → the field of InferTensorContents that holds it; FP16 has none."""


@cache
def _classes() -> dict[str, Any]:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ModuleNotFoundError as error:
        raise MissingExtra("gRPC", "protobuf", "serving") from error

    file = descriptor_pb2.FileDescriptorProto(
        name="open_inference_grpc.proto", package="inference", syntax="proto3"
    )
    made: dict[str, Any] = {}
    for path, text in _MESSAGES.items():
        outer, _, inner = path.rpartition(".")
        into = made[outer].nested_type.add(name=inner) if outer else file.message_type.add(name=path)
        made[path] = into
        fields = [_field(one) for one in text.split()]
        if any(one.mark == "|" for one in fields):
            into.oneof_decl.add(name="parameter_choice")
        for one in fields:
            _add(into, path, one, descriptor_pb2)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = {path: pool.FindMessageTypeByName(f"inference.{path}") for path in _MESSAGES}
    return {path: message_factory.GetMessageClass(one) for path, one in found.items()}


def _field(text: str) -> _Field:
    name, number, kind = text.split(":")
    mark = kind[-1] if kind[-1] in "*%|" else ""
    return _Field(name, int(number), kind.removesuffix(mark) if mark else kind, mark)


def _add(into: Any, path: str, one: _Field, pb: Any) -> None:
    kinds = pb.FieldDescriptorProto
    field = into.field.add(name=one.name, number=one.number)
    field.label = kinds.LABEL_REPEATED if one.mark in {"*", "%"} else kinds.LABEL_OPTIONAL
    scalar = getattr(kinds, f"TYPE_{one.kind.upper()}", None)
    if one.mark == "%":
        entry = into.nested_type.add(name=f"{one.name.title()}Entry")
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
        entry.field.add(
            name="value",
            number=2,
            type=kinds.TYPE_MESSAGE,
            type_name=f".inference.{one.kind}",
            label=kinds.LABEL_OPTIONAL,
        )
        field.type, field.type_name = kinds.TYPE_MESSAGE, f".inference.{path}.{entry.name}"
    elif scalar is None:
        field.type, field.type_name = kinds.TYPE_MESSAGE, f".inference.{one.kind}"
    else:
        field.type = scalar
    if one.mark == "|":
        field.oneof_index = 0
