"""`boucle slo`: how the objectives of a run stand, from its history."""

import argparse
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from boucle.errors import BoucleError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle slo`."""
    parser.add_argument(
        "--run", default="run", type=Path, metavar="RUN", help="the run's folder (default: run)"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: {product, at, objectives, lifetimes}"
    )
    parser.epilog = (
        "examples:\n  boucle slo\n  boucle slo --run run/demo-press\n"
        "  boucle slo --json | jq '.objectives[] | select(.left < 0.2) | .id'"
    )


def run(options: argparse.Namespace) -> int:
    """Print each objective: compliance, budget left, how fast it burns, when it would be spent."""
    told = _told(options.run)
    print(json.dumps(told, ensure_ascii=False) if options.json else "\n".join(_lines(told)))
    return 0


def _told(folder: Path) -> dict[str, Any]:
    from boucle.loop.slo import views_of
    from boucle.quality.slo.history import read_past

    past = read_past(folder)
    if past is None:
        why = "its product promises nothing of its service, or it never ran"
        fix = "declare slaProperties in the DataContract, and give the folder of a run"
        raise BoucleError("B472", "there are no objectives", where=str(folder), why=why, fix=fix)
    return {
        "product": past.product,
        "at": _moment(past.at),
        "objectives": [_plain(one) for one in views_of(past)],
        "lifetimes": [{"name": one.name, "at": _moment(one.at)} for one in past.sla.lifetimes],
    }


def _plain(view: Any) -> dict[str, Any]:
    told = {name: getattr(view, name) for name in view.__struct_fields__ if name not in {"burns", "history"}}
    for name in ("compliance", "exhausts_s"):
        told[name] = told[name] if math.isfinite(told[name]) else None
    told["burns"] = {
        burn.name: {"limit": burn.limit, "long": burn.long, "short": burn.short, "fires": burn.fires}
        for burn in view.burns
    }
    told["history"] = [{"ago_s": ago, "good": share} for ago, share in view.history]
    return told


def _lines(told: dict[str, Any]) -> list[str]:
    from boucle.loop.slo import in_words

    rows = [("objective", "of", "target", "window", "good", "budget left", "burn", "spent in", "alerts")]
    for one in told["objectives"]:
        fires = [name for name, burn in one["burns"].items() if burn["fires"]]
        rows.append(
            (
                one["id"],
                f"{one['measure']} {one['element']}".strip(),
                _percent(one["target"]),
                in_words(one["window_s"]),
                _percent(one["compliance"]),
                f"{100 * one['left']:.0f} %",
                f"{one['burns']['fast']['long']:.3g} ×",
                "–" if one["exhausts_s"] is None else in_words(one["exhausts_s"]),
                ", ".join(fires) or "–",
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines += [f"{one['name']}: {one['at'][:10]}" for one in told["lifetimes"]]
    return [f"{told['product']}, {told['at']}", *lines]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.4g} %"


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).isoformat()
