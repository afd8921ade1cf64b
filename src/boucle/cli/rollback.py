"""`boucle rollback`: a table as it was at a version or a moment, or the champion before this one."""

import argparse
import json
from pathlib import Path

from boucle.cli.lake import lake_of, lake_options

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle rollback`."""
    parser.add_argument("table", metavar="TABLE|MODEL", help="a table (or zone.name), or a model's name")
    parser.add_argument("--to", metavar="VERSION|TIME", help="what the table shall be again")
    parser.add_argument("--role", default="champion", help="of a model: champion (default) or challenger")
    parser.add_argument("--product", type=Path, default=Path(), help="of a model: the product's folder")
    parser.add_argument("--because", default="", help="why; kept in the history")
    lake_options(parser)
    parser.epilog = (
        "examples:\n  boucle rollback maintenance_summary --to 41\n"
        '  boucle rollback spent --to 2026-11-21T08:00:00Z --because "wrong prices"\n'
        '  boucle rollback fraud --because "too many false alarms"     a model: no --to'
    )


def run(options: argparse.Namespace) -> int:
    """Restore, and say which version consumers see now. Without `--to` a model is meant."""
    if options.to is None:
        return _model(options)
    from boucle.lake.history import restore, version_of

    table = lake_of(options).find(options.table)
    before, target = table.version, version_of(table, options.to)
    version = restore(table, target, options.because)
    if options.json:
        print(json.dumps({"table": table.name, "from": before, "to": target, "version": version}))
    else:
        print(f"{table.zone}.{table.name}: as it was at version {target}; that is version {version} now")
    return 0


def _model(options: argparse.Namespace) -> int:
    from boucle.models.registry import registry_of

    registry = registry_of(options.product)
    roles = registry.rollback(options.table, role=options.role, why=options.because)
    if options.json:
        print(json.dumps({"model": options.table, "roles": roles.roles, "generation": roles.generation}))
    else:
        last = roles.history[-1]
        now = f"version {last.version} is {options.role}" if last.version else f"nobody is {options.role}"
        print(f"{options.table}: {now} again, no longer {last.before}")
    return 0
