"""A canary on trial: outcomes of both arms compared until the evidence suffices, then promotion or the trial's end.

The outcomes may come days later; whatever joins them to the scored rows stands before this step. What it decides
depends on its rows only, so a replay decides the same; carrying it out is done beside the path, once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Struct, field

from boucle.block import Block, as_rows, in_nanos
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.models.registry import Reference, Registry, registry_of
from boucle.ports import Traced
from boucle.quality.key_hash import keys_of
from boucle.serve.alerts import Tell
from boucle.serve.decisions import Decisions, promoted
from boucle.serve.evidence import Evidence
from boucle.serve.follow import CANARY, CHAMPION
from boucle.stream.expression import Expression, Typed, column_of
from boucle.stream.origin import Inputs, every, one_of
from boucle.stream.sequence import state_of

__all__ = ["Trial"]

_VERSION = 1
_SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("ns", "UTC")),
        pa.field("model", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("champion", pa.string()),
        pa.field("challenger", pa.string()),
        pa.field("pairs", pa.int64()),
        pa.field("champion_loss", pa.float64()),
        pa.field("challenger_loss", pa.float64()),
        pa.field("mean_difference", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("alpha", pa.float64()),
    ]
)


class _State(Struct):
    """Of the pair that is compared now: outcomes and losses per arm, those not paired yet, the evidence."""

    evidence: Evidence
    versions: dict[str, str] = {}
    known: dict[str, list[str]] = field(default_factory=lambda: {CHAMPION: [], CANARY: []})
    counts: dict[str, int] = {}
    losses: dict[str, float] = {}
    waiting: dict[str, list[float]] = {}
    """Arm → (sum, count) of the losses since the last pair."""
    units: set[int] = set()
    """Hashes of the units that were counted."""
    thinned: int = 0
    """How often the units were halved: those count whose hash ends in as many zeros."""
    passed: int = 0
    """Outcomes of units that no longer count because there are too many."""
    decision: dict[str, Any] = {}
    """The row that was told, once there is one."""
    stale: int = 0
    """Outcomes of versions that are no longer compared."""
    clipped: int = 0
    """Losses outside of [0, 1], taken as the nearest of the two."""
    repeated: int = 0
    """Outcomes of a unit that was counted before."""


class Trial:
    """Compares the losses of `champion` and `canary` and decides `promote` or `rollback`.

    Every row has its `arm` and `version` (the marks of a Score step) and a `loss`, an expression within [0, 1] where
    less is better: `abs(fraud - probability)`. Outcomes are paired as they come: the mean of one arm's since the
    last pair against the mean of the other's. With `unit` only the first outcome of each key counts, so that one
    card's many payments are one witness. At most `units` of them are remembered, 100 bytes each: once there are more,
    every second one, by its hash, counts no longer, and so on. No unit ever counts twice and which ones count has
    nothing to do with their outcomes, so the evidence stays as sure as it says; it only grows more slowly.

    The chance to promote a version that is not better by more than `margin`, or to end the trial of one that is not
    worse, is at most `alpha` each, however long it takes; at least `least` pairs are waited for. `approval: true` asks
    a person instead of acting.
    """

    def __init__(
        self,
        stream: str,
        *,
        model: str,
        loss: str,
        folder: str | Path = ".",
        arm: str = "arm",
        version: str = "version",
        time: str = "at",
        unit: str = "",
        units: int = 200_000,
        alpha: float = 0.01,
        margin: float = 0.0,
        least: int = 100,
        approval: bool = False,
    ) -> None:
        self._stream, self._folder = stream, Path(folder)
        self._name = Reference.parse(model).name
        self._loss, self._arm, self._of, self._time, self._unit = Expression(loss), arm, version, time, unit
        if not (0 < alpha < 1 and 0 <= margin < 1 and least >= 1 and units >= 2):
            what = f"{stream}: alpha {alpha}, margin {margin}, least {least}, units {units}"
            fix = "0 < alpha < 1, 0 <= margin < 1, least >= 1 and units >= 2 can be decided by"
            raise BoucleError("B657", what, fix=fix)
        self._units = units
        self._alpha, self._margin, self._approval = alpha, margin, approval
        self.least = least
        self._schema: pa.Schema | None = None
        self._typed: Typed | None = None
        self.state = _State(Evidence(alpha, margin))
        self._registry: Registry | None = None
        self._decisions = Decisions(f"boucle trial {stream}", self._act, _says)

    @classmethod
    def trace(cls, inputs: Inputs, **declared: Any) -> Traced:
        """A decision is made of all outcomes."""
        del declared
        made = every(inputs, f"compared by a trial of {one_of(inputs)}")
        return Traced(dict.fromkeys(_SCHEMA.names, made))

    def step(self, block: Block) -> Sequence[Block]:
        """One row per decision."""
        rows = self._rows(block.rows) if block.rows.num_rows else []
        return (Block(self._stream, as_rows(rows, _SCHEMA), block.watermark, block.position),)

    def _rows(self, rows: pa.RecordBatch) -> list[dict[str, Any]]:
        if self._typed is None or self._schema != rows.schema:
            self._schema, self._typed = rows.schema, self._loss.bind(rows.schema)
        losses = column_of(self._typed, rows).cast(pa.float64()).to_numpy(zero_copy_only=False)
        units = keys_of([rows.column(self._unit)])[0].tolist() if self._unit else None
        arms, versions = rows.column(self._arm).to_pylist(), rows.column(self._of).to_pylist()
        told = []
        for place in np.flatnonzero(np.isfinite(losses)).tolist():
            arm, version = arms[place], versions[place]
            if arm not in (CHAMPION, CANARY) or not version:
                continue
            if self._take(arm, version, float(losses[place]), None if units is None else units[place]):
                told.append(self._decide(in_nanos(rows.column(self._time))[place].as_py()))
        return told

    def _take(self, arm: str, version: str, loss: float, unit: int | None) -> bool:
        """Count an outcome; whether the evidence suffices now."""
        state = self.state
        if state.versions.get(arm) != version:
            if version in state.known[arm]:
                state.stale += 1
                return False
            state = self._begin(arm, version)
        if state.decision:
            return False
        if unit is not None and not self._witness(state, unit):
            return False
        if not 0.0 <= loss <= 1.0:
            state.clipped += 1
            loss = min(1.0, max(0.0, loss))
        state.counts[arm] = state.counts.get(arm, 0) + 1
        state.losses[arm] = state.losses.get(arm, 0.0) + loss
        waiting = state.waiting.setdefault(arm, [0.0, 0.0])
        waiting[0] += loss
        waiting[1] += 1
        if len(state.waiting) < 2:
            return False
        one, other = state.waiting[CHAMPION], state.waiting[CANARY]
        state.waiting = {}
        state.evidence.add(np.array([one[0] / one[1] - other[0] / other[1]]))
        return bool(state.evidence.verdict) and state.evidence.count >= self.least

    def _witness(self, state: _State, unit: int) -> bool:
        """Whether this outcome is the first of a unit that counts."""
        # The low bits: a canary is chosen by the high ones, and both arms must lose units alike.
        if unit & ((1 << state.thinned) - 1):
            state.passed += 1
            return False
        if unit in state.units:
            state.repeated += 1
            return False
        state.units.add(unit)
        while len(state.units) > self._units:
            state.thinned += 1
            state.units = {one for one in state.units if not one & ((1 << state.thinned) - 1)}
        return True

    def _begin(self, arm: str, version: str) -> _State:
        """Another version plays this arm: what was seen of the pair before says nothing about the new one."""
        before = self.state
        if arm not in before.versions:
            before.versions[arm] = version
            before.known[arm].append(version)
            return before
        self.state = _State(Evidence(self._alpha, self._margin), stale=before.stale)
        self.state.versions = {**before.versions, arm: version}
        self.state.known = before.known
        self.state.known[arm].append(version)
        return self.state

    def _decide(self, at: Nanos) -> dict[str, Any]:
        state = self.state
        told = state.evidence.told()
        row = {
            "at": at,
            "model": self._name,
            "decision": "promote" if state.evidence.verdict == "better" else "rollback",
            "champion": state.versions.get(CHAMPION),
            "challenger": state.versions.get(CANARY),
            "champion_loss": state.losses[CHAMPION] / state.counts[CHAMPION],
            "challenger_loss": state.losses[CANARY] / state.counts[CANARY],
            **{name: told[name] for name in ("pairs", "mean_difference", "low", "high", "alpha")},
        }
        state.decision = row
        self._decisions.put(row)
        return row

    # ── carrying it out ───────────────────────────────────────────────────────────────────────

    def attach(self, folder: Path, tell: Tell) -> None:
        """`tell` hears of every decision. Before `restore`."""
        del folder
        self._decisions.tell = tell

    def live(self) -> None:
        """Carry out what was decided, from now on."""
        self._decisions.live()

    def _act(self, row: dict[str, Any]) -> str:
        """Promote or end the trial, unless somebody has changed the roles meanwhile; what became of it."""
        if self._registry is None:
            self._registry = registry_of(self._folder)
        roles, version = self._registry.roles(self._name).roles, int(row["challenger"])
        if roles.get("champion") == version and row["decision"] == "promote":
            return "done before"
        if roles.get("challenger") != version:
            return "overtaken"
        if self._approval:
            return "waits for approval"
        evidence = {key: one for key, one in row.items() if key not in {"model", "decision"}}
        if row["decision"] == "promote":
            why = f"better than {row['champion']} after {row['pairs']} pairs"
            return promoted(
                self._registry, self._name, version, evidence, by=f"trial {self._stream}", why=why
            )
        why = f"worse than {row['champion']} after {row['pairs']} pairs: {evidence}"
        self._registry.rollback(self._name, role="challenger", by=f"trial {self._stream}", why=why)
        return "done"

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._decisions.close()

    # ── state ─────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """The evidence, and which pair it is about."""
        return msgspec.msgpack.encode((_VERSION, self.state))

    def restore(self, state: bytes) -> None:
        """Continue; B602 when another version wrote it."""
        _, self.state = state_of(tuple[int, _State], state, _VERSION, self._stream)
        if self.state.decision:
            # It may have been decided just before a crash. Nothing is done twice: the roles tell.
            self._decisions.put(self.state.decision)


_DONE = {
    "done": "fait",
    "done before": "déjà fait",
    "overtaken": "dépassé, les rôles ont changé entre-temps",
    "waits for approval": "attend une approbation",
}


def _says(row: dict[str, Any], done: str) -> dict[str, str]:
    name, version = row["model"], row["challenger"]
    english = {"promote": "is better than", "rollback": "is worse than"}[row["decision"]]
    french = {"promote": "est meilleur que", "rollback": "est moins bon que"}[row["decision"]]
    hint = {
        "promote": f" (boucle promote {name} {version} --role champion)",
        "rollback": f" (boucle rollback {name} --role challenger)",
    }[row["decision"]]
    hint = hint if done == "waits for approval" else ""
    decision = {"promote": "promouvoir", "rollback": "finir l'essai"}[row["decision"]]
    fait = _DONE.get(done) or f"échec : {done.removeprefix('failed: ')}"
    return {
        "en": f"{name} {version} {english} {row['champion']}: {row['decision']}, {done}{hint}.",
        "fr": f"{name} {version} {french} {row['champion']} : {decision}, {fait}{hint}.",
    }
