"""`boucle state`: what the last checkpoint of a run holds."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle state`."""
    parser.add_argument("run", nargs="?", default="run", type=Path, help="the run's folder (default: run)")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: {taken_at, plan, sources, steps}"
    )
    parser.epilog = "examples:\n  boucle state run/demo-press\n  boucle state --json | jq '.steps[].bytes'"


def run(options: argparse.Namespace) -> int:
    """Print the checkpoint: when, how far each source was worked through, and each step's state."""
    from boucle.loop.checkpoint import read_checkpoint
    from boucle.loop.shards import stored_groups

    kept = read_checkpoint(options.run / "checkpoint")
    if kept is None:
        fix = "give the folder of a run (`boucle run` and `boucle demo` say it), or wait for its first checkpoint"
        raise BoucleError("B808", "there is no checkpoint", where=str(options.run), fix=fix)
    checkpoint = kept.checkpoint
    steps = []
    for step, parts in kept.state.items():
        declared = checkpoint.steps.get(step, {})
        groups = stored_groups(parts.sizes) if declared.get("by") else {}
        size = sum(parts.sizes.values())
        steps.append({"id": step, "use": declared.get("use", ""), "bytes": size, "groups": groups})
    taken = datetime.fromtimestamp(checkpoint.taken_at / 1e9, UTC).isoformat(timespec="milliseconds")
    sources = {name: position.offset for name, position in checkpoint.positions.items()}
    told: dict[str, Any] = {"taken_at": taken, "plan": checkpoint.plan, "sources": sources, "steps": steps}
    if options.json:
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print(f"checkpoint of {taken}, plan {checkpoint.plan}")
    for name, offset in sources.items():
        print(f"  ▶ {name}  worked through up to row {offset}")
    for one in steps:
        print(f"  ├ {one['id']}  {one['bytes']:,} bytes  {one['use']}")
        if one["groups"]:
            largest = max(one["groups"], key=lambda group: one["groups"][group])
            print(
                f"  │   {len(one['groups'])} key groups; the largest, {largest}: {one['groups'][largest]:,} bytes"
            )
    return 0
