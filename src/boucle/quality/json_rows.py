"""Rows out of JSON payloads, each decoded on its own, so that a bad one does not drop the others."""

import datetime as dt
import json
import math
import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pyarrow as pa

from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.product.contract import FieldContract, StreamContract
from boucle.quality.reject import Unreadable

__all__ = ["BadRow", "JsonRows", "instant"]

BadRow = tuple[str, str, bytes]
"""Reason, detail, and the row as it came."""

_INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LIMIT = 1 << 63


def instant(text: str) -> Nanos:
    """RFC 3339 text as nanoseconds since the epoch; ValueError says what is wrong with it.

    >>> instant("1970-01-01T01:00:01.5+01:00")
    1500000000
    """
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no RFC 3339 time with a zone")
    day, clock, fraction, zone = match.groups()
    moment = dt.datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}") - _EPOCH
    nanos = (moment.days * 86400 + moment.seconds) * SECOND + int((fraction or "0").ljust(9, "0"))
    if not -_LIMIT <= nanos < _LIMIT:
        raise ValueError(f"{text[:40]!r} is outside the years 1678 to 2261")
    return nanos


class JsonRows:
    """Decodes one JSON payload at a time: one object, or an array of objects."""

    def __init__(self, contract: StreamContract, max_rows: int) -> None:
        self._contract = contract
        self._schema = contract.schema()
        self._max_rows = max_rows
        self._names = [f"f{number}" for number in range(len(contract.fields))]
        self._required = {field.name for field in contract.fields if field.required}
        self._row = _row_type(contract, self._names)
        self._decoder = msgspec.json.Decoder(self._row)
        self._times = [
            (name, field)
            for name, field in zip(self._names, contract.fields, strict=True)
            if pa.types.is_timestamp(field.type)
        ]

    def read(self, payload: bytes) -> tuple[list[Any], list[BadRow]]:
        """Good rows, ready for `batch`, and the bad ones; Unreadable when nothing can be read."""
        try:
            if payload.lstrip()[:1] == b"[":
                raws = msgspec.json.decode(payload, type=list[msgspec.Raw])
            else:
                raws = [msgspec.json.decode(payload, type=msgspec.Raw)]
        except (ValueError, RecursionError) as error:
            # Python's own encoder writes NaN and Infinity, which are no JSON: look again, row by row.
            if b"NaN" not in payload and b"Infinity" not in payload:
                raise Unreadable("malformed", str(error) or type(error).__name__) from None
        else:
            return self._each([bytes(raw) for raw in raws], self._decoder.decode)
        try:
            value = json.loads(payload.decode())
        except (ValueError, RecursionError) as error:
            raise Unreadable("malformed", str(error)) from None
        rows = value if isinstance(value, list) else [value]
        return self._each([json.dumps(row).encode() for row in rows], self._convert)

    def _each(self, payloads: list[bytes], decode: Callable[[bytes], Any]) -> tuple[list[Any], list[BadRow]]:
        if not payloads:
            raise Unreadable("empty", "an array of no rows")
        if len(payloads) > self._max_rows:
            raise Unreadable("too_large", f"{len(payloads)} rows, at most {self._max_rows} are taken")
        good: list[Any] = []
        bad: list[BadRow] = []
        for payload in payloads:
            try:
                row = decode(payload)
                self._set_times(row)
            except msgspec.ValidationError as error:
                bad.append((*self._reason(str(error)), payload))
            except Unreadable as error:
                bad.append((error.reason, error.what, payload))
            except (ValueError, RecursionError) as error:
                bad.append(("malformed", str(error), payload))
            else:
                good.append(row)
        return good, bad

    def _convert(self, payload: bytes) -> Any:
        value = json.loads(payload)
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise Unreadable("malformed", f"text that is no Unicode: {error.reason}") from None
        row = msgspec.convert(value, self._row)
        for name, field in zip(self._names, self._contract.fields, strict=True):
            if not _finite(getattr(row, name)):
                raise Unreadable("not_finite", f"{field.name} holds NaN or infinity")
        return row

    def _set_times(self, row: Any) -> None:
        for name, field in self._times:
            told = getattr(row, name)
            if isinstance(told, str):
                try:
                    setattr(row, name, instant(told))
                except ValueError as error:
                    raise Unreadable("wrong_type", f"{field.name}: {error}") from None

    def _reason(self, said: str) -> tuple[str, str]:
        if said.startswith("Object missing required field"):
            return "missing", said
        if said.startswith("Object contains unknown field"):
            return "unknown_column", said
        if said.startswith("Number out of range"):
            return "not_finite", said
        if "got `null`" in said and said.rpartition("`$.")[2].rstrip("`") in self._required:
            return "missing", said
        if said.startswith(("Expected `int` <=", "Expected `int` >=")):
            return "out_of_range", said
        return "wrong_type", said

    def batch(self, rows: list[Any]) -> pa.RecordBatch:
        """Decoded rows as a RecordBatch with exactly the contract's schema."""
        columns = [
            pa.array([getattr(row, name) for row in rows], field.type)
            for name, field in zip(self._names, self._contract.fields, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return all(map(_finite, value)) if isinstance(value, list) else True


def _row_type(contract: StreamContract, names: list[str]) -> Any:
    # Columns may be called anything, Python attributes may not: f0, f1, … carry them.
    fields: list[Any] = []
    for name, field in zip(names, contract.fields, strict=True):
        kind = _python_type(field, field.type)
        fields.append((name, kind) if field.required else (name, kind | None, None))
    rename = dict(zip(names, (field.name for field in contract.fields), strict=True))
    return msgspec.defstruct("Row", fields, rename=rename, kw_only=True, forbid_unknown_fields=True, gc=False)


def _python_type(field: FieldContract, kind: Any) -> Any:
    types = pa.types
    if types.is_string(kind):
        return str
    if types.is_boolean(kind):
        return bool
    if types.is_floating(kind):
        return float
    if types.is_list(kind):
        return list[_python_type(field, kind.value_type)]  # type: ignore[misc]
    if types.is_signed_integer(kind):
        top = 1 << (kind.bit_width - 1)
        return Annotated[int, msgspec.Meta(ge=-top, le=top - 1)]
    if types.is_timestamp(kind) and kind.unit == "ns" and kind.tz == "UTC":
        return Annotated[int, msgspec.Meta(ge=-_LIMIT, le=_LIMIT - 1)] | str
    raise BoucleError(
        "B420",
        f"column {field.name!r} is {kind}, which JSON payloads cannot carry here",
        fix="send Arrow payloads",
    )
