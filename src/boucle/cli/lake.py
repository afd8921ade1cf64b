"""`boucle lake`: the tables of a lake, their history, and what keeps them in order."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boucle.cli.answer import print_rows, readable
from boucle.errors import BoucleError

if TYPE_CHECKING:
    from boucle.block import Block
    from boucle.lake.delta import LakeTable
    from boucle.lake.whole import Lake

__all__ = ["arguments", "lake_of", "lake_options", "lake_place", "moment", "run"]


def lake_options(parser: argparse.ArgumentParser) -> None:
    """Where the lake is, and how to answer: every verb about tables asks it the same way."""
    lake_place(parser)
    parser.add_argument("--json", action="store_true", help="one JSON value on standard output")


def lake_place(parser: argparse.ArgumentParser) -> None:
    """Where the lake is."""
    parser.add_argument(
        "--folder", type=Path, help="the run's folder (default: `run.folder` of boucle.toml here)"
    )
    parser.add_argument("--lake", metavar="ADDRESS", help="a lake elsewhere: s3://bucket/prefix?endpoint=…")


def lake_of(options: argparse.Namespace) -> "Lake":
    """The lake meant; B810 when there is none in the folder."""
    from boucle.lake.whole import Lake
    from boucle.product.project import Settings

    if options.lake:
        return Lake(options.lake)
    settings = Settings(Path())
    elsewhere = str(settings.get("run.lake").value)
    if elsewhere and options.folder is None:
        return Lake(elsewhere)
    folder = options.folder or Path(str(settings.get("run.folder").value))
    if not (folder / "lake").is_dir():
        fix = "--folder of a run, or --lake ADDRESS; `boucle demo press` makes one"
        raise BoucleError("B810", f"there is no lake in {folder}", fix=fix)
    return Lake(folder / "lake")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle lake`."""
    shared = argparse.ArgumentParser(add_help=False)
    lake_options(shared)
    todo = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def word(name: str, says: str, *, table: bool = True) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = todo.add_parser(name, help=says, description=says, parents=[shared])
        if table:
            sub.add_argument("table", help="its name, or zone.name")
        return sub

    word("list", "the tables, with rows, files, bytes and version", table=False)
    word("history", "the versions of a table, newest first").add_argument("--last", type=int, default=20)
    at = word("at", "rows of a table as they were at a version or moment")
    at.add_argument("when", help="a version, or a moment like 2026-11-21T10:00:00Z")
    at.add_argument("--limit", type=int, default=50)
    changed = word("changes", "rows that came and went between two versions")
    changed.add_argument("--since", default="0", help="a version or moment (default: the first)")
    changed.add_argument("--until", help="a version or moment (default: the newest)")
    changed.add_argument("--limit", type=int, default=50)
    optimize = word("optimize", "join small files; order rows along a curve with --by")
    optimize.add_argument(
        "--by", nargs="+", default=[], metavar="COLUMN", help="columns that are filtered by"
    )
    vacuum = word("vacuum", "delete files that only versions older than --keep need")
    vacuum.add_argument("--keep", default="7d", help="how far back every version stays readable (default 7d)")
    vacuum.add_argument("--dry-run", action="store_true", help="count, delete nothing")
    backfill = word("backfill", "replace a span of event time by the rows of a file or of another run")
    backfill.add_argument("source", type=Path, help="a Parquet file, or the folder of a run (a replay)")
    backfill.add_argument("--since", required=True, help="a moment; in")
    backfill.add_argument("--until", required=True, help="a moment; out")
    backfill.add_argument("--because", default="", help="kept in the history")
    export = word("export", "write a table as Apache Iceberg, or a version of it as files with checksums")
    export.add_argument(
        "to", type=Path, help="the folder of the Iceberg table, or for TABLE/VERSION with files"
    )
    export.add_argument(
        "--as", dest="form", choices=("iceberg", "parquet", "csv"), default="iceberg", help="default: iceberg"
    )
    export.add_argument("--when", help="a version or moment, for files (default: the newest)")
    parser.epilog = (
        "examples:\n  boucle lake list --json\n  boucle lake history maintenance_summary\n"
        "  boucle lake at vibration_events 2026-11-21T10:00:00Z --limit 5\n"
        "  boucle lake changes events --since 12\n  boucle lake optimize vibration_events --by at value\n"
        "  boucle lake vacuum vibration_events --keep 30d --dry-run\n"
        "  boucle lake backfill vibration_events run/replayed --since 2026-11-20 --until 2026-11-21\n"
        "  boucle lake export maintenance_summary out/maintenance_summary\n"
        "  boucle lake export maintenance_summary out --as csv --when 12"
    )


def run(options: argparse.Namespace) -> int:
    """Do it, and print what there is to see."""
    _WORDS[options.what](lake_of(options), options)
    return 0


def _list(lake: "Lake", options: argparse.Namespace) -> None:
    rows = []
    for table in lake.tables():
        files = table.files()
        rows.append(
            {
                "table": table.name, "zone": table.zone, "rows": table.rows, "files": len(files),
                "bytes": sum(file.bytes for file in files), "version": table.version, "time": table.time,
                "partitions": ", ".join(table.partition_by),
            }
        )  # fmt: skip
    print_rows(rows, as_json=options.json)


def _history(lake: "Lake", options: argparse.Namespace) -> None:
    from boucle.lake.history import versions

    rows: list[dict[str, Any]] = []
    for one in versions(lake.find(options.table), options.last):
        because = {key: value for key, value in one.because.items() if key != "did"}
        told: Any = because if options.json else "  ".join(f"{key}={value}" for key, value in because.items())
        rows.append(
            {
                "version": one.number, "at": moment(one.at_ms), "did": one.did, "files added": one.added,
                "files removed": one.removed, "because": told,
            }
        )  # fmt: skip
    print_rows(rows, as_json=options.json)


def moment(at_ms: int) -> str:
    """Milliseconds since the epoch, as people read them, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _at(lake: "Lake", options: argparse.Namespace) -> None:
    from boucle.lake.history import version_of

    table = lake.find(options.table)
    version = version_of(table, options.when)
    rows: list[dict[str, Any]] = []
    for block in table.scan(version=version):
        rows += readable(block.rows.slice(0, options.limit - len(rows)) if options.limit else block.rows)
        if options.limit and len(rows) >= options.limit:
            break
    print(f"{table.name} at version {version}", file=sys.stderr)
    print_rows(rows, as_json=options.json, limit=options.limit)


def _changes(lake: "Lake", options: argparse.Namespace) -> None:
    from boucle.lake.history import changes, version_of

    table = lake.find(options.table)
    since = version_of(table, options.since)
    until = version_of(table, options.until) if options.until else None
    rows: list[dict[str, Any]] = []
    for change in changes(table, since, until):
        for kind, some in (("delete", change.deleted), ("insert", change.inserted)):
            left = options.limit - len(rows) if options.limit else len(some)
            head = {"change": kind, "version": change.version, "committed": moment(change.at_ms)}
            rows += [{**head, **row} for row in readable(some.slice(0, max(0, left)))]
    print_rows(rows, as_json=options.json, limit=options.limit)


def _optimize(lake: "Lake", options: argparse.Namespace) -> None:
    from boucle.lake.upkeep import compact, order

    table = lake.find(options.table)
    before = len(table.files())
    version = order(table, options.by) if options.by else compact(table)
    after = len(table.files())
    _say(
        options,
        f"{table.name}: {before} files are {after} now (version {version})",
        before=before,
        after=after,
        version=version,
    )


def _vacuum(lake: "Lake", options: argparse.Namespace) -> None:
    from boucle.lake.upkeep import vacuum
    from boucle.product.duration import seconds

    table = lake.find(options.table)
    done = vacuum(table, seconds(options.keep), dry_run=options.dry_run)
    word = "would be deleted" if options.dry_run else "deleted"
    says = f"{table.name}: {done.files} files, {done.bytes} bytes {word}; versions from {done.oldest} on stay whole"
    _say(options, says, files=done.files, bytes=done.bytes, oldest=done.oldest)


def _backfill(lake: "Lake", options: argparse.Namespace) -> None:
    from boucle.lake.history import moment_of
    from boucle.lake.span import backfill

    table = lake.find(options.table)
    since, until = (int(moment_of(text).timestamp() * 1e6) * 1000 for text in (options.since, options.until))
    taken, added = backfill(
        table, _rows_of(options.source, table, since, until), since, until, options.because
    )
    says = f"{table.name}: {taken} rows were replaced by {added} (version {table.version})"
    _say(options, says, taken=taken, added=added, version=table.version)


def _rows_of(source: Path, table: "LakeTable", since: int, until: int) -> "Iterator[Block]":
    from boucle.lake.span import from_file
    from boucle.lake.whole import Lake

    if source.is_dir():
        other = Lake(source / "lake" if (source / "lake").is_dir() else source)
        yield from other.find(f"{table.zone}.{table.name}").scan(since, until)
    else:
        yield from from_file(source, table, since, until)


def _export(lake: "Lake", options: argparse.Namespace) -> None:
    from boucle.lake.iceberg import export

    table = lake.find(options.table)
    if options.form != "iceberg":
        _export_files(lake, table, options)
        return
    done = export(table, options.to)
    says = f"{table.name}: version {done.version} is Iceberg now, {done.rows} rows: {done.metadata}"
    _say(options, says, version=done.version, rows=done.rows, files=done.files, metadata=done.metadata)


def _export_files(lake: "Lake", table: "LakeTable", options: argparse.Namespace) -> None:
    from boucle.lake.history import version_of
    from boucle.lake.sql import Sql
    from boucle.outlet.export import export

    version = table.version if options.when is None else version_of(table, options.when)
    sql = Sql(lake.where)
    try:
        done = export(sql, table, options.to, options.form, version)
    finally:
        sql.close()
    place = options.to / table.name / str(version)
    _say(options, f"{table.name}: version {version}, {done['rows']} rows: {place}", **done, folder=str(place))


def _say(options: argparse.Namespace, text: str, **told: Any) -> None:
    print(json.dumps(told, ensure_ascii=False) if options.json else text)


_WORDS: dict[str, Callable[["Lake", argparse.Namespace], None]] = {
    "list": _list,
    "history": _history,
    "at": _at,
    "changes": _changes,
    "optimize": _optimize,
    "vacuum": _vacuum,
    "backfill": _backfill,
    "export": _export,
}
