"""What an MLflow run tells of a training, and the history of roles, in the words of MLflow's REST API.

A run holds the parameters, every figure (the held-out ones, each trial of the search as a step, baselines, slices,
drift), the code's commit and the libraries as tags, and the data as dataset inputs with their digests.
"""

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from boucle.models.file import Manifest
from boucle.models.registry import Change

__all__ = ["Run", "history_of", "next_page", "run_of"]

_HISTORY = "boucle.history"
_TAG = 4_500
"""Characters of a tag that every MLflow store takes."""
_PARAM, _KEY = 6_000, 250
_METRICS, _PARAMS = 1_000, 100
"""How many of them one call of `runs/log-batch` takes."""


class Run(Struct, frozen=True):
    """What is logged of one training."""

    params: list[dict[str, str]]
    metrics: list[dict[str, Any]]
    tags: list[dict[str, str]]
    datasets: list[dict[str, Any]]

    def batches(self) -> Iterator[dict[str, Any]]:
        """Calls of `runs/log-batch` that are within its limits."""
        for name, told, most in (
            ("params", self.params, _PARAMS), ("metrics", self.metrics, _METRICS), ("tags", self.tags, _PARAMS)
        ):  # fmt: skip
            for begin in range(0, len(told), most):
                yield {name: told[begin : begin + most]}


def run_of(manifest: Manifest, record: bytes) -> Run:
    """What is told of a model; of one without a training record only what its manifest says."""
    try:
        told = msgspec.json.decode(record) if record else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        told = {}
    told = told if isinstance(told, dict) else {}
    at = time.time_ns() // 1_000_000
    figures = list(_figures(told, manifest))
    tags = {"boucle.sha256": manifest.sha256, **_tags(told)}
    return Run(
        params=[
            {"key": _key(name), "value": str(value)[:_PARAM]} for name, value in _parameters(told).items()
        ],
        metrics=[
            {"key": _key(name), "value": float(value), "timestamp": at, "step": step}
            for name, value, step in figures
        ],
        tags=[{"key": _key(name), "value": str(value)[:_TAG]} for name, value in tags.items()],
        datasets=[_dataset(table, one) for table, one in _mapping(told.get("data")).items()],
    )


def _parameters(told: Mapping[str, Any]) -> dict[str, Any]:
    spec = _mapping(told.get("spec"))
    declared = {name: spec[name] for name in ("algorithm", "task", "metric") if spec.get(name)}
    views = [str(_mapping(one).get("name", "")) for one in _list(told.get("views"))]
    extra = {"seed": told.get("seed"), "cut": told.get("cut"), "views": ", ".join(views) or None}
    known = {**declared, **{name: value for name, value in extra.items() if value is not None}}
    return {**known, **_mapping(told.get("parameters"))}


def _figures(told: Mapping[str, Any], manifest: Manifest) -> Iterator[tuple[str, float, int]]:
    """(name, value, step) of every figure that is a number."""
    for name, value in _numbers(told.get("metrics") or manifest.metrics):
        yield name, value, 0
    searched = _mapping(told.get("searched"))
    for step, trial in enumerate(_list(searched.get("trials"))):
        for _, value in _numbers({"score": _mapping(trial).get("score")}):
            yield f"search_{searched.get('metric', 'score')}", value, step
    for baseline, figures in _mapping(told.get("baselines")).items():
        yield from ((f"baseline/{baseline}/{name}", value, 0) for name, value in _numbers(figures))
    for column, values in _mapping(told.get("slices")).items():
        for group, figures in _mapping(values).items():
            yield from ((f"slice/{column}/{group}/{name}", value, 0) for name, value in _numbers(figures))
    yield from ((f"psi/{name}", value, 0) for name, value in _numbers(told.get("drift")))
    yield from ((f"rows/{name}", value, 0) for name, value in _numbers(told.get("rows")))
    yield from ((name, value, 0) for name, value in _numbers({"seconds": told.get("seconds")}))


def _tags(told: Mapping[str, Any]) -> dict[str, str]:
    code = _mapping(told.get("code"))
    tags = {f"boucle.data.{table}": _mapping(one).get("digest", "") for table, one in
            _mapping(told.get("data")).items()}  # fmt: skip
    tags |= {f"boucle.environment.{name}": value for name, value in _mapping(told.get("environment")).items()}
    if code.get("commit"):
        tags |= {"mlflow.source.git.commit": code["commit"], "boucle.code.changed": str(code.get("changed"))}
    owner = _mapping(told.get("spec")).get("owner")
    return {**tags, **({"boucle.owner": owner} if owner else {})}


def _dataset(table: str, told: Any) -> dict[str, Any]:
    """A table that was learnt from, with its digest (MLflow takes 36 characters) and version."""
    one = _mapping(told)
    source = {"table": table, "version": one.get("version"), "digest": one.get("digest")}
    return {
        "tags": [{"key": "mlflow.data.context", "value": "training"}],
        "dataset": {
            "name": table[:500],
            "digest": str(one.get("digest", ""))[:36],
            "source_type": "boucle",
            "source": msgspec.json.encode(source).decode(),
            "profile": msgspec.json.encode({"num_rows": one.get("rows")}).decode(),
        },
    }


def history_of(tags: Sequence[Mapping[str, Any]]) -> tuple[Change, ...]:
    """Every change that was made through here, oldest first; tags that somebody else wrote are passed over."""
    found: list[Change] = []
    for _, text in _pages(tags):
        try:
            found += msgspec.json.decode(text, type=tuple[Change, ...])
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return tuple(found)


def next_page(tags: Sequence[Mapping[str, Any]], change: Change) -> tuple[str, str]:
    """The tag, and its text, that a change is written to: the last one while there is room, else a new one.

    Evidence that fills more than a tag is left out, and that is said.
    """
    pages = _pages(tags)
    number, text = pages[-1] if pages else (0, "[]")
    try:
        before = msgspec.json.decode(text, type=tuple[Change, ...])
    except (msgspec.DecodeError, UnicodeDecodeError):  # somebody else wrote it
        before, number = (), number + 1
    together = msgspec.json.encode((*before, change)).decode()
    if len(together) <= _TAG:
        return _page(number), together
    alone = msgspec.json.encode((change,)).decode()
    if len(alone) > _TAG:
        left_out = {"left_out": f"{len(alone)} characters"}
        short = msgspec.structs.replace(change, why=change.why[:1_000], evidence=left_out)
        alone = msgspec.json.encode((short,)).decode()
    return _page(number + 1 if before else number), alone


def _pages(tags: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    found = []
    for one in tags:
        match = re.fullmatch(rf"{re.escape(_HISTORY)}(?:\.([0-9]{{1,6}}))?", str(one.get("key")))
        if match:
            found.append((int(match[1] or 0), str(one.get("value", ""))))
    return sorted(found)


def _page(number: int) -> str:
    return f"{_HISTORY}.{number}" if number else _HISTORY


def _key(name: str) -> str:
    """A key that MLflow takes: letters, digits, `_ - . / :` and spaces."""
    return re.sub(r"[^\w\-./: ]", "_", name)[:_KEY]


def _numbers(told: Any) -> Iterator[tuple[str, float]]:
    for name, value in _mapping(told).items():
        if isinstance(value, int | float) and math.isfinite(value):
            yield str(name), float(value)


def _list(told: Any) -> list[Any]:
    return told if isinstance(told, list) else []


def _mapping(told: Any) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}
