"""The few messages of Arrow Flight SQL a server needs, in protobuf's wire format, by hand.

No library gives Python this side of the protocol. A message is a mapping from field numbers to the values found
under them; the names and numbers are those of `FlightSql.proto`. Whatever bytes come, B850 is all that is raised.
"""

from collections.abc import Mapping

from boucle.errors import BoucleError

__all__ = ["Fields", "pack", "packed", "text", "texts", "unpack", "unpacked"]

_PREFIX = "type.googleapis.com/arrow.flight.protocol.sql."

Fields = dict[int, list[bytes | int]]
"""What a message holds: by field number, every value in the order it came."""


def _broken(why: str) -> BoucleError:
    return BoucleError(
        "B850", "this is no message of Flight SQL", why=why, fix="connect with a Flight SQL driver"
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise _broken("a number has no end")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return value, at


def unpacked(data: bytes) -> Fields:
    """The fields of a message."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            fields.setdefault(number, []).append(value)
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in {1, 5}:
            length = 8 if kind == 1 else 4
        else:
            raise _broken(f"a field of kind {kind}")
        if length > len(data) - at:
            raise _broken("a field is longer than its message")
        fields.setdefault(number, []).append(data[at : at + length])
        at += length
    return fields


def unpack(data: bytes) -> tuple[str, Fields]:
    """The name and the fields of a message wrapped in `google.protobuf.Any`."""
    outer = unpacked(data)
    name = text(outer, 1) or ""
    if not name.startswith(_PREFIX):
        raise _broken(f"it is a {name or 'nothing'!r}")
    body = outer.get(2, [b""])[-1]
    if isinstance(body, int):
        raise _broken("it holds a number")
    return name.removeprefix(_PREFIX), unpacked(body)


def text(fields: Fields, number: int) -> str | None:
    """A text field; None when it is absent."""
    value = fields.get(number, [None])[-1]
    if value is None:
        return None
    if isinstance(value, int):
        raise _broken("a number stands where a text should")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _broken("a text is not UTF-8") from None


def texts(fields: Fields, number: int) -> list[str]:
    """Every value of a repeated text field."""
    return [
        found for value in fields.get(number, []) if (found := text({number: [value]}, number)) is not None
    ]


def _number(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def packed(fields: Mapping[int, bytes | str]) -> bytes:
    """A message of texts and bytes."""
    body = b""
    for number, value in fields.items():
        raw = value.encode() if isinstance(value, str) else value
        body += _number(number << 3 | 2) + _number(len(raw)) + raw
    return body


def pack(name: str, fields: Mapping[int, bytes | str]) -> bytes:
    """A message wrapped in `google.protobuf.Any`."""
    outer: dict[int, bytes | str] = {1: _PREFIX + name, 2: packed(fields)}
    return packed(outer)
