"""Rows as an answer: a table for a person on a terminal, one JSON array for a machine."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["print_rows", "print_table", "readable"]


def print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool, limit: int = 0) -> None:
    """The rows, all of them as JSON, or at most `limit` (0: all) for a person."""
    if as_json:
        print(json.dumps(list(rows), default=str, ensure_ascii=False))
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    print_table(names, [{name: row.get(name) for name in names} for row in rows], limit)


def readable(rows: "pa.RecordBatch | pa.Table") -> list[dict[str, Any]]:
    """Rows as dictionaries; times as text, to the nanosecond."""
    import pyarrow as pa

    columns = {
        name: rows.column(name).cast(pa.string()) if pa.types.is_timestamp(kind) else rows.column(name)
        for name, kind in zip(rows.schema.names, rows.schema.types, strict=True)
    }
    return list(pa.table(columns).to_pylist())


def print_table(names: Sequence[str], rows: Sequence[dict[str, Any]], limit: int) -> None:
    """Columns side by side, with a line that counts the rows on standard error."""
    shown = rows[:limit] if limit else rows
    cells = [[_cell(row[name]) for name in names] for row in shown]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(names)]
    print("  ".join(f"{name:<{width}}" for name, width in zip(names, widths, strict=True)).rstrip())
    print("  ".join("─" * width for width in widths))
    for row in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    more = f", {len(rows) - len(shown)} more not shown (--limit 0)" if len(shown) < len(rows) else ""
    print(f"({len(rows)} row{'s' if len(rows) != 1 else ''}{more})", file=sys.stderr)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = f"[{len(value)} values]" if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
