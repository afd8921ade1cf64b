"""`boucle state`: what the last checkpoint of a run holds."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boucle.cli.screen import choose_language
from boucle.errors import BoucleError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle state`."""
    parser.add_argument("run", nargs="?", default="run", type=Path, help="the run's folder (default: run)")
    parser.add_argument("--step", metavar="ID", help="only this step")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="what is remembered of this key; several columns: --key line=a --key press=2",
    )
    parser.add_argument(
        "--product",
        type=Path,
        metavar="FOLDER",
        help="the product's folder, where it has operators or models of its own",
    )
    parser.add_argument("--sizes", action="store_true", help="only sizes: no step is rebuilt from its state")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: {taken_at, plan, sources, steps}"
    )
    parser.add_argument(
        "--lang", choices=["en", "fr"], help="language of the screens (default: the locale's)"
    )
    parser.epilog = (
        "examples:\n  boucle state run/demo-press\n  boucle state --json | jq '.steps[].bytes'\n"
        "  boucle state run/cards --step features --key card=42"
    )


def run(options: argparse.Namespace) -> int:
    """Print the checkpoint: when, how far each source was worked through, and each step's state."""
    told = _told(options)
    if options.json:
        print(json.dumps(told, ensure_ascii=False, default=str))
    else:
        print("\n".join(_lines(told, _WORDS[choose_language(options.lang)])))
    return 0


def _told(options: argparse.Namespace) -> dict[str, Any]:
    from boucle.loop.checkpoint import read_checkpoint

    while True:
        kept = read_checkpoint(options.run / "checkpoint")
        try:
            return _read(options, kept)
        except BoucleError as error:
            # A run that goes on has written its next checkpoint meanwhile, and removed what this one was made of.
            newer = read_checkpoint(options.run / "checkpoint")
            if error.code != "B601" or newer is None or kept is None or newer.checkpoint == kept.checkpoint:
                raise


def _read(options: argparse.Namespace, kept: Any) -> dict[str, Any]:
    if kept is None:
        fix = "give the folder of a run (`boucle run` and `boucle demo` say it), or wait for its first checkpoint"
        raise BoucleError("B808", "there is no checkpoint", where=str(options.run), fix=fix)
    checkpoint = kept.checkpoint
    if options.step is not None and options.step not in kept.state:
        fix = f"one of: {', '.join(kept.state)}"
        raise BoucleError("B816", f"there is no step {options.step!r}", where=str(options.run), fix=fix)
    chosen = list(kept.state) if options.step is None else [options.step]
    return {
        "taken_at": datetime.fromtimestamp(checkpoint.taken_at / 1e9, UTC).isoformat(timespec="milliseconds"),
        "plan": checkpoint.plan,
        "sources": {name: position.offset for name, position in checkpoint.positions.items()},
        "steps": [_step(options, kept, step) for step in chosen],
    }


def _step(options: argparse.Namespace, kept: Any, step: str) -> dict[str, Any]:
    from boucle.loop.shards import stored_groups

    declared, sizes = kept.checkpoint.steps.get(step, {}), kept.state[step].sizes
    told = {
        "id": step,
        "use": declared.get("use", ""),
        "bytes": sum(sizes.values()),
        "parts": len(sizes),
        "groups": stored_groups(sizes) if declared.get("by") else {},
    }
    if not options.sizes:
        told |= _contents(options, kept, step)
    return told


def _contents(options: argparse.Namespace, kept: Any, step: str) -> dict[str, Any]:
    from boucle.loop.inside import describe_step

    key = dict(item.partition("=")[::2] for item in options.key)
    try:
        said = describe_step(kept, step, options.run, options.product, key or None)
    except BoucleError as error:
        if options.step is not None or error.code != "B815":
            raise
        return {"contents": {}, "unknown": f"{error.why}; {error.fix}"}
    for name in ("oldest", "newest"):
        if name in said:
            said[name] = _moment(said[name])
    for row in said.get("remembered", []):
        row.update({name: _moment(row[name]) for name in _TIMES if name in row})
    return {"contents": said}


_TIMES = ("at", "window_start", "window_end", "newest")


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).isoformat(timespec="milliseconds")


_WORDS = {
    "en": {
        "head": "checkpoint of {taken_at}, plan {plan}", "source": "worked through up to row {offset}",
        "bytes": "{bytes:,} bytes in {parts} parts", "keys": "{keys:,} keys",
        "windows": "{open_windows:,} open windows",
        "waiting": "{waiting_rows:,} rows wait", "times": "event times from {oldest} to {newest}",
        "groups": "{count} key groups; the largest: {largest}", "unknown": "contents unknown: {unknown}",
        "nothing": "nothing is remembered of this key",
    },
    "fr": {
        "head": "point de reprise du {taken_at}, plan {plan}", "source": "traitée jusqu'à la ligne {offset}",
        "bytes": "{bytes:,} octets en {parts} parties", "keys": "{keys:,} clés",
        "windows": "{open_windows:,} fenêtres ouvertes", "waiting": "{waiting_rows:,} lignes en attente",
        "times": "temps d'événement de {oldest} à {newest}",
        "groups": "{count} groupes de clés ; les plus grands : {largest}", "unknown": "contenu inconnu : {unknown}",
        "nothing": "rien n'est retenu de cette clé",
    },
}  # fmt: skip


def _lines(told: dict[str, Any], words: dict[str, str]) -> list[str]:
    lines = [words["head"].format(**told)]
    for name, offset in told["sources"].items():
        lines.append(f"  ▶ {name}  {words['source'].format(offset=offset)}")
    for one in told["steps"]:
        lines.append(f"  ├ {one['id']}  {words['bytes'].format(**one)}  {one['use']}")
        lines += [f"  │   {line}" for line in _step_lines(one, words)]
    return lines


def _step_lines(one: dict[str, Any], words: dict[str, str]) -> list[str]:
    said = one.get("contents", {})
    known = [("keys", "keys"), ("open_windows", "windows"), ("waiting_rows", "waiting"), ("oldest", "times")]
    counts = [words[word].format(**said) for name, word in known if name in said]
    lines = [", ".join(counts)] if counts else []
    if "unknown" in one:
        lines.append(words["unknown"].format(**one))
    if groups := one["groups"]:
        most = sorted(groups, key=lambda group: groups[group], reverse=True)[:3]
        largest = ", ".join(
            words["bytes"].partition(" ")[0].format(bytes=groups[g]) + f" ({g})" for g in most
        )
        lines.append(words["groups"].format(count=len(groups), largest=largest))
    rows = said.get("remembered", [])
    lines += [", ".join(f"{name}={value}" for name, value in row.items()) for row in rows]
    if said.get("remembered") == []:
        lines.append(words["nothing"])
    return lines
