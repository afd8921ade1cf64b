"""PostgreSQL's frontend/backend protocol, version 3.0: bytes to values and back. No sockets, no state.

After "Message Formats" of the PostgreSQL documentation. Every length is checked before it is believed: whatever
bytes come, a message is decoded or B830 is raised, and nothing larger than the message itself is kept.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from msgspec import Struct

from boucle.outlet.refused import Refused, broken_protocol

__all__ = [
    "Bind",
    "Cancel",
    "Close",
    "Column",
    "Describe",
    "Encrypt",
    "Execute",
    "Message",
    "Parse",
    "Password",
    "Plain",
    "Query",
    "Startup",
    "decode",
    "decode_startup",
]

_CANCEL, _SSL, _GSS = 80877102, 80877103, 80877104


class Startup(Struct, frozen=True):
    """The first message: who comes to which database, with what settings."""

    version: int
    parameters: dict[str, str]


class Encrypt(Struct, frozen=True):
    """May we speak encrypted? `by` is `tls` or `gss`."""

    by: str


class Cancel(Struct, frozen=True):
    """Stop what the session with this process id and secret is doing."""

    process: int
    secret: int


class Query(Struct, frozen=True):
    """A text of one or several statements."""

    text: str


class Parse(Struct, frozen=True):
    """Keep a statement under a name; `kinds` are type OIDs of its first parameters (0: infer)."""

    name: str
    text: str
    kinds: tuple[int, ...]


class Bind(Struct, frozen=True):
    """Make a portal of a statement: parameter values and result formats (0 text, 1 binary)."""

    portal: str
    statement: str
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    results: tuple[int, ...]


class Describe(Struct, frozen=True):
    """What a statement (`S`) or portal (`P`) gives."""

    kind: str
    name: str


class Execute(Struct, frozen=True):
    """Rows of a portal; 0 asks for all."""

    portal: str
    limit: int


class Close(Struct, frozen=True):
    """Forget a statement (`S`) or portal (`P`)."""

    kind: str
    name: str


class Password(Struct, frozen=True):
    """An answer to a request for authentication."""

    data: bytes


class Plain(Struct, frozen=True):
    """A message that is all said by its kind: `S`ync, `H` flush, `X` terminate, and copy data nobody asked for."""

    kind: str


Message: TypeAlias = Query | Parse | Bind | Describe | Execute | Close | Password | Plain


class _Bytes:
    """A message's body, read from the front; running out of it is B830."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise broken_protocol("a message ends before its content does")
        self.at += count
        return self.data[self.at - count : self.at]

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise broken_protocol("a text in a message has no end")
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise Refused(
                "B830", "a text is not UTF-8", sqlstate="22021", fix="set client_encoding to UTF8"
            ) from None

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def whole(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def shorts(self) -> tuple[int, ...]:
        count = self.short()
        return struct.unpack(f">{count}H", self.take(2 * count))

    def done(self) -> None:
        if self.at != len(self.data):
            raise broken_protocol("a message is longer than its content")


def decode_startup(data: bytes) -> Startup | Encrypt | Cancel:
    """The body of the first message of a connection."""
    body = _Bytes(data)
    version = body.whole()
    if version in {_SSL, _GSS}:
        body.done()
        return Encrypt("tls" if version == _SSL else "gss")
    if version == _CANCEL:
        process, secret = body.whole(), body.whole()
        body.done()
        return Cancel(process, secret)
    if version >> 16 != 3:
        raise broken_protocol(f"protocol {version >> 16}.{version & 0xFFFF} is not spoken here, 3.0 is")
    parameters: dict[str, str] = {}
    while name := body.text():
        parameters[name] = body.text()
    body.done()
    return Startup(version & 0xFFFF, parameters)


def decode(kind: str, data: bytes) -> Message:
    """The body of any later message, by its kind."""
    body = _Bytes(data)
    message = _decoded(kind, body)
    body.done()
    return message


def _decoded(kind: str, body: _Bytes) -> Message:
    if kind == "Q":
        return Query(body.text())
    if kind == "P":
        name, text, count = body.text(), body.text(), body.short()
        return Parse(name, text, struct.unpack(f">{count}I", body.take(4 * count)))
    if kind == "B":
        portal, statement, formats, count = body.text(), body.text(), body.shorts(), body.short()
        values = tuple(_value(body) for _ in range(count))
        return Bind(portal, statement, formats, values, body.shorts())
    if kind in {"D", "C"}:
        what, name = body.take(1).decode("latin-1"), body.text()
        if what not in {"S", "P"}:
            raise broken_protocol(f"there is nothing of kind {what!r} to describe or close")
        return Describe(what, name) if kind == "D" else Close(what, name)
    if kind == "E":
        return Execute(body.text(), body.whole())
    if kind == "p":
        return Password(body.take(len(body.data)))
    if kind in {"S", "H", "X", "c"}:
        return Plain(kind)
    if kind in {"d", "f", "F"}:
        body.take(len(body.data))
        return Plain(kind)
    raise broken_protocol(f"unknown message kind {kind!r}")


def _value(body: _Bytes) -> bytes | None:
    length = body.whole()
    if length == -1:
        return None
    return body.take(length)


class Column(Struct, frozen=True):
    """A column of an answer as the protocol names it; `table` and `number` are 0 for an expression."""

    name: str
    oid: int
    size: int
    modifier: int = -1
    format: int = 0


def message(kind: str, body: bytes = b"") -> bytes:
    """A backend message."""
    return struct.pack(">cI", kind.encode(), len(body) + 4) + body


def text(value: str) -> bytes:
    """A text as messages carry it. One that holds a zero byte is cut there: the protocol cannot say it."""
    return value.encode().partition(b"\0")[0] + b"\0"


def authentication(code: int, data: bytes = b"") -> bytes:
    """`R`: 0 done, 10 SASL mechanisms, 11 SASL goes on, 12 SASL ends."""
    return message("R", struct.pack(">I", code) + data)


def parameter_status(name: str, value: str) -> bytes:
    """`S`: a setting clients want to know."""
    return message("S", text(name) + text(value))


def key_data(process: int, secret: int) -> bytes:
    """`K`: what a Cancel must bring."""
    return message("K", struct.pack(">ii", process, secret))


def ready(status: str) -> bytes:
    """`Z`: `I` idle, `T` in a transaction, `E` in one that failed."""
    return message("Z", status.encode())


def complete(tag: str) -> bytes:
    """`C`: a statement ended well."""
    return message("C", text(tag))


def row_description(columns: Sequence[Column]) -> bytes:
    """`T`: the columns of the rows that follow."""
    parts = [struct.pack(">H", len(columns))]
    parts += [
        text(one.name) + struct.pack(">IhIhih", 0, 0, one.oid, one.size, one.modifier, one.format)
        for one in columns
    ]
    return message("T", b"".join(parts))


def parameter_description(kinds: Iterable[int]) -> bytes:
    """`t`: the types of a statement's parameters."""
    known = tuple(kinds)
    return message("t", struct.pack(f">H{len(known)}I", len(known), *known))


def copy_out(columns: int, binary: bool) -> bytes:
    """`H`: rows follow as COPY writes them."""
    return message("H", struct.pack(f">bH{columns}h", binary, columns, *[int(binary)] * columns))


def failed(error: Refused, severity: str = "ERROR") -> bytes:
    """`E`: severity, SQLSTATE, what and why, the fix as hint, the place."""
    said = f"{error.code} {error.what}" + (f": {error.why}" if error.why else "")
    fields = {"S": severity, "V": severity, "C": error.sqlstate, "M": said, "H": error.fix}
    if error.position:
        fields["P"] = str(error.position)
    return message(
        "E", b"".join(key.encode() + text(value) for key, value in fields.items() if value) + b"\0"
    )


def notice(said: str, sqlstate: str = "01000") -> bytes:
    """`N`: a warning."""
    fields = {"S": "WARNING", "V": "WARNING", "C": sqlstate, "M": said}
    return message("N", b"".join(key.encode() + text(value) for key, value in fields.items()) + b"\0")
