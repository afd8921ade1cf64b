# ruff: noqa: S608 - names and texts are quoted by `quoted` and `text`
"""Files of lines: delimited text and JSON lines. A broken line is kept and told; the rest is read.

DuckDB reads in parallel and says at which byte a line broke; the line an editor shows is counted from the
file, because a quoted value may hold line breaks.
"""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from boucle.errors import BoucleError
from boucle.product.infer.opened import Broken, Opened, name_of, text

__all__ = ["KEPT", "encoding_of", "open_delimited", "open_json_lines", "quarantined"]

KEPT = 1000
"""Broken lines told one by one; of more, only their number."""
_SAMPLE = 1 << 20
_LONGEST = 8_000_000
_REASONS = {
    "MISSING COLUMNS": "columns are missing", "TOO MANY COLUMNS": "there are too many columns",
    "UNQUOTED VALUE": "a quote is not closed, or stands within a value",
    "INVALID ENCODING": "it is not in the encoding of the rest", "LINE SIZE OVER MAXIMUM": "it is too long",
    "INVALID STATE": "quotes stand where none may",
}  # fmt: skip


def encoding_of(path: Path) -> str:
    """`utf-8`, `utf-16` or `latin-1`, by its first megabyte."""
    with path.open("rb") as file:
        head = file.read(_SAMPLE)
    if head[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=False)
    except UnicodeDecodeError:
        # One odd byte in a text that is UTF-8 otherwise is a broken line, not another encoding.
        valid = head.decode("utf-8", "replace")
        odd, told = valid.count("\ufffd"), sum(letter > "\x7f" for letter in valid)
        return "utf-8" if told - odd > odd else "latin-1"
    return "utf-8"


def open_delimited(
    connection: Any, path: Path, delimiter: str | None = None, encoding: str | None = None
) -> Opened:
    """The file as a table of text; delimiter, quotes and header are found out where not given."""
    if path.stat().st_size == 0:
        raise BoucleError("B249", f"{path} is empty", fix="give a file with rows")
    encoding = encoding or encoding_of(path)
    found = _sniffed(connection, path, delimiter, encoding)
    names = [str(column["name"]) for column in found["Columns"]]
    notes = [f"{encoding}, delimiter {found['Delimiter']!r}, {'with' if found['HasHeader'] else 'no'} header"]
    if not found["HasHeader"]:
        notes.append("there is no header: the columns have no names of their own")
    if found["SkipRows"]:
        notes.append(f"{found['SkipRows']} lines above the header were passed over")
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names)
    settings = {
        "delim": text(found["Delimiter"]), "quote": text(_given(found["Quote"])),
            "escape": text(_given(found["Escape"])),
        "skip": int(found["SkipRows"]), "header": bool(found["HasHeader"]), "encoding": text(encoding),
        "columns": f"{{{columns}}}", "auto_detect": False, "store_rejects": True, "rejects_limit": 0,
        "max_line_size": _LONGEST, "nullstr": "''",
    }  # fmt: skip
    told = ", ".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else value}"
        for name, value in settings.items()
    )
    connection.execute(f"create temp view data as select * from read_csv({text(str(path))}, {told})")
    opened = Opened(connection, name_of(path), untyped=True, notes=notes, address=str(path))
    opened.after = lambda: _rejected(opened, path, encoding)
    return opened


def _given(sign: str) -> str:
    return "" if sign == "(empty)" else sign


def _sniffed(connection: Any, path: Path, delimiter: str | None, encoding: str) -> dict[str, Any]:
    given = f", delim = {text(delimiter)}" if delimiter else ""
    asked = f"select * from sniff_csv({text(str(path))}, encoding = {text(encoding)}{given}, ignore_errors = true)"
    try:
        cursor = connection.execute(asked)
        return dict(zip([column[0] for column in cursor.description], cursor.fetchall()[0], strict=True))
    except duckdb.Error as error:
        why = str(error).partition("\n")[0][:200]
        raise BoucleError(
            "B249",
            f"{path} cannot be read as delimited text",
            why=why,
            fix="say --delimiter or --encoding, or look at its first lines",
        ) from None


def _rejected(opened: Opened, path: Path, encoding: str) -> None:
    """The broken lines, as DuckDB kept them while all rows were read."""
    rows = opened.connection.execute(
        "select line_byte_position, any_value(error_type), any_value(csv_line), any_value(line) from reject_errors"
        f" where error_type <> 'CAST' group by line_byte_position order by line_byte_position limit {KEPT}"
    ).fetchall()
    (opened.broken_lines,) = opened.connection.execute(
        "select count(distinct line_byte_position) from reject_errors where error_type <> 'CAST'"
    ).fetchall()[0]
    if not rows:
        return
    if encoding == "utf-16":
        # Positions are those of the text in UTF-8, not those of the file.
        told = [(line, (content or "").encode("utf-16-le")) for _, _, content, line in rows]
    else:
        told = list(_lines_at(path, [int(row[0]) - 1 for row in rows]))
    opened.broken = [
        Broken(line, _REASONS.get(str(row[1]), str(row[1]).lower()), content)
        for row, (line, content) in zip(rows, told, strict=True)
    ]
    if any(row[1] == "INVALID ENCODING" for row in rows):
        opened.notes.append("some lines are not UTF-8: --encoding latin-1 reads any byte")


def _lines_at(path: Path, starts: list[int]) -> Iterator[tuple[int, bytes]]:
    """The number and the bytes of the lines that begin at these places, in order."""
    line, at = 1, 0
    with path.open("rb") as file:
        for start in starts:
            while at < start:
                chunk = file.read(min(1 << 20, start - at))
                if not chunk:
                    break
                line += chunk.count(b"\n")
                at += len(chunk)
            content = file.readline(_LONGEST)
            yield line, content.rstrip(b"\r\n")
            line += content.endswith(b"\n")
            at += len(content)


def open_json_lines(connection: Any, path: Path) -> Opened:
    """One JSON object a line; what is no JSON is kept as a broken line."""
    if path.stat().st_size == 0:
        raise BoucleError("B249", f"{path} is empty", fix="give a file with rows")
    lines = (
        f"read_csv({text(str(path))}, auto_detect = false, header = false, columns = {{'line': 'VARCHAR'}},"
        f" delim = '\x01', quote = '', escape = '', max_line_size = {_LONGEST}, store_rejects = true,"
        " rejects_limit = 0)"
    )
    try:
        (structure,) = connection.execute(
            f"select json_group_structure(case when json_valid(line) then line::json end) from {lines}"
        ).fetchall()[0]
        bad = (
            "line is not null and trim(line) <> '' and (not json_valid(line) or json_type(line) <> 'OBJECT')"
        )
        numbered = f"(select row_number() over () as n, line from {lines})"
        broken = connection.execute(f"select n, line from {numbered} where {bad} limit {KEPT}").fetchall()
        (count,) = connection.execute(f"select count(*) from {lines} where {bad}").fetchall()[0]
    except duckdb.Error as error:
        why = str(error).partition("\n")[0][:200]
        raise BoucleError(
            "B249", f"{path} cannot be read as JSON lines", why=why, fix="write one object a line"
        ) from None
    if not str(structure).startswith("{"):
        raise BoucleError("B249", f"{path} holds no JSON objects", fix="write one object a line")
    good = "case when json_valid(line) and json_type(line) = 'OBJECT' then line end"
    connection.execute(
        f"create temp view data as select unnest(from_json(good, {text(structure)})) from"
        f" (select {good} as good from {lines}) where good is not null"
    )
    opened = Opened(
        connection,
        name_of(path),
        untyped=False,
        loose=True,
        notes=["JSON lines"],
        broken_lines=count,
        address=str(path),
    )
    opened.broken = [Broken(int(n), "it is no JSON object", str(line).encode()) for n, line in broken]
    return opened


def quarantined(opened: Opened, file: Path) -> Path:
    """The broken lines in a file beside the data: number and reason, then the line itself, byte for byte."""
    with file.open("wb") as out:
        for one in opened.broken:
            out.write(f"# line {one.line}: {one.why}\n".encode() + one.content + b"\n")
    return file
