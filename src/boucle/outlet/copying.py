"""What COPY … TO STDOUT sends: text, CSV or binary, as PostgreSQL's COPY writes them."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from boucle.outlet import wire
from boucle.outlet.answering import Portal
from boucle.outlet.columns import framed
from boucle.outlet.refused import Refused

__all__ = ["CopyFormat", "copied", "copy_format"]

_BINARY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_BINARY_END = b"\xff\xff"


class CopyFormat(Struct, frozen=True):
    """How rows are written."""

    format: str
    delimiter: str
    null: str
    header: bool
    quote: str = '"'


def copy_format(options: Mapping[str, str]) -> CopyFormat:
    """The options of a COPY; 0A000 for those that are not known here."""
    kind = options.get("format", "text").lower()
    unknown = sorted(set(options) - {"format", "delimiter", "null", "header", "quote", "encoding"})
    if kind not in {"text", "csv", "binary"} or unknown:
        raise Refused(
            "B835",
            f"COPY cannot write {', '.join(unknown) or kind!r}",
            sqlstate="0A000",
            fix="WITH (FORMAT text | csv | binary, DELIMITER, NULL, HEADER, QUOTE)",
        )
    csv = kind == "csv"
    delimiter = options.get("delimiter", "," if csv else "\t")
    quote = options.get("quote", '"')
    if len(delimiter) != 1 or len(quote) != 1 or delimiter in "\r\n":
        raise Refused("B835", "DELIMITER and QUOTE are one character each", sqlstate="22023")
    header = options.get("header", "false").lower() in {"true", "on", "1", "match"}
    return CopyFormat(kind, delimiter, options.get("null", "" if csv else "\\N"), header, quote)


def copied(source: Portal, form: CopyFormat) -> Iterator[tuple[int, bytes | memoryview]]:
    """The messages of a COPY of an open portal: how many rows each has, and its bytes."""
    binary = form.format == "binary"
    yield 0, wire.copy_out(len(source.columns), binary)
    if not binary:
        if form.header:
            yield 0, _header([column.name for column in source.columns], form)
        for batch in source.batches():
            yield batch.num_rows, _lines(batch, form)
        return
    # PostgreSQL sends the head with the first row, and clients look for it there.
    first = list(source.rows(1, b"d"))
    row = bytes(first[0][1][5:]) if first else _BINARY_END
    yield len(first), wire.message("d", _BINARY_HEAD + row)
    yield from source.rows(0, b"d")
    if first:
        yield 0, wire.message("d", _BINARY_END)


def _lines(batch: pa.RecordBatch, form: CopyFormat) -> memoryview:
    """The rows of a batch of text columns as CopyData, a line each: clients take a message for a row."""
    cells = [_csv(column, form) if form.format == "csv" else _text(column, form) for column in batch.columns]
    whole = pc.binary_join_element_wise(*cells, form.delimiter) if len(cells) > 1 else cells[0]
    return framed(pc.binary_join_element_wise(whole, "\n", ""), b"d")


def _escapes(form: CopyFormat) -> Iterator[tuple[str, str]]:
    yield from (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
    if form.delimiter not in "\t\\":
        yield form.delimiter, f"\\{form.delimiter}"


def _text(column: pa.Array, form: CopyFormat) -> pa.Array:
    told = column.cast(pa.string())
    for wanted, instead in _escapes(form):
        told = pc.replace_substring(told, wanted, instead)
    return pc.fill_null(told, form.null)


def _csv(column: pa.Array, form: CopyFormat) -> pa.Array:
    told = column.cast(pa.string())
    quote = form.quote
    needs = pc.or_(pc.equal(told, form.null), pc.equal(told, "\\."))
    for sign in (form.delimiter, quote, "\n", "\r"):
        needs = pc.or_(needs, pc.match_substring(told, sign))
    quoted = pc.replace_substring(told, quote, quote * 2)
    quoted = pc.binary_join_element_wise(quote, quoted, quote, "")
    return pc.fill_null(pc.if_else(needs, quoted, told), form.null)


def _header(names: list[str], form: CopyFormat) -> memoryview:
    """The line of column names."""
    row = pa.record_batch(
        [pa.array([name]) for name in names], names=[str(index) for index in range(len(names))]
    )
    return _lines(row, form)
