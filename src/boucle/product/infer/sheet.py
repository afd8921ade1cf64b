"""Spreadsheets: the table on a sheet, with the title rows above it and the merged cells in it told."""

import datetime as dt
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from boucle.errors import BoucleError, MissingExtra
from boucle.product.infer.opened import Opened, name_of

__all__ = ["open_sheet"]

_LARGEST = 50_000_000
"""Bytes of a file; a larger one does not fit into memory, which merged cells need."""


def open_sheet(connection: Any, path: Path, sheet: str | None) -> Opened:
    """The table of a sheet as text: the first one, or the one named."""
    try:
        import openpyxl
    except ModuleNotFoundError:
        raise MissingExtra(str(path), "openpyxl", "excel") from None
    if path.stat().st_size > _LARGEST:
        raise BoucleError(
            "B250", f"{path} is too large for a spreadsheet", fix="save it as CSV, which may have any size"
        )
    try:
        book = openpyxl.load_workbook(path, data_only=True)
    except (zipfile.BadZipFile, KeyError, ValueError, OSError, TypeError) as error:
        raise BoucleError(
            "B250", f"{path} is no spreadsheet", why=str(error)[:200], fix="save it as .xlsx"
        ) from None
    names = book.sheetnames
    if sheet is not None and sheet not in names:
        raise BoucleError(
            "B250",
            f"there is no sheet {sheet!r}",
            where=str(path),
            fix=f"--sheet, one of: {', '.join(names)}",
        )
    chosen = book[sheet] if sheet else book.worksheets[0]
    notes = [f"spreadsheet, sheet {chosen.title!r}"]
    if sheet is None and len(names) > 1:
        notes.append(
            f"other sheets were not looked at: {', '.join(one for one in names if one != chosen.title)}"
        )
    cells = _filled(chosen, notes)
    header, rows = _table(cells, chosen, path, notes)
    arrays = [pa.array([_text(row[at]) for row in rows], pa.string()) for _, at in header]
    table = pa.table(arrays, names=[name for name, _ in header])
    connection.register("data", table)
    name = chosen.title if sheet or len(names) > 1 else name_of(path)
    return Opened(connection, name, untyped=True, notes=notes, address=str(path))


def _filled(sheet: Any, notes: list[str]) -> list[list[Any]]:
    """The values, those of merged cells in each of their places."""
    cells = [list(row) for row in sheet.iter_rows(values_only=True)]
    merged = list(sheet.merged_cells.ranges)
    for one in merged:
        value = cells[one.min_row - 1][one.min_col - 1]
        for row in range(one.min_row - 1, min(one.max_row, len(cells))):
            for column in range(one.min_col - 1, min(one.max_col, len(cells[row]))):
                cells[row][column] = value
    if merged:
        shown = ", ".join(one.coord for one in merged[:5])
        notes.append(f"{len(merged)} merged cells ({shown}): their value is taken for every cell they cover")
    return cells


def _table(
    cells: list[list[Any]], sheet: Any, path: Path, notes: list[str]
) -> tuple[list[tuple[str, int]], list[list[Any]]]:
    """The header with the places of its columns, and the rows below it."""
    width = max((sum(value is not None for value in row) for row in cells), default=0)
    wide = [number for number, row in enumerate(cells) if _different(row) >= max(1, (width + 1) // 2)]
    if not wide:
        raise BoucleError(
            "B250", f"sheet {sheet.title!r} of {path.name} is empty", fix="name another with --sheet"
        )
    top = wide[0]
    if top:
        notes.append(f"{top} rows above the header (row {top + 1}) were passed over")
    spans = [
        one
        for one in sheet.merged_cells.ranges
        if one.min_row <= top + 1 <= one.max_row and one.max_col > one.min_col
    ]
    if spans:
        raise BoucleError(
            "B250",
            f"the header of sheet {sheet.title!r} has merged cells",
            where=f"{path.name} {spans[0].coord}",
            why="one name over several columns does not say which is which",
            fix="give every column a name of its own in one row",
        )
    header, unnamed, empty = [], [], []
    for at, value in enumerate(cells[top]):
        filled = any(row[at] is not None for row in cells[top + 1 :])
        letter = _letter(at)
        if value is not None:
            header.append((str(value).strip(), at))
        elif filled:
            unnamed.append(letter)
            header.append((f"column_{letter}", at))
        else:
            empty.append(letter)
    if unnamed:
        notes.append(f"columns without a name: {', '.join(unnamed)}")
    if empty:
        notes.append(f"empty columns were passed over: {', '.join(empty)}")
    _refuse_twice(header, path, sheet.title)
    rows = [row for row in cells[top + 1 :] if any(value is not None for value in row)]
    blank = len(cells) - top - 1 - len(rows)
    if blank:
        notes.append(f"{blank} empty rows were passed over")
    return header, rows


def _different(row: list[Any]) -> int:
    """Different values of a row; a title merged over all columns is one."""
    return len({str(value) for value in row if value is not None})


def _refuse_twice(header: list[tuple[str, int]], path: Path, title: str) -> None:
    seen: dict[str, int] = {}
    for name, at in header:
        if name in seen:
            raise BoucleError(
                "B250",
                f"two columns are called {name!r}",
                where=f"{path.name}, sheet {title!r}, {_letter(seen[name])} and {_letter(at)}",
                fix="rename one of them",
            )
        seen[name] = at


def _letter(at: int) -> str:
    found = ""
    at += 1
    while at:
        at, rest = divmod(at - 1, 26)
        found = chr(65 + rest) + found
    return found


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, dt.datetime):
        midnight = value.time() == dt.time() and value.tzinfo is None
        return value.date().isoformat() if midnight else value.isoformat(sep=" ")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)
