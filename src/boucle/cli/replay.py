"""`boucle replay`: recorded input through a product; no machine is ever moved."""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boucle.cli.screen import Screen, choose_language
from boucle.errors import BoucleError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle replay`."""
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="the product's folder (default: here)"
    )
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument(
        "--lake",
        type=Path,
        metavar="FOLDER",
        help="replay what the lake of the run in FOLDER has, by event time",
    )
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FOLDER",
        help="replay what the run in FOLDER accepted, in the order it came",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="compare every derived table row by row with what the run in FOLDER stored (and replay its log)",
    )
    parser.add_argument(
        "--warm",
        metavar="DURATION",
        default="0s",
        help="begin so long before --since: replayed for the state of the steps, not compared",
    )
    parser.add_argument(
        "--late",
        choices=["apart", "merge"],
        default="apart",
        help="merge: rows that came too late, as if they had come in time",
    )
    parser.add_argument(
        "--file", action="append", default=[], metavar="SOURCE=ADDRESS", help="a file for a source"
    )
    parser.add_argument(
        "--since", metavar="TIME", help="from this event time (RFC 3339); with --lake or --log"
    )
    parser.add_argument("--until", metavar="TIME", help="up to this event time; with --lake or --log")
    parser.add_argument("--speed", default="max", help="times real time, or max (default)")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="where log and lake go (default: run/replay-<product>)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument(
        "--lang", choices=["en", "fr"], help="language of the screens (default: the locale's)"
    )
    parser.epilog = (
        "examples:\n  boucle replay examples/skab\n  boucle replay examples/press --lake run/demo-press\n"
        "  boucle replay new/press --against run/press --since 2026-01-31T12:00:00Z --warm 1h\n"
        "  boucle replay examples/nab --file readings=file://mine.csv?time=timestamp --speed 1000"
    )


def run(options: argparse.Namespace) -> int:
    """Replay to the end; list the alerts beside the labels, or what differs from the other run."""
    from boucle.cli.beside import against
    from boucle.cli.session import result, tick
    from boucle.loop.plan import build_plan
    from boucle.loop.replay import DryActuator, Labelled, ReplayClock
    from boucle.loop.run import Loop
    from boucle.product.project import load_project

    screen = Screen(choose_language(options.lang), event_time=True)
    since = time.monotonic()
    plan = build_plan(load_project(options.folder, options.env).within_lake())
    clock = ReplayClock()
    span = _span(options)
    sources = _sources(options, plan, clock, span)
    loop = Loop(
        plan,
        clock,
        sources=sources,
        actuators={name: DryActuator(clock) for name in plan.project.loop.actuators},
        folder=_fresh(options.into or Path("run") / f"replay-{plan.project.id}"),
        listener=lambda told: tick(screen, told),
        inlet=False,
        promises=False,
    )
    labels = plan.project.loop.view.labels
    beside = Labelled(by=labels.by, label=labels.label) if labels else None
    if labels and beside:
        loop.path.tap(labels.stream, beside.see)
    _play(loop, sources, screen, None if options.speed == "max" else float(options.speed))
    told: dict[str, Any] = result(loop, since)
    if beside:
        told["labels"] = _beside(beside)
    verdict = against(loop, sources, options.against, span) if options.against else None
    if verdict is not None:
        told["against"] = verdict.plain()
    if options.json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        _show(told, beside, screen.language)
        if verdict is not None:
            print("\n" + "\n".join(verdict.lines(screen.language)))
    return 0 if verdict is None or verdict.same else 1


def _span(options: argparse.Namespace) -> Any:
    from boucle.loop.replay import Span
    from boucle.product.duration import seconds

    since, until = _time(options.since), _time(options.until)
    recorded = options.lake or options.log or options.against
    if not recorded and (since is not None or until is not None or options.late == "merge"):
        fix = "name the run: --log FOLDER, --lake FOLDER or --against FOLDER"
        raise BoucleError("B813", "--since, --until and --late ask for what a run has stored", fix=fix)
    return Span(since, until, round(seconds(options.warm) * 1e9))


def _fresh(folder: Path) -> Path:
    import shutil

    if (folder / "log").exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise BoucleError(
            "B801",
            f"{folder} holds something else",
            why="it is not the folder of a run",
            fix="name another --into",
        )
    return folder


def _sources(options: argparse.Namespace, plan: Any, clock: Any, span: Any) -> dict[str, Any]:
    from boucle.address import parse_address
    from boucle.loop.intake import open_source
    from boucle.loop.replay import Ahead

    project = plan.project
    given = dict(item.partition("=")[::2] for item in options.file)
    unknown = [name for name in given if name not in project.loop.sources]
    if unknown:
        known = ", ".join(project.loop.sources)
        raise BoucleError("B802", f"{project.id} has no source {unknown[0]!r}", fix=f"one of: {known}")
    sources = {}
    for name, spec in project.loop.sources.items():
        contract = project.contracts[spec.schema]
        if name not in given and (options.lake or options.log or options.against):
            inner: Any = _recorded(options, project, name, contract, span)
        else:
            address = parse_address(given.get(name) or project.settings.fill(spec.from_), "source")
            if address.scheme != "file":
                why = f"{address.text} is live, not recorded"
                fix = f"--log or --lake FOLDER of a run, or --file {name}=file://…"
                raise BoucleError("B804", f"source {name!r} cannot be replayed", why=why, fix=fix)
            inner = open_source(address, name, clock, project.id, spec.with_)
        sources[name] = Ahead(inner, clock, contract.time)
    return sources


def _recorded(options: argparse.Namespace, project: Any, name: str, contract: Any, span: Any) -> Any:
    from boucle.lake.delta import LakeTable
    from boucle.loop.recorded import Recorded, from_lake, from_log, late_rows, with_late

    folder = options.lake or options.log or options.against
    if not (folder / "log" / name).exists() and not options.lake:
        fix = "give the folder of a run (`boucle run` and `boucle demo` say it)"
        raise BoucleError("B814", f"there is no log of {name!r}", where=str(folder), fix=fix)
    schema, time_column, begin = contract.schema(), contract.time, span.begin
    if options.lake:
        table = next((t for t, declared in project.loop.tables.items() if declared.from_ == name), None)
        if table is None:
            raise BoucleError("B803", f"no table keeps {name!r}", fix="declare one with zone: raw")
        stored = LakeTable(folder / "lake" / "raw" / table)

    def blocks() -> Any:
        if options.lake:
            rows = from_lake(stored, schema, begin, span.until)
        else:
            rows = from_log(folder / "log" / name, schema, time_column, begin, span.until)
        if options.late == "apart":
            return rows
        late = late_rows(folder / "log" / f"{name}.late", schema, time_column, begin, span.until)
        return with_late(rows, late, time_column)

    return Recorded(name, blocks)


def _time(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BoucleError("B805", f"{text!r} is not a time", fix="write 2026-01-31T12:00:00Z") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)


def _play(loop: Any, sources: dict[str, Any], screen: Screen, speed: float | None) -> None:
    from boucle.loop.replay import play

    loop.open()
    try:
        shown = 0.0
        for at in play(loop, sources, speed):
            now = time.monotonic()
            if now - shown > 0.2:
                shown = now
                moment = datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
                read = sum(intake.accounting.received for intake in loop.intakes.values())
                screen.progress(f"{moment} · {read}")
    finally:
        screen.done()
        loop.close()


def _beside(beside: Any) -> dict[str, Any]:
    def spans(found: list[list[int]]) -> list[list[str]]:
        return [[datetime.fromtimestamp(t / 1e9, UTC).isoformat() for t in span[:2]] for span in found]

    return {
        "all": beside.figures(),
        "recordings": {
            name: {
                **beside.figures([name]),
                **{kind: spans(found) for kind, found in beside.spans[name].items()},
            }
            for name in beside.counts
        },
    }


_WORDS = {
    "en": ("in", "stored", "late", "duplicate", "quarantined", "shed", "recording", "labelled | alerted (spans)"),
    "fr": ("reçues", "stockées", "tardives", "doublons", "quarantaine", "délestées", "enregistrement",
           "étiquetées | alertées (plages)"),
}  # fmt: skip


def _show(told: dict[str, Any], beside: Any, language: str) -> None:
    counts = told["accounting"]
    *words, recording, spans = _WORDS[language]
    names = ("in", "stored", "late", "duplicate", "quarantined", "shed")
    first, *rest = (f"{word} {counts[name]}" for word, name in zip(words, names, strict=True))
    print(f"{first} = {' + '.join(rest)}")
    if beside is None:
        return
    print(f"\n{recording:<28} {'F1':>6} {'FAR %':>7} {'MAR %':>7}   {spans}")
    for name, found in told["labels"]["recordings"].items():
        print(f"{name[-28:]:<28} {_figures(found)}   {len(found['labels']):>8} | {len(found['alerts'])}")
    print(f"{'all':<28} {_figures(told['labels']['all'])}")


def _figures(found: dict[str, Any]) -> str:
    cells = [found["f1"], found["far"], found["mar"]]
    return " ".join(
        f"{'–' if v is None else format(v, f'.{d}f'):>{w}}"
        for v, w, d in zip(cells, (6, 7, 7), (3, 1, 1), strict=True)
    )
