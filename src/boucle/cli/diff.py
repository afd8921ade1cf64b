"""`boucle diff`: what changed between two versions of a promise, for whom it breaks, which version says so."""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError

__all__ = ["arguments", "run"]

_SIGNS = {"major": "■", "minor": "▲", "patch": "·", "none": "·"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle diff`."""
    parser.add_argument(
        "versions",
        nargs="+",
        metavar="VERSION",
        help="OLD NEW, or older versions and the new one last: files, folders, or REF:PATH in git",
    )
    parser.add_argument(
        "--from",
        dest="refs",
        action="append",
        default=[],
        metavar="REF",
        help="compare the one path given with itself at this tag, branch or commit; may be repeated",
    )
    parser.add_argument(
        "--mode",
        choices=["backward", "forward", "full"],
        default="full",
        help="who must not break: consumers (backward), producers (forward), both (full, the default)",
    )
    parser.add_argument(
        "--transitive",
        action="store_true",
        help="against every older version: all that are given, or every git tag of the path",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit 1 when the version does not rise as the changes demand"
    )
    parser.add_argument(
        "--changelog",
        nargs="?",
        const="-",
        metavar="FILE",
        help="put a Markdown entry on top of FILE (or print it)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object: {level, ok, verdicts}")
    parser.epilog = (
        "examples:\n  boucle diff old/product.yaml new/product.yaml\n"
        "  boucle diff v1.2.0:products/press/product.yaml products/press/product.yaml\n"
        "  boucle diff --from origin/main products/press --check      in CI\n"
        "  boucle diff --transitive products/press --mode backward    against every tag\n"
        "  boucle diff --from v1.2.0 products/press --changelog CHANGELOG.md"
    )


def run(options: argparse.Namespace) -> int:
    """Print every change with its verdict; 1 when `--check` finds a version too low."""
    from boucle.product.compare import compare_all
    from boucle.product.compare.changelog import entry, write_entry
    from boucle.product.compare.history import promises_of

    older, newest = _sides(options)
    new = promises_of(newest)
    verdicts: list[Any] = []
    for name, old in older:
        alone = set(old) == {""} and set(new) == {""}
        before, after = (old, new) if alone else (_by_id(old), _by_id(new))
        verdicts += compare_all(before, after, options.mode, name)
    text = entry(verdicts, datetime.now(UTC).date().isoformat()) if options.changelog else ""
    if text and options.changelog != "-":
        write_entry(Path(options.changelog), text)
    low = [verdict for verdict in verdicts if not verdict.enough]
    if options.json:
        print(json.dumps(_told(verdicts), ensure_ascii=False))
    elif options.changelog == "-":
        print(text, end="")
    else:
        print("\n".join(_lines(verdicts)))
    if options.check and not options.json:
        for verdict in low:
            what = f"{verdict.document} {verdict.id}: version {verdict.old} → {verdict.new or '(none)'} says too little"
            print(BoucleError("B252", what, fix=f"write version: {verdict.needed}"), file=sys.stderr)
    return 1 if options.check and low else 0


def _sides(options: argparse.Namespace) -> tuple[list[tuple[str, Any]], str]:
    """The older versions with their names, oldest first, and the new one."""
    from boucle.product.compare.history import promises_at, promises_of, tags_with

    *given, newest = options.versions
    refs = list(options.refs)
    if options.transitive and not refs and not given:
        refs = tags_with(Path(newest))
        if not refs:
            raise BoucleError("B251", f"no tag holds {newest}", fix="tag a version, or name older ones")
    if not given and not refs:
        raise BoucleError(
            "B251", "there is nothing to compare with", fix="give OLD NEW, or --from REF, or --transitive"
        )
    if len(given) + len(refs) > 1 and not options.transitive:
        raise BoucleError(
            "B251",
            "several older versions are given",
            fix="add --transitive to compare with each, or name one",
        )
    path = Path(newest)
    folder, within = (path, "") if path.is_dir() else (path.parent, path.name)
    if path.is_dir() and (path / "product.yaml").exists():
        within = "product.yaml"
    at = [(ref, promises_at(ref, f"./{within}" if within else "./", folder)) for ref in refs]
    return [*((name, promises_of(name)) for name in given), *at], newest


def _by_id(promises: dict[str, Any]) -> dict[str, Any]:
    return {promise.id: promise for promise in promises.values()}


def _told(verdicts: list[Any]) -> dict[str, Any]:
    from boucle.product.version import LEVELS

    level = max((verdict.level for verdict in verdicts), key=LEVELS.index, default="none")
    return {
        "level": level,
        "ok": all(verdict.enough for verdict in verdicts),
        "verdicts": [
            {
                "document": verdict.document, "id": verdict.id, "against": verdict.against, "mode": verdict.mode,
                "level": verdict.level, "old": verdict.old, "new": verdict.new, "needed": verdict.needed,
                "ok": verdict.enough, "changes": [
                    {
                        "path": change.path, "kind": change.kind, "what": change.what,
                        "breaks": list(change.breaks), "level": change.level(verdict.mode), "why": change.why,
                    }
                    for change in verdict.changes
                ],
            }
            for verdict in verdicts
        ],
    }  # fmt: skip


def _lines(verdicts: list[Any]) -> Iterator[str]:
    from boucle.product.compare.change import of_mode

    for verdict in verdicts:
        against = f" (against {verdict.against})" if verdict.against else ""
        yield f"{verdict.document} {verdict.id} {verdict.old or '–'} → {verdict.new or '–'}{against}: {verdict.level}"
        for change in of_mode(verdict.changes, verdict.mode):
            breaks = f"  breaks {' and '.join(change.breaks)}" if change.breaks else ""
            yield f"  {_SIGNS[change.level(verdict.mode)]} {change.path or verdict.document}: {change.what}{breaks}"
            if change.why:
                yield f"      {change.why}"
        if not verdict.enough:
            yield f"  the version must rise to {verdict.needed or 'another one'}"
