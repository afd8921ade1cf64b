"""`boucle quarantine`: refused readings listed, looked at, taken out to be mended, and judged again."""

import argparse
import base64
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boucle.errors import BoucleError

if TYPE_CHECKING:
    from boucle.product.project import Project
    from boucle.quality.outcomes import Became
    from boucle.quality.quarantine import Reject

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle quarantine`."""
    parser.add_argument("action", nargs="?", default="list", choices=["list", "show", "export", "retry"],
                        help="list (default), show one, export to a file, judge again")  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="readings, by name or its beginning")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="the run's folder (default: run.folder)")
    parser.add_argument(
        "--product", type=Path, default=Path(), metavar="DIR", help="the product's folder (default: here)"
    )
    parser.add_argument("--reason", help="only those refused for this reason")
    parser.add_argument("--rule", help="only those that broke this rule of the contract")
    parser.add_argument("--source", help="only those of this source")
    parser.add_argument("--since", metavar="TIME", help="only those refused at or after this ISO 8601 time")
    parser.add_argument("--until", metavar="TIME", help="only those refused before it")
    parser.add_argument(
        "--all", action="store_true", help="also those that were stored since, or were duplicates"
    )
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="readings listed (default 20; 0: all)"
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="export: one JSON object a line, to be mended"
    )
    parser.add_argument(
        "--from", dest="mended", type=Path, metavar="FILE", help="retry: an exported file, mended"
    )
    parser.add_argument("--wait", type=float, default=30.0, metavar="SECONDS",
                        help="retry: how long to wait for a running loop (default 30)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.epilog = (
        "examples:\n  boucle quarantine --run run/press\n  boucle quarantine show 3f9a --run run/press\n"
        "  boucle quarantine export --reason out_of_range --to bad.ndjson\n"
        "  boucle quarantine retry --from bad.ndjson      a mended file\n"
        "  boucle quarantine retry --reason not_allowed   by the contract as it is now\n"
        "A running loop stores them itself, by the contract it runs with; without one this command does."
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    project, folder = _place(options)
    quarantine = folder / "quarantine"
    if not (quarantine / "quarantine.ndjson").exists():
        raise BoucleError("B452", f"there is no quarantine in {folder}", fix="--run with the folder of a run")
    actions = {"list": _list, "show": _show, "export": _export}
    if options.action == "retry":
        return _retry(options, project, folder)
    return actions[options.action](options, quarantine, project)


def _place(options: argparse.Namespace) -> "tuple[Project | None, Path]":
    from boucle.product.project import load_project

    if not (options.product / "product.yaml").exists() and options.run is not None:
        return None, options.run
    project = load_project(options.product)
    return project, options.run or project.path("run.folder")


def _chosen(options: argparse.Namespace, quarantine: Path) -> "Iterator[tuple[str, Reject, Became | None]]":
    from boucle.quality.outcomes import Outcomes
    from boucle.quality.quarantine import named_rejects

    known = Outcomes.of(quarantine)
    since, until = _moment(options.since, 0), _moment(options.until, 1 << 63)
    found: Counter[str] = Counter()
    for name, entry in named_rejects(quarantine):
        became = known.get(name)
        named = [word for word in options.names if name.startswith(word)]
        found.update(named)
        wanted = {"reason": entry.reason, "rule": entry.rule, "source": entry.source}
        if any(getattr(options, word) not in (None, value) for word, value in wanted.items()):
            continue
        if not since <= entry.at < until or (options.names and not named):
            continue
        if options.all or named or became is None or became.outcome == "refused":
            yield name, entry, became
    if missing := [word for word in options.names if not found[word]]:
        raise BoucleError("B453", f"no refused reading is called {missing[0]!r}", where=str(quarantine),
                          fix="boucle quarantine list --all")  # fmt: skip


def _moment(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        raise BoucleError(
            "B454", f"{text!r} is no time", fix="write 2026-11-21 or 2026-11-21T08:00:00Z"
        ) from None
    return int((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()) * 10**9


def _list(options: argparse.Namespace, quarantine: Path, project: "Project | None") -> int:
    del project
    from boucle.quality.outcomes import Outcomes

    counts: Counter[tuple[str, str, str]] = Counter()
    rows: list[dict[str, Any]] = []
    total = 0
    for name, entry, became in _chosen(options, quarantine):
        total += 1
        counts[entry.source, entry.reason, entry.rule] += 1
        if not options.limit or len(rows) < options.limit:
            rows.append(_told(name, entry, became))
    ended = Counter(one.outcome for one in Outcomes.of(quarantine).values())
    groups = [
        {"source": s, "reason": r, "rule": rule, "readings": n} for (s, r, rule), n in counts.most_common()
    ]
    if options.json:
        print(
            json.dumps(
                {"readings": total, "groups": groups, "judged_again": dict(ended), "rejects": rows},
                ensure_ascii=False,
            )
        )
        return 0
    for one in groups:
        print(f"{one['readings']:8d}  {one['source']}  {one['reason']}  {one['rule']}".rstrip())
    for row in rows:
        print(f"  {row['name']}  {row['at']}  {row['source']}  {row['reason']}: {row['detail']}{_ended(row)}")
    more = f", {total - len(rows)} not shown (--limit 0)" if total > len(rows) else ""
    print(f"{total} readings{more}; judged again: {ended['stored']} stored, {ended['duplicate']} duplicates")
    return 0


def _ended(row: dict[str, Any]) -> str:
    return f"  → {row['outcome']}" if row["outcome"] else ""


def _told(name: str, entry: "Reject", became: "Became | None") -> dict[str, Any]:
    return {
        "name": name,
        "at": datetime.fromtimestamp(entry.at / 1e9, UTC).isoformat(timespec="milliseconds"),
        "source": entry.source, "topic": entry.topic, "reason": entry.reason, "rule": entry.rule,
        "detail": entry.detail, "bytes": entry.size, "whole": entry.whole(),
        "outcome": "" if became is None else became.outcome,
    }  # fmt: skip


def _show(options: argparse.Namespace, quarantine: Path, project: "Project | None") -> int:
    if not options.names:
        raise BoucleError("B453", "show which?", fix="boucle quarantine show NAME; `list` gives the names")
    shown = []
    for name, entry, became in _chosen(options, quarantine):
        one = _told(name, entry, became) | {"payload": _payload(entry)}
        if became is not None:
            one["judged_again"] = {"outcome": became.outcome, "reason": became.reason, "detail": became.detail,
                                   "rows": became.rows, "mended": became.mended}  # fmt: skip
        one["promise"] = _promise(entry, project)
        shown.append(one)
    if options.json:
        print(json.dumps({"rejects": shown}, ensure_ascii=False, default=str))
        return 0
    for one in shown:
        for word, value in one.items():
            text = (
                json.dumps(value, ensure_ascii=False, default=str)
                if isinstance(value, dict | list)
                else value
            )
            print(f"{word:>13}  {text}")
    return 0


def _promise(entry: "Reject", project: "Project | None") -> dict[str, Any] | None:
    """The rule it broke, as the contract has it now."""
    spec = None if project is None else project.loop.sources.get(entry.source)
    if project is None or spec is None:
        return None
    for rule in project.contracts[spec.schema].rules:
        if rule.id == entry.rule:
            return {"rule": rule.id, "severity": rule.severity, "columns": rule.columns, "given": rule.given,
                    "file": project.contract.file, "line": rule.line, "impact": rule.impact}  # fmt: skip
    return None


def _payload(entry: "Reject") -> Any:
    """What came, as far as it can be read: rows, text, or base64."""
    import pyarrow as pa

    from boucle.block import as_dicts

    if entry.format == "arrow" and entry.whole():
        try:
            return {"rows": [row for batch in pa.ipc.open_stream(entry.payload) for row in as_dicts(batch)]}
        except (pa.ArrowInvalid, OSError, BoucleError):
            return {"base64": base64.b64encode(entry.payload).decode()}
    try:
        return {"text": entry.payload.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(entry.payload).decode()}


def _export(options: argparse.Namespace, quarantine: Path, project: "Project | None") -> int:
    del project
    if options.to is None:
        raise BoucleError("B454", "export to where?", fix="--to FILE")
    written = 0
    with options.to.open("w", encoding="utf-8") as out:
        for name, entry, became in _chosen(options, quarantine):
            told = {word: value for word, value in _told(name, entry, became).items() if word != "outcome"}
            out.write(json.dumps(told | _payload(entry), ensure_ascii=False, default=str) + "\n")
            written += 1
    if options.json:
        print(json.dumps({"written": written, "file": str(options.to)}))
    else:
        print(
            f"{written} readings in {options.to}: mend `rows`, `text` or `base64`, then\n"
            f"boucle quarantine retry --from {options.to}"
        )
    return 0


def _read_mended(file: Path) -> dict[str, bytes]:
    mended: dict[str, bytes] = {}
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BoucleError(
            "B455", f"{file} cannot be read", why=str(error), fix="give an exported file"
        ) from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = json.loads(line)
            name = str(told["name"])
            if "rows" in told:
                mended[name] = json.dumps(told["rows"]).encode()
            elif "text" in told:
                mended[name] = str(told["text"]).encode()
            else:
                mended[name] = base64.b64decode(told["base64"], validate=True)
        except (ValueError, KeyError, TypeError) as error:
            raise BoucleError("B455", "this line is no exported reading", where=f"{file}:{number}", why=str(error),
                              fix="keep its name, and rows, text or base64") from None  # fmt: skip
    return mended


def _retry(options: argparse.Namespace, project: "Project | None", folder: Path) -> int:
    from boucle.clock import SystemClock
    from boucle.loop.again import answered, ask, became_of
    from boucle.loop.retry import retry

    if project is None:
        raise BoucleError("B454", "judge again by which contract?", fix="--product DIR")
    mended = {} if options.mended is None else _read_mended(options.mended)
    chosen = [(name, entry) for name, entry, _ in _chosen(options, folder / "quarantine")]
    if options.mended is not None:
        chosen = [(name, entry) for name, entry in chosen if name in mended]
    waiting = 0
    try:
        became = retry(project, folder, chosen, SystemClock(), mended)
    except BoucleError as error:
        if error.code != "B450":
            raise
        # The loop that runs stores them itself, between two Blocks of their source.
        names = [name for name, _ in chosen]
        request = ask(folder, names, mended, SystemClock().now())
        waiting = 0 if answered(request, options.wait) else len(names)
        became = [] if waiting else became_of(folder, names)
    counts = Counter(one.outcome for one in became)
    rows = sum(one.rows for one in became if one.outcome == "stored")
    if options.json:
        told = [{"name": one.name, "outcome": one.outcome, "rows": one.rows, "reason": one.reason,
                 "detail": one.detail} for one in became]  # fmt: skip
        answer = {"judged": len(became), "stored": counts["stored"], "rows_stored": rows,
                  "duplicates": counts["duplicate"], "refused": counts["refused"], "waiting": waiting,
                  "outcomes": told}  # fmt: skip
        print(json.dumps(answer, ensure_ascii=False))
        return 1 if waiting else 0
    for one in became:
        if one.outcome == "refused":
            print(f"  {one.name}  still {one.reason}: {one.detail}")
    print(f"{len(became)} judged again: {counts['stored']} stored ({rows} rows), "
          f"{counts['duplicate']} duplicates, {counts['refused']} still refused")  # fmt: skip
    if waiting:
        print(
            f"{waiting} wait: the loop that runs did not take them up within {options.wait:g} s, and will when it can"
        )
    return 1 if waiting else 0
