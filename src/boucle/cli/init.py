"""`boucle init`: a new product's folder, empty or from data that are there."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError, DeclarationError

__all__ = ["arguments", "run"]

_KINDS = ("required", "key", "unique", "range", "length", "values", "personal")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle init`."""
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), help="the new product's folder (default: here)"
    )
    parser.add_argument(
        "--from",
        dest="data",
        metavar="DATA",
        help="infer the contract: a file (csv, tsv, parquet, avro, jsonl, xlsx, sqlite, duckdb), postgresql://…, "
        "or a schema (avsc, proto, sql, json)",
    )
    parser.add_argument("--table", help="of a database with several")
    parser.add_argument("--sheet", help="of a spreadsheet with several")
    parser.add_argument("--delimiter", help="of a text file, when it is not found out rightly")
    parser.add_argument("--encoding", choices=["utf-8", "utf-16", "latin-1"], help="of a text file, likewise")
    parser.add_argument("--id", help="of the product (default: the folder's name)")
    parser.add_argument(
        "--accept",
        default="",
        metavar="KINDS",
        help=f"guesses to write as promises: all, or some of {','.join(_KINDS)}",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show the guesses; write nothing")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: {written, rows, guesses, notes, broken}"
    )
    parser.epilog = (
        "examples:\n  boucle init products/orders\n"
        "  boucle init products/orders --from orders.csv\n"
        "  boucle init products/orders --from orders.csv --accept required,key\n"
        "  boucle init products/orders --from 'postgresql://reader@db/shop?table=orders'\n"
        "  boucle init --from plan.xlsx --sheet 2026 --dry-run"
    )


def run(options: argparse.Namespace) -> int:
    """Write the folder, and print what was guessed."""
    from boucle.product.formats import FORMATS
    from boucle.product.starting import new_product, new_settings, slug, written

    folder: Path = options.folder
    accepted = _accepted(options.accept)
    files = [folder / "product.yaml", folder / "boucle.toml"]
    taken = [file for file in files if file.exists()]
    if taken and not options.dry_run:
        raise BoucleError("B253", f"{taken[0]} is there already", fix="name a new folder, or remove the file")
    name = options.id or slug((folder if folder.name else folder.absolute()).name)
    told: dict[str, Any] = {
        "written": [],
        "rows": 0,
        "guesses": [],
        "notes": [],
        "broken_lines": 0,
        "broken": [],
    }
    data = options.data or ""
    spoken = next(
        (
            one
            for one, spec in FORMATS.items()
            if spec.reads and data.lower().endswith(spec.endings or ("\0",))
        ),
        None,
    )
    if spoken:
        from boucle.product.formats import import_text

        schema, losses = import_text(_bytes(Path(data)), spoken)
        told["notes"] = list(losses)
        text = written(name, schema)
    elif data:
        inferred = _inferred(options, folder)
        told |= _told(inferred, accepted)
        text = new_product(name, [inferred], accepted)
    else:
        text = new_product(name)
    if not options.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in zip(files, (text, new_settings(name)), strict=True):
            file.write_text(content, encoding="utf-8")
        told["written"] += [str(file) for file in files]
        if told["broken_lines"]:
            told["written"].append(str(folder / "broken-lines.txt"))
    problems = [] if options.dry_run else _problems(folder)
    told["problems"] = [str(one) for one in problems]
    if options.json:
        print(json.dumps(told, ensure_ascii=False, default=str))
    else:
        _show(told)
        if problems:
            print("boucle cannot run all of this yet:", file=sys.stderr)
            print(*problems, sep="\n", file=sys.stderr)
    return 0


def _accepted(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if "all" in words:
        return _KINDS
    for word in words:
        if word not in _KINDS:
            raise BoucleError(
                "B253", f"--accept {word}: there is no such guess", fix=f"all, or some of {', '.join(_KINDS)}"
            )
    return words


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BoucleError(
            "B249", f"{file} cannot be read", why=error.strerror or "", fix="name a file"
        ) from None


def _inferred(options: argparse.Namespace, folder: Path) -> Any:
    from boucle.product.infer import infer

    quarantine = None if options.dry_run else folder / "broken-lines.txt"
    if quarantine is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return infer(
        options.data, quarantine=quarantine, table=options.table, sheet=options.sheet, delimiter=options.delimiter,
        encoding=options.encoding,
    )  # fmt: skip


def _told(inferred: Any, accepted: tuple[str, ...]) -> dict[str, Any]:
    return {
        "table": inferred.name,
        "rows": inferred.rows,
        "notes": list(inferred.notes),
        "broken_lines": inferred.broken_lines,
        "broken": [{"line": one.line, "why": one.why} for one in inferred.broken],
        "guesses": [
            {
                "column": one.column,
                "of": one.of,
                "value": one.value,
                "why": one.why,
                "accepted": one.of in accepted,
            }
            for one in inferred.guesses
        ],
    }


def _problems(folder: Path) -> list[Any]:
    from boucle.product.project import read_project

    try:
        return read_project(folder)[1]
    except DeclarationError as error:
        return list(error.problems)


def _show(told: dict[str, Any]) -> None:
    for note in told["notes"]:
        print(f"· {note}", file=sys.stderr)
    if told["guesses"]:
        print(f"{told['table']}: {told['rows']:,} rows. To confirm, one by one:\n")
        rows = [("column", "guess", "value", "because")]
        rows += [
            (
                one["column"],
                one["of"] + ("" if not one["accepted"] else " ✓"),
                _short(one["value"]),
                one["why"],
            )
            for one in told["guesses"]
        ]
        widths = [max(len(row[at]) for row in rows) for at in range(3)]
        for row in rows:
            print(
                "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
                + f"  {row[3]}"
            )
    for one in told["broken"][:20]:
        print(f"▲ line {one['line']}: {one['why']}", file=sys.stderr)
    if told["broken_lines"]:
        more = told["broken_lines"] - min(20, len(told["broken"]))
        print(
            f"▲ {told['broken_lines']} broken lines{f', {more} not shown' if more else ''}", file=sys.stderr
        )
    for file in told["written"]:
        print(file)


def _short(value: Any) -> str:
    text = " … ".join(map(str, value)) if isinstance(value, list) and len(value) == 2 else str(value)
    return text if len(text) <= 44 else f"{text[:43]}…"
