"""`boucle sql`: a question to the lake's tables."""

import argparse
import csv
import json
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

from boucle.cli.answer import print_table
from boucle.cli.lake import lake_of, lake_place

if TYPE_CHECKING:
    from boucle.lake.sql import Sql

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle sql`."""
    parser.add_argument("query", nargs="?", help="a SELECT; without one, the tables are listed")
    lake_place(parser)
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="one JSON array of rows")
    shape.add_argument("--csv", action="store_true", help="comma-separated values")
    parser.add_argument("--limit", type=int, default=50, help="rows shown to a person (default 50; 0: all)")
    parser.epilog = (
        "examples:\n  boucle sql\n"
        '  boucle sql "select machine, last(cause order by at) from maintenance_summary group by 1"\n'
        '  boucle sql --folder run/press --json "select * from events"\n'
        '  boucle sql --lake "s3://plant/press?endpoint=http://127.0.0.1:9000" "select count(*) from events"'
    )


def run(options: argparse.Namespace) -> int:
    """Print the answer as a table, JSON or CSV."""
    from boucle.lake.sql import Sql

    with closing(Sql(lake_of(options).where)) as lake:
        _answer(lake, options)
    return 0


def _answer(lake: "Sql", options: argparse.Namespace) -> None:
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
