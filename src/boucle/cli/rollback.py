"""`boucle rollback`: a table as it was at a version or a moment, by a new version."""

import argparse
import json

from boucle.cli.lake import lake_of, lake_options

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle rollback`."""
    parser.add_argument("table", help="its name, or zone.name")
    parser.add_argument("--to", required=True, metavar="VERSION|TIME", help="what it shall be again")
    parser.add_argument("--because", default="", help="why; kept in the history")
    lake_options(parser)
    parser.epilog = (
        "examples:\n  boucle rollback maintenance_summary --to 41\n"
        '  boucle rollback spent --to 2026-11-21T08:00:00Z --because "wrong prices"'
    )


def run(options: argparse.Namespace) -> int:
    """Restore, and say which version consumers see now."""
    from boucle.lake.history import restore, version_of

    table = lake_of(options).find(options.table)
    before, target = table.version, version_of(table, options.to)
    version = restore(table, target, options.because)
    if options.json:
        print(json.dumps({"table": table.name, "from": before, "to": target, "version": version}))
    else:
        print(f"{table.zone}.{table.name}: as it was at version {target}; that is version {version} now")
    return 0
