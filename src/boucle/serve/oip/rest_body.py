"""Bodies of REST requests and answers: JSON, and the binary tensor data that may follow it.

The layout of the bytes is Triton's binary tensor data extension: the header `Inference-Header-Content-Length` gives
the length of the JSON, `binary_data_size` of a tensor its share of what follows.
"""

from array import array
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray

from boucle.serve.oip.refusal import Malformed
from boucle.serve.oip.request import Answer, InferRequest, WantedOutput
from boucle.serve.oip.tensor import DATATYPES, Tensor, check_shape, from_raw, to_raw

__all__ = ["decode_request", "encode_answer"]

_MOST_INPUTS = 10_000


class _Input(Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Raw = Raw()


class _Output(Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Body(Struct):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Output] | None = None


_BODY = msgspec.json.Decoder(_Body)
_DEEPEST = 4


def _decoders(element: Any) -> list[msgspec.json.Decoder[Any]]:
    """Of lists of it, of lists of lists, and so on."""
    made = []
    for _ in range(_DEEPEST):
        element = list[element]
        made.append(msgspec.json.Decoder(element))
    return made


_REAL, _WHOLE, _FLAG, _TEXT = (_decoders(one) for one in (float | None, int, bool, str))
_BY_KIND = {"f": _REAL, "i": _WHOLE, "u": _WHOLE, "b": _FLAG, "O": _TEXT}


def decode_request(body: bytes, json_size: int | None = None) -> InferRequest:
    """What a body asks; Malformed when it cannot be understood. `json_size`: how much of it is JSON (None: all).

    `null` in a tensor of floats is a missing value, as NaN is in binary data.
    """
    if json_size is not None and not 0 <= json_size <= len(body):
        why = f"{json_size} bytes of JSON, and the body has {len(body)}"
        raise Malformed("Inference-Header-Content-Length does not fit", why=why)
    head = body if json_size is None else memoryview(body)[:json_size]
    try:
        told = _BODY.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("the body is no inference request", why=str(error)) from None
    if len(told.inputs) > _MOST_INPUTS:
        raise Malformed(f"{len(told.inputs)} inputs are too many")
    rest = memoryview(body)[len(head) :]
    inputs = []
    for one in told.inputs:
        size = (one.parameters or {}).get("binary_data_size")
        if size is None:
            inputs.append(_from_json(one))
            continue
        if type(size) is not int or not 0 <= size <= len(rest):
            raise Malformed(f"input {one.name!r}: binary_data_size does not fit the body")
        if bytes(one.data):
            raise Malformed(f"input {one.name!r} has data both as JSON and as bytes")
        inputs.append(from_raw(one.name, one.datatype, one.shape, rest[:size]))
        rest = rest[size:]
    if len(rest):
        raise Malformed(f"{len(rest)} bytes after the last tensor belong to none")
    parameters = told.parameters or {}
    return InferRequest(
        tuple(inputs),
        told.id or "",
        tuple(
            WantedOutput(one.name, _flag((one.parameters or {}).get("binary_data")))
            for one in told.outputs or ()
        ),
        bool(_flag(parameters.get("binary_data_output"))),
        timeout_of(parameters.get("timeout")),
    )


def timeout_of(value: Any) -> float | None:
    """Seconds from the parameter `timeout`, microseconds; 0 and None are no wish."""
    if value is None or value == 0:
        return None
    if type(value) is not int or not 0 < value < 10**12:
        raise Malformed("the parameter timeout is a number of microseconds")
    return value / 1e6


def _flag(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise Malformed("binary_data and binary_data_output are true or false")


def _from_json(one: _Input) -> Tensor:
    count = check_shape(one.name, one.datatype, one.shape)
    kind = DATATYPES[one.datatype]
    values = _values(one, kind)
    if values.ndim > 1 and list(values.shape) != one.shape:
        raise Malformed(f"input {one.name!r}: its data are nested otherwise than its shape says")
    if values.size != count:
        why = f"{values.size} values do not fill the shape"
        raise Malformed(f"input {one.name!r} does not fit its shape", why=why)
    return Tensor(one.name, one.datatype, tuple(one.shape), values.reshape(-1))


def _values(one: _Input, kind: np.dtype[Any]) -> NDArray[Any]:
    raw = memoryview(one.data)
    if not raw:
        raise Malformed(f"input {one.name!r} has no data")
    start = bytes(raw[:64])
    depth = 0
    for byte in start:
        if byte == 0x5B:
            depth += 1
        elif byte not in b" \t\r\n":
            break
    try:
        given = _BY_KIND[kind.kind][max(0, min(depth, _DEEPEST) - 1)].decode(raw)
        if kind.kind == "O":
            return _encoded(given, depth)
        if kind.kind == "f" and depth == 1 and None not in given:
            return np.frombuffer(
                array("f", given), np.float32
            )  # as models read them; beyond them is infinite
        values = np.array(given, np.float64 if kind.kind == "f" else kind)
    except (msgspec.DecodeError, ValueError, OverflowError, TypeError) as error:
        raise Malformed(f"input {one.name!r} is not of {one.datatype}", why=str(error)) from None
    return values


def _encoded(given: Any, depth: int) -> NDArray[Any]:
    for _ in range(depth - 1):
        given = [one for inner in given for one in inner]
    values = np.empty(len(given), object)
    values[:] = [one.encode() for one in given]
    return values


class _Given(Struct, omit_defaults=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}
    data: Any = None


class _Reply(Struct, omit_defaults=True):
    model_name: str
    model_version: str = ""
    id: str = ""
    outputs: list[_Given] = []


_encode = msgspec.json.Encoder().encode


def encode_answer(answer: Answer, request: InferRequest) -> tuple[bytes, int | None]:
    """The body, and how much of it is JSON when bytes follow (None: all of it). NaN is `null` in JSON."""
    wanted = {one.name: one.binary for one in request.outputs}
    told: list[_Given] = []
    parts = []
    for tensor in answer.outputs:
        binary = wanted.get(tensor.name)
        if request.binary if binary is None else binary:
            raw = to_raw(tensor)
            parts.append(raw)
            size = {"binary_data_size": len(raw)}
            told.append(_Given(tensor.name, tensor.datatype, tensor.shape, size))
        else:
            data: Any = tensor.values.tolist()
            if tensor.datatype == "BYTES":
                data = [one.decode(errors="replace") for one in data]
            told.append(_Given(tensor.name, tensor.datatype, tensor.shape, data=data))
    body = _encode(_Reply(answer.model, answer.version, answer.id, told))
    return (b"".join([body, *parts]), len(body)) if parts else (body, None)
