"""`boucle sql`: a question to the lake's tables."""

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import Any

from boucle.cli.answer import print_table
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
        print_table(names, rows, options.limit)
    return 0
