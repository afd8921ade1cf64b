"""Tensors as the Open Inference Protocol writes them: a name, a datatype, a shape, and values in row-major order.

Raw bytes are little-endian without padding; a BYTES element is its length in four bytes and then itself.
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct
from numpy.typing import NDArray

from boucle.serve.oip.refusal import Malformed

__all__ = ["DATATYPES", "Tensor", "check_shape", "datatype_of", "from_raw", "to_raw"]

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_MOST_DIMENSIONS = 8
_ARROW = {
    pa.bool_(): "BOOL",
    pa.uint8(): "UINT8",
    pa.uint16(): "UINT16",
    pa.uint32(): "UINT32",
    pa.uint64(): "UINT64",
    pa.int8(): "INT8",
    pa.int16(): "INT16",
    pa.int32(): "INT32",
    pa.int64(): "INT64",
    pa.float16(): "FP16",
    pa.float32(): "FP32",
    pa.float64(): "FP64",
}


class Tensor(Struct, frozen=True):
    """Values with a name; `values` is flat, `shape` says how they lie. BYTES are an array of `bytes`."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: NDArray[Any]


def datatype_of(kind: pa.DataType) -> str:
    """The protocol's word for an Arrow type; times are INT64, everything else that is no number BYTES."""
    return _ARROW.get(kind, "INT64" if pa.types.is_temporal(kind) else "BYTES")


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """How many elements a tensor has; Malformed for a datatype nobody knows or an impossible shape."""
    if datatype not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise Malformed(f"input {name!r} has the unknown datatype {datatype!r}", fix=f"one of {known}")
    if len(shape) > _MOST_DIMENSIONS or any(one < 0 for one in shape):
        raise Malformed(f"input {name!r} has an impossible shape", fix="a few dimensions, none below 0")
    return math.prod(shape)


def from_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> Tensor:
    """A tensor from its bytes; Malformed when there are more or fewer than its shape needs."""
    count = check_shape(name, datatype, shape)
    kind = DATATYPES[datatype]
    if datatype == "BYTES":
        return Tensor(name, datatype, tuple(shape), _texts(name, count, raw))
    if len(raw) != count * kind.itemsize:
        raise Malformed(
            f"input {name!r} has {len(raw)} bytes",
            why=f"its shape {_short(shape)} of {datatype} needs {_short([count * kind.itemsize])[1:-1]}",
        )
    values = np.frombuffer(raw, kind)
    if datatype == "BOOL" and values.view(np.uint8).max(initial=0) > 1:
        raise Malformed(f"input {name!r} is BOOL and holds a byte that is neither 0 nor 1")
    return Tensor(name, datatype, tuple(shape), values)


def to_raw(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(one)) + one for one in tensor.values)
    return tensor.values.astype(DATATYPES[tensor.datatype], copy=False).tobytes()


def _texts(name: str, count: int, raw: bytes | memoryview) -> NDArray[Any]:
    if count * 4 > len(raw):  # before anything of that size is made
        raise Malformed(f"input {name!r} has fewer bytes than {_short([count])[1:-1]} lengths need")
    found = np.empty(count, object)
    at = 0
    for index in range(count):
        if at + 4 > len(raw):
            raise Malformed(f"input {name!r} ends within element {index}")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise Malformed(f"input {name!r} ends within element {index}")
        found[index] = bytes(raw[at : at + size])
        at += size
    if at != len(raw):
        raise Malformed(f"input {name!r} has {len(raw) - at} bytes too many")
    return found


def _short(numbers: Sequence[int]) -> str:
    """A shape for a message; numbers of a thousand digits are cut."""
    return "[" + ", ".join(str(one) if one < 10**20 else "very many" for one in numbers) + "]"
