"""A table of the lake scored into another: what came since the last time, each row exactly once, whatever is killed.

The commit that adds scored rows carries, as a Delta transaction, up to which version of the source they reach. Rows
and progress stand in one commit, so a run that was killed begins where the last commit ended.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa
from msgspec import Struct

from boucle.block import Block, Position
from boucle.errors import BoucleError
from boucle.lake.datafile import DataFile
from boucle.lake.delta import LakeTable
from boucle.lake.history import changes
from boucle.lake.stored import DAY, from_stored, to_stored
from boucle.models.file import ModelFile
from boucle.models.onnx import OnnxModel

__all__ = ["ROWS", "ScoredTable", "score_table"]

ROWS = 500_000
"""Rows of one commit, at least, while more are waiting: what a killed run does again."""
_PIECE = 65_536


class ScoredTable(Struct, frozen=True):
    """What a run did: rows scored, those of them that lacked a number, commits, and the source's version reached."""

    rows: int
    unscored: int
    commits: int
    source_version: int
    target_version: int


def score_table(
    source: LakeTable,
    target: LakeTable,
    model: ModelFile,
    *,
    version: str,
    full: bool = False,
    rows: int = ROWS,
    progress: Callable[[int], None] | None = None,
) -> ScoredTable:
    """Score what `source` gained; `full`: all of it anew, in one commit that takes the earlier rows away.

    A scored row has the columns of its source, the model's outputs (null where a number was missing), `model` and
    `model_version`. `progress` is told how many rows are done. Raises SignatureMismatch when the source has not the
    model's columns, B681 when it has lost rows since (or has columns that a score would overwrite), B525 when its
    log no longer knows them (`full` helps in both cases), B509 when somebody else was faster.
    """
    scorer = _Scorer(OnnxModel(model), version, progress)
    into = _Into(target, f"score/{source.zone}.{source.name}/{model.manifest.name}")
    until = source.version
    if until < 0:
        raise BoucleError("B681", f'table "{source.name}" has no version yet', fix="run the loop first")
    if full or into.reached is None:
        into.commit(scorer.all_of(source, until), until, target.files() if full else [])
    else:
        for first, last in _spans(source, into.reached, until, rows):
            into.commit(scorer.since(source, first, last), last, [])
    return ScoredTable(scorer.rows, scorer.unscored, into.commits, until, target.version)


class _Into:
    """The table that is filled, and what it knows of its source.

    Two Delta transactions: how far the source was read, and a number that grows with each commit, so that the same
    rows can be scored anew and two runs at once cannot both commit.
    """

    def __init__(self, target: LakeTable, app: str) -> None:
        self.commits = 0
        self._target, self._app, self._turns = target, app, f"{app}/commits"
        done = target.transaction(app)
        self.reached = None if done is None else done - 1
        """The version of the source up to which rows are scored; None: never was."""
        self._turn = target.transaction(self._turns) or 0

    def commit(self, scored: Iterator[pa.RecordBatch], until: int, gone: Sequence[DataFile]) -> None:
        """Write files as the rows come, then one commit; none when there is nothing to say."""
        first = next(scored, None)
        if first is None and (self.reached in {None, until}):
            return
        target = self._target
        at_rest = target.schema if first is None else target.fit(first.schema)

        def rows() -> Iterator[pa.Table]:
            for batch in scored if first is None else chain([first], scored):
                yield to_stored([batch], at_rest, target.time)

        target.exchange(
            rows(),
            gone,
            because={"did": "score", "until": until},
            marks={self._app: until + 1, self._turns: self._turn + 1},
            after={self._turns: self._turn},
            change=first is not None,
        )
        self._turn += 1
        self.reached = until
        self.commits += first is not None


class _Scorer:
    """Scores pieces of a table, and counts."""

    def __init__(self, model: OnnxModel, version: str, progress: Callable[[int], None] | None) -> None:
        self.rows = self.unscored = 0
        self._model, self._version, self._progress = model, version, progress

    def all_of(self, source: LakeTable, version: int) -> Iterator[pa.RecordBatch]:
        """Every row of a version."""
        for block in source.scan(None, None, version):
            yield from self._pieces(pa.Table.from_batches([block.rows]), source.name)

    def since(self, source: LakeTable, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """The rows that versions after `first` up to `last` added."""
        for change in changes(source, first, last):
            if len(change.deleted):
                raise BoucleError(
                    "B681",
                    f'table "{source.name}" lost {len(change.deleted)} rows in version {change.version}',
                    why="their scores would stay behind",
                    fix="score it anew: --full",
                )
            yield from self._pieces(from_stored(change.inserted), source.name)

    def _pieces(self, rows: pa.Table, name: str) -> Iterator[pa.RecordBatch]:
        if DAY in rows.column_names:
            rows = rows.drop_columns([DAY])
        for batch in rows.combine_chunks().to_batches(_PIECE):
            yield self._scored(batch, name)

    def _scored(self, batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
        manifest = self._model.manifest
        outputs = [one.name for one in manifest.outputs]
        if taken := {*outputs, "model", "model_version"} & set(batch.schema.names):
            raise BoucleError(
                "B681",
                f'table "{name}" has {", ".join(sorted(taken))} already',
                why="the score would have the same name",
                fix="rename the model's outputs, or refine the table first",
            )
        scored = self._model.score(Block(name, batch, 0, Position(name, 0))).rows
        for column, value in (("model", manifest.name), ("model_version", self._version)):
            scored = scored.append_column(column, pa.repeat(pa.scalar(value), len(batch)))
        self.rows += len(batch)
        self.unscored += scored.column(outputs[0]).null_count
        if self._progress is not None:
            self._progress(self.rows)
        return scored


def _spans(source: LakeTable, done: int, until: int, rows: int) -> Iterator[tuple[int, int]]:
    """Versions in groups of about `rows` rows: a commit each, were there thousands, would take minutes."""
    first, count = done, 0
    for number in range(done + 1, until + 1):
        added = source.commit(number).get("add", {}).values()
        count += sum(_rows_of(one) for one in added if one.get("dataChange", True))
        if count >= rows or number == until:
            yield first, number
            first, count = number, 0


def _rows_of(action: dict[str, Any]) -> int:
    stats = action.get("stats")
    return int(json.loads(stats).get("numRecords", 0)) if stats else 0
