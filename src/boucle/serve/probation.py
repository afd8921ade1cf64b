"""A new champion on probation: its outcomes beside what the version before it would have said of the same rows.

A drift that made a promotion right may pass, and gates look at held-out rows only: what counts is how the new version
does where it acts. Both are held against the same label of the same row, so that a bad week is no evidence against
either, and the proof may be looked at after every row (`boucle.serve.evidence`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct
from numpy.typing import NDArray

from boucle.block import Block, Position, as_rows, in_nanos
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.models.onnx import OnnxModel
from boucle.models.registry import Reference, Registry, registry_of
from boucle.ports import Traced
from boucle.serve.alerts import Tell
from boucle.serve.decisions import Decisions
from boucle.serve.evidence import Evidence
from boucle.serve.follow import CHAMPION
from boucle.stream.expression import Expression, Typed, column_of
from boucle.stream.origin import Inputs, every, one_of
from boucle.stream.sequence import state_of

__all__ = ["Probation"]

_VERSION = 1
_SCHEMA = pa.schema(
    [
        pa.field("at", pa.timestamp("ns", "UTC")),
        pa.field("model", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("champion", pa.string()),
        pa.field("before", pa.string()),
        pa.field("outcomes", pa.int64()),
        pa.field("champion_loss", pa.float64()),
        pa.field("before_loss", pa.float64()),
        pa.field("mean_difference", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("alpha", pa.float64()),
    ]
)


class _State(Struct):
    """Who acts, who acted before, and what is known of both."""

    evidence: Evidence
    champion: str = ""
    before: str = ""
    """Empty: nobody is on probation."""
    known: dict[str, Nanos] = {}
    """Version that was champion once → its newest row. One that comes back was tried already."""
    losses: tuple[float, float] = (0.0, 0.0)
    """Summed: the champion's, and those of the one before."""
    clipped: int = 0
    """Losses outside of [0, 1], taken as the nearest of the two."""
    unscored: int = 0
    """Rows that the version before could not score."""
    stale: int = 0
    """Outcomes of versions that are not on probation, as labels come late."""
    decision: dict[str, Any] = {}
    """The row that was told of this champion, once there is one."""


class Probation:
    """Decides `rollback` when the version before would have done better than the champion, else `confirmed`.

    Rows are outcomes: the inputs of the model, its outputs as they were, the `version` (and `arm`) marks of Score, and
    what `loss` needs, an expression within [0, 1] where less is better; `time` is that of the prediction. From the
    first row of a champion that never was one before, each row is also scored by the version before, and the
    differences of the losses are evidence: the chance to go back from a version that is not worse by more than
    `margin` is at most `alpha`, however often one looks. At least `least` outcomes are waited for; after `outcomes` of
    them the version is confirmed. `approval: true` asks a person instead of going back.

    Going back is `Registry.rollback`, with the evidence in its history; whoever follows the role has the version
    before in memory. Raises B717 for settings that cannot work, B219 when a column is missing, B655 when the version
    before is no longer in the registry.
    """

    def __init__(
        self,
        stream: str,
        *,
        model: str,
        loss: str,
        version: str,
        arm: str = "",
        folder: str | Path = ".",
        time: str = "at",
        alpha: float = 0.01,
        margin: float = 0.0,
        least: int = 30,
        outcomes: int = 10_000,
        approval: bool = False,
    ) -> None:
        if not (0 < alpha < 1 and 0 <= margin < 1 and 1 <= least <= outcomes):
            what = f"{stream}: alpha {alpha}, margin {margin}, least {least}, outcomes {outcomes}"
            raise BoucleError("B717", what, fix="0 < alpha < 1, 0 <= margin < 1, 1 <= least <= outcomes")
        self._stream, self._folder, self._name = stream, Path(folder), Reference.parse(model).name
        self._loss, self._of, self._arm, self._time = Expression(loss), version, arm, time
        self._alpha, self._margin, self._least, self._most = alpha, margin, least, outcomes
        self._approval = approval
        self._typed: tuple[pa.Schema, Typed] | None = None
        self.state = _State(Evidence(alpha, margin))
        self._models: dict[str, OnnxModel] = {}
        self._registry: Registry | None = None
        self._decisions = Decisions(f"boucle probation {stream}", self._act, _says)

    @classmethod
    def trace(cls, inputs: Inputs, **declared: Any) -> Traced:
        """A decision is made of all outcomes."""
        del declared
        made = every(
            inputs, f"the champion's outcomes of {one_of(inputs)} beside those of the version before"
        )
        return Traced(dict.fromkeys(_SCHEMA.names, made))

    def step(self, block: Block) -> Sequence[Block]:
        """One row per decision."""
        told = self._rows(block.rows) if block.rows.num_rows else []
        return (Block(self._stream, as_rows(told, _SCHEMA), block.watermark, block.position),)

    @property
    def counts(self) -> dict[str, int]:
        """Outcomes compared since the present champion came, and those that could not be."""
        state = self.state
        told = {"clipped": state.clipped, "unscored": state.unscored, "stale": state.stale}
        return {"compared": state.evidence.count, **told}

    def _rows(self, rows: pa.RecordBatch) -> list[dict[str, Any]]:
        versions = rows.column(self._of).to_pylist()
        arms = rows.column(self._arm).to_pylist() if self._arm else [CHAMPION] * len(versions)
        mine = [place for place, arm in enumerate(arms) if arm == CHAMPION and versions[place] is not None]
        times = in_nanos(rows.column(self._time))
        told: list[dict[str, Any]] = []
        for version, places in _runs(mine, versions):
            newest = pc.max(times.take(pa.array(places))).as_py()
            if not self._follow(version, newest):
                self.state.stale += len(places)
            elif self.state.before:
                told += self._compare(rows.take(pa.array(places)))
        return told

    def _follow(self, version: str, at: Nanos) -> bool:
        """Notice a new champion; False for an outcome of another version: labels come in any order."""
        state = self.state
        if version not in state.known:
            before = max(state.known, key=state.known.__getitem__, default="")
            self.state = _State(
                Evidence(self._alpha, self._margin), version, before, state.known,
                clipped=state.clipped, unscored=state.unscored, stale=state.stale,
            )  # fmt: skip
        self.state.known[version] = max(at, self.state.known.get(version, at))
        return version == self.state.champion

    def _compare(self, rows: pa.RecordBatch) -> list[dict[str, Any]]:
        state = self.state
        now, then = self._losses(rows), self._losses(self._as_before(rows))
        both = np.isfinite(now) & np.isfinite(then)
        state.unscored += int((np.isfinite(now) & ~np.isfinite(then)).sum())
        for place in np.flatnonzero(both).tolist():
            state.losses = (state.losses[0] + float(now[place]), state.losses[1] + float(then[place]))
            # The evidence asks whether the challenger is better: here the challenger is the version before.
            state.evidence.add(np.array([now[place] - then[place]]))
            count = state.evidence.count
            worse = state.evidence.verdict == "better" and count >= self._least
            if worse or count >= self._most:
                return [self._decide("rollback" if worse else "confirmed", rows, place)]
        return []

    def _losses(self, rows: pa.RecordBatch) -> NDArray[np.float64]:
        if self._typed is None or not self._typed[0].equals(rows.schema):
            self._typed = (rows.schema, self._loss.bind(rows.schema))
        told = column_of(self._typed[1], rows).cast(pa.float64())
        found: NDArray[np.float64] = told.to_numpy(zero_copy_only=False).astype(np.float64)
        outside = np.isfinite(found) & ((found < 0) | (found > 1))
        self.state.clipped += int(outside.sum())
        return np.where(np.isfinite(found), np.clip(found, 0.0, 1.0), np.nan)

    def _as_before(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with what the version before says of them in place of what was said, in the same order."""
        model = self._model(self.state.before)
        given = [one.name for one in model.manifest.outputs]
        bare = rows.drop_columns([name for name in given if name in rows.schema.names])
        scored = model.score(Block(self._stream, bare, 0, Position(self._stream, 0))).rows
        return scored.select(rows.schema.names)

    def _model(self, version: str) -> OnnxModel:
        if version not in self._models:
            number = int(version.rpartition("/")[2])
            self._models = {version: OnnxModel(self._open().load(Reference(self._name, number=number)))}
        return self._models[version]

    def _open(self) -> Registry:
        if self._registry is None:
            self._registry = registry_of(self._folder)
        return self._registry

    def _decide(self, decision: str, rows: pa.RecordBatch, place: int) -> dict[str, Any]:
        state, told = self.state, self.state.evidence.told()
        at: Nanos = in_nanos(rows.column(self._time))[place].as_py()
        row = {
            "at": at,
            "model": self._name,
            "decision": decision,
            "champion": state.champion,
            "before": state.before,
            "outcomes": told["pairs"],
            "champion_loss": state.losses[0] / state.evidence.count,
            "before_loss": state.losses[1] / state.evidence.count,
            **{name: told[name] for name in ("mean_difference", "low", "high", "alpha")},
        }
        state.before, state.decision = "", row
        if decision == "rollback":
            self._decisions.put(row)
        return row

    # ── carrying it out ───────────────────────────────────────────────────────────────────────

    def attach(self, folder: Path, tell: Tell) -> None:
        """`tell` hears of every way back. Before `restore`."""
        del folder
        self._decisions.tell = tell

    def live(self) -> None:
        """Carry out what was decided, from now on."""
        self._decisions.live()

    def _act(self, row: dict[str, Any]) -> str:
        registry = self._open()
        champion, before = (int(row[one].rpartition("/")[2]) for one in ("champion", "before"))
        roles = registry.roles(self._name).roles
        if roles.get("champion") == before:
            return "done before"
        if (roles.get("champion"), roles.get("previous")) != (champion, before):
            return "overtaken"
        if self._approval:
            return "waits for approval"
        evidence = {key: one for key, one in row.items() if key not in {"model", "decision"}}
        why = f"worse than {row['before']} on {row['outcomes']} outcomes: {evidence}"
        registry.rollback(self._name, by=f"probation {self._stream}", why=why)
        return "done"

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._decisions.close()

    # ── state ─────────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> bytes:
        """Who acts, who acted before, and the evidence."""
        return msgspec.msgpack.encode((_VERSION, self.state))

    def restore(self, state: bytes) -> None:
        """Continue; B602 when another version wrote it."""
        _, self.state = state_of(tuple[int, _State], state, _VERSION, self._stream)
        if self.state.decision.get("decision") == "rollback":
            # It may have been decided just before a crash. Nothing is done twice: the roles tell.
            self._decisions.put(self.state.decision)


def _runs(places: list[int], versions: list[str]) -> list[tuple[str, list[int]]]:
    """The places in their order, cut where the version changes."""
    runs: list[tuple[str, list[int]]] = []
    for place in places:
        if not runs or runs[-1][0] != versions[place]:
            runs.append((versions[place], []))
        runs[-1][1].append(place)
    return runs


def _says(row: dict[str, Any], done: str) -> dict[str, str]:
    name, now, then = row["model"], row["champion"], row["before"]
    hint = f" (boucle rollback {name})" if done == "waits for approval" else ""
    return {
        "en": f"{name} {now} is worse than {then} where it acts: rollback, {done}{hint}.",
        "fr": f"{name} {now} est moins bon que {then} là où il agit : retour, {done}{hint}.",
    }
