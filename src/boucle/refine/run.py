"""Write, audit, publish: a transformation from its inputs' newest versions to one commit, or to quarantine.

The commit carries, as Delta transactions, which version of each input it has applied. So the same inputs are never
applied twice, whatever is killed: either the commit is there, with its marks, or nothing is. Two that run at once
stage the same batch, and the second to commit is refused.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.lake.delta import LakeTable
from boucle.lake.history import changed, versions
from boucle.lake.stored import to_stored
from boucle.lake.whole import Lake
from boucle.product.transforms import TransformSpec
from boucle.quality.history import History
from boucle.refine.gates import Verdict, audit
from boucle.refine.stage import Inputs, Staged, staged
from boucle.refine.transform import Transform, bare

__all__ = ["Held", "Outcome", "held", "refine", "waits"]

_RUN = "refine"
_NOTED = "refine nothing new"
_KEPT = 10
"""Held batches kept for each transformation; the oldest goes first."""


class Outcome(Struct, frozen=True):
    """How it ended: published as a version; held back by a gate; or unchanged, for nothing is new."""

    name: str
    state: Literal["published", "held", "unchanged"]
    version: int
    rows: int
    verdicts: list[Verdict]
    inputs: dict[str, int]
    seconds: float
    held_in: str = ""


class Held(Struct, frozen=True):
    """A batch that did not pass, as it lies in quarantine."""

    name: str
    at_ms: int
    inputs: dict[str, int]
    digest: str
    rows: int
    verdicts: list[Verdict]
    folder: str = ""


def refine(
    transform: Transform,
    lake: Lake,
    folder: Path,
    *,
    full: bool = False,
    again: bool = True,
    samples: Mapping[str, str] | None = None,
) -> Outcome:
    """Bring the table up to its inputs, when they have something new (or `full`: make it anew).

    `folder` holds what is staged and what is held back. `again` tries a batch that was held back before, although
    nothing has changed. `samples` are conditions on the rows of
    inputs. Raises
    `Unavailable` when the lake is away, B533 for SQL that cannot be run, B509 when somebody else does the same.
    """
    begun = time.monotonic()
    inputs = _inputs(transform, lake)
    state = _state(inputs.output, transform.digest)
    anew = full or not state.same_sql
    told: dict[str, Any] = {"name": transform.name, "inputs": inputs.versions}
    quiet = not anew and not _new_rows(inputs)
    if quiet and inputs.applied != inputs.versions:
        _note(transform, inputs, state)
    if quiet or (not again and _was_held(folder, transform, inputs)):
        took = time.monotonic() - begun
        return Outcome(**told, state="unchanged", version=inputs.published, rows=0, verdicts=[], seconds=took)
    work = folder / "staged" / transform.name
    with staged(transform, inputs, work, anew=anew, samples=samples or {}) as batch:
        history = History(folder / "history.ndjson")
        verdicts, reports = audit(batch.duck, transform, state.rows_before, inputs.others, history)
        told |= {"rows": batch.rows, "verdicts": verdicts}
        passed = all(one.holds or one.severity == "warning" for one in verdicts)
        if passed:
            version = _publish(
                transform,
                inputs,
                batch,
                verdicts,
                state.number,
                replace=anew or transform.spec.mode == "full",
            )
            for one in reports:
                history.add(one.at, one.table, one.measured, one.outcomes)
    if not passed:
        place = _hold(folder, work, transform, inputs, batch.rows, verdicts)
        took = time.monotonic() - begun
        return Outcome(**told, state="held", version=inputs.published, seconds=took, held_in=str(place))
    shutil.rmtree(work, ignore_errors=True)
    return Outcome(**told, state="published", version=version, seconds=time.monotonic() - begun)


def waits(transform: Transform, lake: Lake, folder: Path) -> bool:
    """Whether an input has a version that was neither published nor held back."""
    inputs = _inputs(transform, lake)
    fresh = inputs.applied != inputs.versions or not _state(inputs.output, transform.digest).same_sql
    return fresh and max(inputs.versions.values()) >= 0 and not _was_held(folder, transform, inputs)


def _new_rows(inputs: Inputs) -> bool:
    """Whether an input has other rows than when it was last applied; files that were joined hold the same."""
    return any(
        inputs.versions[text] != inputs.applied[text]
        and changed(table, inputs.applied[text], inputs.versions[text])
        for text, table in inputs.tables.items()
    )


def _note(transform: Transform, inputs: Inputs, state: "_State") -> None:
    """Say in the table that these versions brought nothing, so that the log need not be asked again for them."""
    because = {"did": _NOTED, "transform": transform.name, "inputs": inputs.versions}
    marks = {_RUN: state.number + 1, **{_app(text): version for text, version in inputs.versions.items()}}
    inputs.output.exchange([], [], because=because, marks=marks, after={_RUN: state.number})


class _State(Struct, frozen=True):
    number: int
    same_sql: bool
    rows_before: int | None


def _state(output: LakeTable, digest: str) -> _State:
    """What the table itself knows of its last refinement."""
    number = output.transaction(_RUN)
    if number is None:
        return _State(0, False, None)
    last = next((one.because for one in versions(output, 1000) if one.did == _RUN), {})
    return _State(number, last.get("digest") == digest, last.get("rows"))


def _inputs(transform: Transform, lake: Lake) -> Inputs:
    spec = transform.spec
    output = lake.table(spec.zone, transform.name, time=spec.time, partition_by=tuple(spec.partition))
    tables = {text: lake.find(text) for text in spec.from_}
    versions_ = {text: table.version for text, table in tables.items()}
    applied = {text: _or(output.transaction(_app(text)), -1) for text in tables}
    return Inputs(tables, versions_, applied, output, output.version, _led_to(transform, lake))


def _led_to(transform: Transform, lake: Lake) -> dict[str, LakeTable]:
    """The tables that foreign keys of its contract lead to, but its own; those the lake lacks are told by the gate."""
    contracts = [transform.contracts[gate.schema] for gate in transform.spec.gates if gate.schema]
    rules = [rule for one in contracts for rule in one.rules if rule.kind == "foreign_key"]
    wanted = {rule.given["table"] for rule in rules if rule.given["table"] != rule.table}
    known = {table.name: table for table in lake.tables()} if wanted else {}
    return {name: known[name] for name in sorted(wanted & set(known))}


def _or(number: int | None, otherwise: int) -> int:
    return otherwise if number is None else number


def _app(text: str) -> str:
    return f"{_RUN}/{bare(text)}"


def _publish(
    transform: Transform,
    inputs: Inputs,
    batch: Staged,
    verdicts: list[Verdict],
    number: int,
    *,
    replace: bool,
) -> int:
    """One commit; what it replaces, and what it has applied, stand in it."""
    output = inputs.output
    marks = {_RUN: number + 1, **{_app(text): version for text, version in inputs.versions.items()}}
    because = {
        "did": _RUN,
        "transform": transform.name,
        "mode": transform.spec.mode,
        "digest": transform.digest,
        "rows": batch.rows,
        "inputs": {
            f"{inputs.tables[text].zone}.{bare(text)}": inputs.versions[text] for text in inputs.tables
        },
        "gates": [{"gate": one.gate, "holds": one.holds, "failed": one.failed} for one in verdicts],
    }
    first = next(batch.tables(), None)
    schema = _typed(_empty(batch) if first is None else first).schema
    at_rest = output.fit(schema)
    rows = (_at_rest(one, transform.spec, at_rest) for one in batch.tables())
    after = {_RUN: number}
    if transform.spec.mode == "merge" and not replace:
        return output.merge(rows, transform.spec.key, because=because, marks=marks, after=after)
    gone = output.files() if replace else []
    return output.exchange(rows, gone, because=because, marks=marks, after=after, change=True)


def _empty(batch: Staged) -> pa.Table:
    return batch.duck.sql("SELECT * FROM staged LIMIT 0").to_arrow_table()


def _typed(rows: pa.Table) -> pa.Table:
    """SQL's types as the lake keeps them: times in UTC, sums of whole numbers as 64 bits."""
    fields = []
    for field in rows.schema:
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = pa.timestamp("us", "UTC")
        elif pa.types.is_decimal(kind) and kind.scale == 0:
            kind = pa.int64()
        fields.append(pa.field(field.name, kind))
    return rows.cast(pa.schema(fields))


def _at_rest(rows: pa.Table, spec: TransformSpec, schema: pa.Schema) -> pa.Table:
    return to_stored(_typed(rows).to_batches(), schema, spec.time)


def _hold(
    folder: Path, work: Path, transform: Transform, inputs: Inputs, rows: int, verdicts: list[Verdict]
) -> Path:
    """Put the batch and the reason into quarantine, and forget the oldest beyond what is kept."""
    at = time.time_ns() // 1_000_000
    place = folder / "held" / transform.name / str(at)
    told = Held(transform.name, at, inputs.versions, transform.digest, rows, verdicts, str(place))
    (work / "reason.json").write_bytes(msgspec.json.format(msgspec.json.encode(told)))
    shutil.rmtree(work / "spill", ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    work.rename(place)
    for old in sorted(place.parent.iterdir(), key=lambda one: int(one.name))[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def held(folder: Path, name: str = "") -> Iterator[Held]:
    """What was held back, newest first; a record that cannot be read is left out."""
    found = (folder / "held").glob(f"{name or '*'}/*/reason.json")
    for file in sorted(found, key=lambda one: one.parent.name, reverse=True):
        try:
            yield msgspec.json.decode(file.read_bytes(), type=Held)
        except (msgspec.DecodeError, OSError):
            continue


def _was_held(folder: Path, transform: Transform, inputs: Inputs) -> bool:
    last = next(held(folder, transform.name), None)
    return last is not None and last.inputs == inputs.versions and last.digest == transform.digest
