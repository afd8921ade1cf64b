"""The model card (Mitchell et al. 2019): what a model is for, learnt from, good at, and not good at; and its plots."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from boucle.models.file import Manifest
from boucle.models.record import Record

__all__ = ["card", "plots"]

_WIDTH, _HEIGHT, _EDGE = 320, 240, 36


def card(record: Record, manifest: Manifest) -> dict[str, bytes]:
    """`card.md` and `card.json`."""
    spec = record.spec
    told: dict[str, Any] = {
        "name": record.name,
        "purpose": spec.purpose,
        "owner": spec.owner,
        "limits": spec.limits,
        "algorithm": spec.algorithm,
        "parameters": record.parameters,
        "task": spec.task,
        "trained": record.created,
        "inputs": [one.name for one in manifest.inputs],
        "outputs": [one.name for one in manifest.outputs],
        "data": {one: msgspec.to_builtins(version) for one, version in record.data.items()},
        "rows": record.rows,
        "metrics": record.metrics,
        "baselines": record.baselines,
        "slices": record.slices,
        "drift": record.drift,
    }
    content = msgspec.json.format(msgspec.json.encode(told), indent=1)
    return {"card.json": content + b"\n", "card.md": _markdown(record, manifest).encode()}


def _markdown(record: Record, manifest: Manifest) -> str:
    spec = record.spec
    rows = record.rows
    lines = [
        f"# {record.name}",
        "",
        spec.purpose or "Its purpose is not declared.",
        "",
        f"- Owner: {spec.owner or 'not declared'}",
        f"- Limits: {spec.limits or 'not declared'}",
        f"- {spec.algorithm}, {spec.task} of `{spec.label.column}`, trained {record.created}",
        f"- SHA-256 of the ONNX file: `{record.sha256}`",
        f"- Learnt from {rows['train']} rows, measured on {rows['test']} newer ones",
        f"- {rows['incomplete']} rows left out because a feature was not known",
        "",
        "## Data",
        "",
        *(
            f"- `{name}`: "
            + (f"version {one.version}, " if one.version >= 0 else "")
            + f"{one.rows} rows, digest `{one.digest[:16]}`"
            for name, one in record.data.items()
        ),
        f"- Features: {', '.join(f'`{one.name}`' for one in manifest.inputs)}",
        "",
        "## Figures on rows it has not seen",
        "",
        *_table(["", *record.metrics], [["the model", *record.metrics.values()], *_below(record)]),
    ]
    for column, values in record.slices.items():
        names = sorted({one for told in values.values() for one in told} - {"rows"})
        lines += ["", f"## By {column}", ""]
        shown = [[value, told["rows"], *(told.get(one) for one in names)] for value, told in values.items()]
        lines += _table([column, "rows", *names], shown)
    lines += ["", "## Shift of the features from training to held-out rows (PSI)", ""]
    lines += _table(["feature", "PSI"], sorted(record.drift.items(), key=lambda one: -one[1]))
    return "\n".join(lines) + "\n"


def _below(record: Record) -> list[list[Any]]:
    return [[name, *(told.get(one) for one in record.metrics)] for name, told in record.baselines.items()]


def _table(names: list[str], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(_cell(one) for one in row)} |" for row in rows]
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def plots(task: str, truth: NDArray[np.float64], found: NDArray[np.float64]) -> Mapping[str, bytes]:
    """Small SVG pictures: calibration and ROC curve of a classification; truth against answer of a regression."""
    if task == "regression":
        order = np.argsort(truth, kind="stable")[:: max(1, len(truth) // 300)]
        low = float(min(truth.min(), found.min()))
        span = float(max(truth.max(), found.max())) - low or 1.0
        points = [
            ((t - low) / span, (f - low) / span) for t, f in zip(truth[order], found[order], strict=True)
        ]
        return {"truth.svg": _picture("truth →, model ↑", points, f"{low:.3g} … {low + span:.3g}")}
    said = np.clip((found * 10).astype(int), 0, 9)
    held = [
        (float(found[said == part].mean()), float(truth[said == part].mean()))
        for part in range(10)
        if (said == part).any()
    ]
    order = np.argsort(-found, kind="stable")
    yes = truth[order] > 0.5
    true, false = np.cumsum(yes) / max(1, yes.sum()), np.cumsum(~yes) / max(1, (~yes).sum())
    step = max(1, len(true) // 200)
    curve = list(zip(false[::step].tolist(), true[::step].tolist(), strict=True))
    return {
        "calibration.svg": _picture("said →, happened ↑", held, "0 … 1"),
        "roc.svg": _picture("false alarms →, found ↑", curve, "0 … 1"),
    }


def _picture(title: str, points: list[tuple[float, float]], scale: str) -> bytes:
    """Points between 0 and 1 in a frame, with the diagonal."""
    wide, high = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE

    def place(x: float, y: float) -> tuple[str, str]:
        return f"{_EDGE + x * wide:.1f}", f"{_HEIGHT - _EDGE - y * high:.1f}"

    (left, bottom), (right, top) = place(0, 0), place(1, 1)
    marks = "".join(f'<circle cx="{x}" cy="{y}" r="2.2"/>' for x, y in (place(*point) for point in points))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="11" '
        f'font-family="sans-serif"><rect x="{left}" y="{top}" width="{wide}" height="{high}" fill="none" '
        f'stroke="#888"/><line x1="{left}" y1="{bottom}" x2="{right}" y2="{top}" stroke="#bbb"/>'
        f'<g fill="#246">{marks}</g><text x="{left}" y="{_HEIGHT - 12}">{title} ({scale})</text></svg>\n'
    ).encode()
