"""`boucle deadletters`: events that a receiver refused for good, listed, looked at, and sent again."""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boucle.errors import BoucleError

if TYPE_CHECKING:
    from boucle.outlet.deadletters import Letter

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle deadletters`."""
    parser.add_argument("action", nargs="?", default="list", choices=["list", "show", "retry"],
                        help="list (default), show some, send again")  # fmt: skip
    parser.add_argument(
        "names", nargs="*", metavar="ID", help="events, by id or its beginning (default: all)"
    )
    parser.add_argument("--port", help="only those of this output port")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="the run's folder (default: run.folder)")
    parser.add_argument(
        "--product", type=Path, default=Path(), metavar="DIR", help="the product's folder (default: here)"
    )
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--all", action="store_true", help="list also those that were delivered since")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="letters listed (default 20; 0: all)"
    )
    parser.add_argument("--wait", type=float, default=30.0, metavar="SECONDS",
                        help="retry: how long to wait for a running loop (default 30)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.epilog = (
        "examples:\n  boucle deadletters --product examples/press\n"
        "  boucle deadletters show press-line.maintenance_summary.12 --product examples/press\n"
        "  boucle deadletters retry --port verdicts --product examples/press\n"
        "A running loop sends them; without one this command does. Each keeps its id, so a receiver knows it again."
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    from boucle.outlet.deadletters import ports_of

    folder = _folder(options)
    ports = ports_of(folder)
    if options.port is not None and options.port not in ports:
        known = ", ".join(ports) or "none"
        raise BoucleError(
            "B861",
            f"the port {options.port!r} has no dead letters",
            where=str(folder),
            fix=f"those that have: {known}",
        )
    wanted = {name: place for name, place in ports.items() if options.port in (None, name)}
    if options.action == "retry":
        return _retry(options, folder, wanted)
    return _list(options, wanted)


def _folder(options: argparse.Namespace) -> Path:
    from boucle.product.project import Settings

    if options.run is not None:
        return Path(options.run)
    return Path(str(Settings(options.product, options.env).get("run.folder").value))


def _list(options: argparse.Namespace, ports: dict[str, Path]) -> int:
    from boucle.outlet.deadletters import chosen, letters

    found: list[dict[str, Any]] = []
    for name, place in ports.items():
        if options.names and not _any(place, options.names):
            continue
        dead = set(chosen(place, options.names))
        every = letters(place).values()
        named = [one for one in every if not options.names or one.id.startswith(tuple(options.names))]
        whole = options.all or options.names
        found += [_told(name, one, options.action) for one in named if whole or one.id in dead]
    if options.names and not found:
        raise BoucleError(
            "B860", f"no dead letter is called {options.names[0]!r}", fix="boucle deadletters list --all"
        )
    if options.json:
        print(json.dumps({"letters": found}, ensure_ascii=False))
        return 0
    shown = found[: options.limit] if options.limit else found
    for row in shown:
        print(f"  {row['id']}  {row['at']}  {row['port']}  {row['why']}{_since(row)}")
        if "event" in row:
            print(json.dumps(row["event"], ensure_ascii=False, indent=1))
    more = f", {len(found) - len(shown)} not shown (--limit 0)" if len(shown) < len(found) else ""
    print(f"{len(found)} dead letters{more}")
    return 0


def _any(place: Path, names: list[str]) -> bool:
    from boucle.outlet.deadletters import letters

    return any(one.startswith(tuple(names)) for one in letters(place))


def _told(port: str, letter: "Letter", action: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(letter.at_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    told = {"id": letter.id, "port": port, "at": at, "why": letter.why, "outcome": letter.outcome}
    return told | ({"event": json.loads(bytes(letter.event))} if action == "show" else {})


def _since(row: dict[str, Any]) -> str:
    return f"  → {row['outcome']}" if row["outcome"] else ""


def _retry(options: argparse.Namespace, folder: Path, ports: dict[str, Path]) -> int:
    from boucle.cli.screen import Screen
    from boucle.loop.outputs import send_again
    from boucle.outlet.deadletters import ask, chosen, letters
    from boucle.product.project import load_project

    named = {name: place for name, place in ports.items() if not options.names or _any(place, options.names)}
    if options.names and not named:
        raise BoucleError(
            "B860", f"no dead letter is called {options.names[0]!r}", fix="boucle deadletters list"
        )
    asked = {name: chosen(place, options.names) for name, place in named.items()}
    requests = {name: ask(named[name], ids) for name, ids in asked.items() if ids}
    screen = Screen("en")
    until, failure = time.monotonic() + options.wait, ""
    project = load_project(options.product, options.env) if requests else None
    while any(one.exists() for one in requests.values()) and time.monotonic() < until:
        if project is not None:
            failure = send_again(project, folder, [name for name, one in requests.items() if one.exists()])
        screen.progress("waiting for the receiver" if failure else "waiting for the loop that runs")
        time.sleep(0.2)
    screen.done()
    became = {name: letters(named[name]) for name in named}
    told = [{"port": name, "id": one, "outcome": _outcome(became[name][one], requests[name])}
            for name, ids in asked.items() for one in ids]  # fmt: skip
    counts = {
        word: sum(one["outcome"] == word for one in told) for word in ("delivered", "refused", "waiting")
    }
    if options.json:
        print(
            json.dumps(
                {"asked": len(told), **counts, "failure": failure, "letters": told}, ensure_ascii=False
            )
        )
    else:
        for one in told:
            if one["outcome"] == "refused":
                print(f"  {one['id']}  {became[one['port']][one['id']].why}")
        print(f"{len(told)} asked for: {counts['delivered']} delivered, {counts['refused']} refused once more, "
              f"{counts['waiting']} wait{f' ({failure})' if failure else ''}")  # fmt: skip
    return 1 if counts["refused"] or counts["waiting"] else 0


def _outcome(letter: "Letter", request: Path) -> str:
    return letter.outcome if letter.outcome and not request.exists() else "waiting"
