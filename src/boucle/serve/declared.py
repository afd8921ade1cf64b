"""What a Score step declares beside its model, read and checked before anything is loaded."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.product.duration import seconds
from boucle.product.size import size

__all__ = [
    "Canary",
    "Constants",
    "Cost",
    "Declared",
    "Marks",
    "Previous",
    "PyfuncSpec",
    "Rule",
    "ShadowSpec",
    "WatchSpec",
]


class Canary(Struct, frozen=True, forbid_unknown_fields=True):
    """A model that decides for a share of the keys: those whose hash lies in the first `percent` of all hashes."""

    model: str
    percent: float
    key: str

    def threshold(self) -> int:
        """Hashes below it go to the canary, of 2⁶⁴."""
        return min(2**64, round(self.percent / 100 * 2**64))


class ShadowSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A model that scores beside the path and never acts."""

    model: str
    flips: dict[str, float] = {}
    """Output → threshold: how often the two models are on different sides of it is counted."""
    tolerance: float = 1e-6
    """Outputs that differ by no more agree."""
    queue: int = 64
    """Blocks that may wait for it; what comes on top is shed, and counted."""
    disagree: float | None = None
    """Share of rows whose outputs may differ by more than the tolerance."""
    flip: float | None = None
    """Share of rows that may lie on the other side of a threshold of `flips`."""
    alpha: float = 0.01
    """Chance to say that a limit is broken which is not, however long one looks."""
    holds: bool = True
    """Whether a version that broke a limit in the shadow is held back when it is made champion."""


class Marks(Struct, frozen=True, forbid_unknown_fields=True):
    """Columns that say how each row was scored; empty: no such column."""

    model: str = ""
    version: str = ""
    arm: str = ""
    fallback: str = ""
    """Why the model did not score the row; null where it did."""

    def columns(self) -> list[tuple[str, str]]:
        """(what it says, its column) of those that are declared."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if getattr(self, name)]


class Cost(Struct, frozen=True, forbid_unknown_fields=True):
    """What an hour of one processor costs."""

    per_cpu_hour: float
    currency: str = "EUR"


class WatchSpec(Struct, frozen=True, kw_only=True):
    """What is watched of a step that scores: latency, volume and cost of each window of `every`, of the loop's time.

    A figure is out when it breaks a declared limit, or (`usual`) lies further from the median of the last `history`
    windows than `sigmas` times their spread and `share` of that median.
    """

    every: float = 60.0
    p95: float = 0.0
    """Seconds a Block may take to be scored; 0: any."""
    rows: tuple[float, float] | None = None
    """Least and most rows of a window."""
    cost: float = 0.0
    """Of 1000 predictions, in the tariff's currency; 0: any."""
    usual: bool = True
    history: int = 30
    sigmas: float = 4.0
    share: float = 0.5


class PyfuncSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How versions that are no ONNX are run: by a child process (MLflow's `pyfunc`)."""

    python: str = ""
    """The interpreter of an environment that has what the model needs; empty: `[models] python` of boucle.toml."""
    outputs: tuple[str, ...] = ()
    """What its answers are called; empty: as its signature says."""
    start: float = 120.0
    """Seconds until it must have loaded the model."""
    hang: float = 5.0
    """Seconds after which a child that does not answer is killed; a shorter `deadline` lets rows fall back before."""


class Previous(Struct, frozen=True):
    """The version that was champion before scores instead."""


class Rule(Struct, frozen=True):
    """Outputs by expressions over the row's columns."""

    columns: dict[str, str]


class Constants(Struct, frozen=True):
    """Outputs that are always the same."""

    values: dict[str, float]


class Declared(Struct, frozen=True, kw_only=True):
    """A Score step's settings."""

    model: str
    shadow: ShadowSpec | None = None
    canary: Canary | None = None
    deadline: float = 0.0
    """Seconds; 0: the path waits for the model."""
    fallback: tuple[Previous | Rule | Constants, ...] = ()
    queue: int = 1
    """Blocks that may wait for a model that is late; those that come on top fall back at once."""
    memory: int = 0
    """Bytes that loading and warming a version may take; 0: any."""
    marks: Marks = Marks()
    cost: Cost | None = None
    watch: WatchSpec | None = None
    pyfunc: PyfuncSpec = PyfuncSpec()

    def outputs(self) -> list[str]:
        """The outputs that fallbacks name: what there is while no model could be loaded."""
        names: dict[str, None] = {}
        for one in self.fallback:
            given = one.columns if isinstance(one, Rule) else one.values if isinstance(one, Constants) else {}
            names |= dict.fromkeys(given)
        return list(names)

    @classmethod
    def read(cls, stream: str, model: Any, told: Mapping[str, Any]) -> "Declared":
        """Check and convert; B650 says which setting is wrong and how it is written."""
        try:
            shadow = told.get("shadow")
            shadow = {"model": shadow} if isinstance(shadow, str) else shadow
            found = cls(
                model=str(model),
                shadow=None if shadow is None else msgspec.convert(shadow, ShadowSpec),
                canary=None if told.get("canary") is None else msgspec.convert(told["canary"], Canary),
                deadline=seconds(told["deadline"]) if told.get("deadline") else 0.0,
                fallback=tuple(_fallback(one) for one in _listed(told.get("fallback"))),
                queue=msgspec.convert(told.get("queue", 1), int),
                memory=size(told["memory"]) if told.get("memory") else 0,
                marks=msgspec.convert(told.get("marks") or {}, Marks),
                cost=None if told.get("cost") is None else msgspec.convert(told["cost"], Cost),
                watch=None if told.get("watch") is None else _watch(told["watch"]),
                pyfunc=_pyfunc(told.get("pyfunc") or {}),
            )
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise _wrong(stream, str(error)) from error
        if found.canary is not None and not 0 <= found.canary.percent <= 100:
            raise _wrong(stream, f"canary.percent is {found.canary.percent}, not 0 to 100")
        if found.shadow is not None:
            _check_shadow(stream, found.shadow)
        if found.watch and found.watch.cost and found.cost is None:
            raise _wrong(stream, "watch.cost needs a tariff: cost: {per_cpu_hour: 0.04}")
        if found.queue < 1 or (found.shadow is not None and found.shadow.queue < 1):
            raise _wrong(stream, "queue is less than 1")
        if any(isinstance(one, Previous) for one in found.fallback[1:]):
            raise _wrong(stream, "previous stands first among fallbacks, or nowhere")
        return found


def _check_shadow(stream: str, shadow: ShadowSpec) -> None:
    if any(one is not None and not 0 <= one < 1 for one in (shadow.disagree, shadow.flip)):
        raise _wrong(stream, "shadow.disagree and shadow.flip are shares of rows, 0 to less than 1")
    if not 0 < shadow.alpha < 1 or (shadow.flip is not None and not shadow.flips):
        raise _wrong(stream, "shadow.alpha lies between 0 and 1; shadow.flip needs a threshold in flips")


def _watch(told: Any) -> WatchSpec:
    given = {} if told is True else dict(told)
    if unknown := sorted(given.keys() - set(WatchSpec.__struct_fields__)):
        raise ValueError(f"watch has no {', '.join(unknown)}")
    times = {name: seconds(given[name]) for name in ("every", "p95") if name in given}
    found = msgspec.convert({**given, **times}, WatchSpec)
    low, high = found.rows or (0, 1)
    if found.every <= 0 or found.history < 5 or found.sigmas <= 0 or found.share < 0 or not 0 <= low < high:
        raise ValueError("watch: every and sigmas above 0, history 5 or more, rows: [least, most]")
    return found


def _pyfunc(told: Any) -> PyfuncSpec:
    times = {name: seconds(told[name]) for name in ("start", "hang") if name in told}
    found = msgspec.convert({**told, **times}, PyfuncSpec)
    if found.start <= 0 or found.hang <= 0:
        raise ValueError("pyfunc.start and pyfunc.hang are longer than nothing")
    return found


def _listed(told: Any) -> list[Any]:
    return told if isinstance(told, list) else [] if told is None else [told]


def _fallback(told: Any) -> Previous | Rule | Constants:
    if told == "previous":
        return Previous()
    if isinstance(told, Mapping) and len(told) == 1:
        if "rule" in told:
            return Rule(msgspec.convert(told["rule"], dict[str, str]))
        if "constants" in told:
            return Constants(msgspec.convert(told["constants"], dict[str, float]))
    raise ValueError(f"{told!r} is no fallback")


def _wrong(stream: str, why: str) -> BoucleError:
    return BoucleError(
        "B650",
        f"{stream}: how it is to be scored cannot be read",
        why=why,
        fix="shadow: models:NAME@challenger; canary: {model, percent, key}; deadline: 20ms; "
        "fallback: [previous, {rule: {output: expression}}, {constants: {output: 0.5}}]; queue: 1; memory: 200MB; "
        "marks: {model, version, arm, fallback: column}; cost: {per_cpu_hour: 0.04, currency: EUR}; "
        "watch: {every: 1min, p95: 20ms, rows: [100, 5000], cost: 0.002}; "
        "pyfunc: {python: path, outputs: [name], start: 120s, hang: 5s}",
    )
