"""`boucle sql`: a question to the lake's tables."""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle sql`."""
    parser.add_argument("query", nargs="?", help="a SELECT; without one, the tables are listed")
    parser.add_argument(
        "--folder", type=Path, help="the run's folder (default: `run.folder` of boucle.toml here)"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON array of rows")
    shape.add_argument("--csv", action="store_true", help="comma-separated values")
    parser.add_argument("--limit", type=int, default=50, help="rows shown to a person (default 50; 0: all)")
    parser.epilog = (
        "examples:\n  boucle sql\n"
        '  boucle sql "select machine, last(cause order by at) from maintenance_summary group by 1"\n'
        '  boucle sql --folder run/press --json "select * from events"'
    )


def run(options: argparse.Namespace) -> int:
    """Print the answer as a table, JSON or CSV."""
    from boucle.lake.sql import Sql
    from boucle.product.project import Settings

    folder = options.folder or Path(str(Settings(Path()).get("run.folder").value))
    if not (folder / "lake").is_dir():
        raise BoucleError(
            "B810", f"there is no lake in {folder}", fix="--folder of a run; `boucle demo press` makes one"
        )
    lake = Sql(folder / "lake")
    if not options.query:
        rows: list[dict[str, Any]] = [
            {"table": table.name, "zone": table.folder.parent.name, "rows": table.rows}
            for table in lake.tables()
        ]
        names = ["table", "zone", "rows"]
    else:
        answer = lake.query(options.query)
        rows, names = answer.to_pylist(), answer.column_names
    if options.json:
        print(json.dumps(rows, default=str, ensure_ascii=False))
    elif options.csv:
        writer = csv.DictWriter(sys.stdout, names)
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(names, rows, options.limit)
    return 0


def _print_table(names: list[str], rows: list[dict[str, Any]], limit: int) -> None:
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
