"""Parameter values as clients send them, as values DuckDB casts to what the statement wants.

Almost everything becomes text in the spelling DuckDB reads: the statement holds `CAST($1 AS …)`, so that one place
knows how a type is read. Bytes and lists have no such spelling and stay values.
"""

import datetime as dt
import decimal
import re
import struct
import uuid
from decimal import Decimal
from typing import Any

from boucle.outlet.pgtype import TYPES
from boucle.outlet.refused import Refused

__all__ = ["parameter"]

_EPOCH = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - PostgreSQL counts from here, in whatever zone
_NUMBERS = {20: ">q", 21: ">h", 23: ">i", 26: ">I", 700: ">f", 701: ">d"}
_ELEMENT = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^,{}]*?))\s*([,}])', re.DOTALL)


def parameter(data: bytes | None, oid: int, binary: bool) -> Any:
    """One value of type `oid`; None for null. Raises `Refused` (B837) for bytes that are no such value."""
    if data is None:
        return None
    try:
        return _binary(data, oid) if binary else _text(data.decode(), oid)
    except (ValueError, struct.error, OverflowError, IndexError, ArithmeticError) as error:
        name = TYPES[oid].name if oid in TYPES else str(oid)
        raise Refused(
            "B837",
            f"a parameter is no {name}",
            sqlstate="22P03" if binary else "22P02",
            why=str(error),
            fix="send it as the statement's description says",
        ) from None


def _text(said: str, oid: int) -> Any:
    if oid == 17:
        if said.startswith("\\x"):
            return bytes.fromhex(said[2:])
        return said.encode()
    if oid == 16:
        return said.strip().lower() in {"t", "true", "on", "yes", "y", "1"}
    if oid in TYPES and TYPES[oid].element:
        return _list(said.strip(), TYPES[oid].element)
    return said


def _list(said: str, element: int) -> list[Any]:
    if not said.startswith("{"):
        raise ValueError(f"an array begins with {{, not {said[:1]!r}")
    if said == "{}":
        return []
    found: list[Any] = []
    at = 1
    while at < len(said):
        match = _ELEMENT.match(said, at)
        if match is None:
            raise ValueError("an array of one dimension was expected")
        quoted, bare, end = match.groups()
        if quoted is not None:
            found.append(_text(re.sub(r"\\(.)", r"\1", quoted), element))
        else:
            found.append(None if bare.upper() == "NULL" else _text(bare, element))
        at = match.end()
        if end == "}":
            break
    return found


def _binary(data: bytes, oid: int) -> Any:  # noqa: C901 - one branch a type
    if oid in _NUMBERS:
        return str(struct.unpack(_NUMBERS[oid], data)[0])
    if oid == 16:
        return struct.unpack(">?", data)[0]
    if oid == 17:
        return data
    if oid == 1082:
        return str(_EPOCH.date() + dt.timedelta(days=struct.unpack(">i", data)[0]))
    if oid in {1114, 1184}:
        moment = _EPOCH + dt.timedelta(microseconds=struct.unpack(">q", data)[0])
        return f"{moment.isoformat(sep=' ')}{'+00' if oid == 1184 else ''}"
    if oid == 1083:
        return str((_EPOCH + dt.timedelta(microseconds=struct.unpack(">q", data)[0])).time())
    if oid == 1186:
        micros, days, months = struct.unpack(">qii", data)
        return f"{months} months {days} days {micros} microseconds"
    if oid == 1700:
        return _numeric(data)
    if oid == 2950:
        return str(uuid.UUID(bytes=data))
    if oid == 3802:
        return data[1:].decode()
    if oid in TYPES and TYPES[oid].element:
        return _array(data)
    return data.decode()


def _numeric(data: bytes) -> str:
    count, weight, sign, scale = struct.unpack(">hhHh", data[:8])
    if sign == 0xC000:
        return "NaN"
    digits = struct.unpack(f">{count}h", data[8:])
    whole = 0
    for digit in digits:
        whole = whole * 10_000 + digit
    with decimal.localcontext(prec=4 * (count + 1) + abs(weight) * 4 + scale + 10):
        value = Decimal(whole).scaleb(4 * (weight - count + 1))
        return f"{-value if sign else value:.{scale}f}"


def _array(data: bytes) -> list[Any]:
    dimensions, _, element = struct.unpack(">iiI", data[:12])
    if dimensions == 0:
        return []
    if dimensions != 1:
        raise ValueError("an array of one dimension was expected")
    (count, _), at, found = struct.unpack(">ii", data[12:20]), 20, []
    if not 0 <= count <= len(data):
        raise ValueError("an array says it is longer than it is")
    for _ in range(count):
        (length,) = struct.unpack(">i", data[at : at + 4])
        at += 4
        if length < -1 or length > len(data) - at:
            raise ValueError("an element is longer than its array")
        found.append(None if length < 0 else _binary(data[at : at + length], element))
        at += max(0, length)
    return found
