"""Why the model said so: for the rows that matter, what each input added to the score.

Exact Shapley values of trees (Lundberg et al., Nature Machine Intelligence 2, 2020), by LightGBM itself from its
own file, `trees.txt`, which is kept beside model.onnx. They are in the margin's unit (log-odds of a
classifier) and add up: base and all contributions are the margin.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import msgpack
from numpy.typing import NDArray

from boucle.block import Block
from boucle.errors import BoucleError
from boucle.models.algorithms import TREES
from boucle.models.file import ModelFile
from boucle.models.registry import SCHEME, Reference, registry_of
from boucle.ports import Traced
from boucle.stream.origin import Inputs, made_of, one_of
from boucle.stream.rows import Filter, require
from boucle.stream.sequence import state_of

__all__ = ["Explain", "Trees"]

_VERSION = 1
_MADE = {
    "rank": pa.int64(),
    "feature": pa.string(),
    "value": pa.float64(),
    "contribution": pa.float64(),
    "base": pa.float64(),
    "margin": pa.float64(),
}


class Trees:
    """The trees of a model, and the inputs they read, in order."""

    def __init__(self, content: bytes, inputs: Sequence[str], where: str) -> None:
        import lightgbm

        try:
            self._booster = lightgbm.Booster(model_str=content.decode("utf-8"))
        except (UnicodeDecodeError, lightgbm.basic.LightGBMError) as error:
            raise _none(where, f"{TREES} cannot be read: {error}") from error
        if self._booster.num_feature() != len(inputs):
            what = f"{TREES} reads {self._booster.num_feature()} inputs, model.onnx {len(inputs)}"
            raise _none(where, what)
        self.inputs = tuple(inputs)

    @classmethod
    def of(cls, model: str, folder: Path) -> "Trees":
        """Those of a model folder or of a registry's version; B752 when it has none."""
        if model.startswith(SCHEME):
            files = registry_of(folder).files(model)
            if lacks := {TREES, "manifest.json", "model.onnx"} - files.keys():
                raise _none(model, f"it has {', '.join(sorted(files))}, not {', '.join(sorted(lacks))}")
            read = ModelFile.read(files["manifest.json"], files["model.onnx"], where=model)
            return cls(files[TREES], [one.name for one in read.manifest.inputs], model)
        place = folder / model
        manifest = ModelFile.load(place).manifest
        try:
            content = (place / TREES).read_bytes()
        except OSError as error:
            raise _none(str(place), f"{TREES}: {error.strerror}") from error
        return cls(content, [one.name for one in manifest.inputs], str(place))

    def contributions(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows, inputs) → (rows, inputs + 1): what each input added, then the base, all in the margin's unit."""
        found: NDArray[np.float64] = self._booster.predict(matrix, pred_contrib=True, num_threads=1)
        if found.shape[1] != len(self.inputs) + 1:
            raise _none(TREES, "it has several outputs; explanations are for one")
        return found


class Explain:
    """For each row where `where` holds: the `top` inputs that moved its score most, one row each.

    `model` is the model of the Score step. With `version`, a column that names the version of each row (the `marks`
    of Score), each row is explained by the trees that scored it; without it the model must be a folder or a fixed
    version (`models:NAME/3`), or an explanation could be of another model than the score. Output: the columns of
    `keep`, `rank` (from 1), `feature`, `value`, `contribution`, `base` and `margin`.
    """

    def __init__(
        self,
        stream: str,
        *,
        model: str,
        where: str = "True",
        top: int = 5,
        keep: Sequence[str] = ("at",),
        version: str = "",
        folder: str | Path = ".",
    ) -> None:
        self._stream, self._model, self._folder = stream, str(model), Path(folder)
        self._where = None if where == "True" else Filter(stream, where=where)
        self._top, self._keep, self._of = top, list(keep), version
        reference = Reference.parse(self._model) if self._model.startswith(SCHEME) else None
        if version and reference is None:
            fix = "name a model of the registry, or leave version out"
            raise BoucleError("B753", f"{stream}: a folder has one version", fix=fix)
        if not version and reference is not None and not reference.number:
            raise BoucleError(
                "B753",
                f"{stream}: who plays {reference} changes, and nothing says which version scored a row",
                fix="let Score mark its rows (marks: {version: model_version}) and give version: model_version",
            )
        if top < 1 or not keep:
            raise BoucleError(
                "B753", f"{stream}: top {top}, keep {list(keep)}", fix="give one of each at least"
            )
        self._name = reference.name if reference else ""
        self._trees: dict[str, Trees] = {}
        if not version:
            self._trees[""] = Trees.of(self._model, self._folder)
        self.explained = 0
        self.unexplained = 0
        """Rows without a version: a fallback scored them, which has no trees."""

    @property
    def counts(self) -> dict[str, int]:
        """Rows that were explained, and rows that no trees scored."""
        return {"explained": self.explained, "unexplained": self.unexplained}

    @classmethod
    def trace(cls, inputs: Inputs, *, keep: Sequence[str] = ("at",), **declared: Any) -> Traced:
        """What is kept, as it is; the rest from every column."""
        stream = one_of(inputs)
        made = made_of(stream, inputs[stream], "TRANSFORMATION", "why the model said so")
        kept = {name: made_of(stream, [name], "IDENTITY") for name in keep}
        return Traced(
            kept | dict.fromkeys(_MADE, made), made_of(stream, [declared.get("version", "")], "FILTER")
        )

    def step(self, block: Block) -> Sequence[Block]:
        """Explain the rows that hold; B221 when a column is missing, B752 when a version has no trees."""
        require(self._stream, [*self._keep, *([self._of] if self._of else [])], block.rows.schema)
        rows = self._where.rows(block.rows) if self._where else block.rows
        kept = [block.rows.schema.field(name) for name in self._keep]
        schema = pa.schema([*kept, *(pa.field(name, kind) for name, kind in _MADE.items())])
        told = [schema.empty_table()]
        order = [np.zeros(0, np.int64)]
        for version, places in self._versions(rows).items():
            trees = self._trees_of(version)
            told.append(self._why(trees, rows.take(pa.array(places)), schema))
            order.append(np.repeat(places, min(self._top, len(trees.inputs))))
            self.explained += len(places)
        table = pa.concat_tables(told).take(pa.array(np.argsort(np.concatenate(order), kind="stable")))
        (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema)]
        return (Block(self._stream, batch, block.watermark, block.position),)

    def _versions(self, rows: pa.RecordBatch) -> dict[str, NDArray[np.int64]]:
        """Version → its rows; rows without a version were not scored by trees, and are counted."""
        if not rows.num_rows:
            return {}
        if not self._of:
            return {"": np.arange(rows.num_rows)}
        said = rows.column(self._of).cast(pa.string())
        self.unexplained += said.null_count
        named = said.to_pylist()
        return {
            one: np.array([place for place, other in enumerate(named) if other == one], np.int64)
            for one in dict.fromkeys(named)
            if one is not None
        }

    def _trees_of(self, version: str) -> Trees:
        if version not in self._trees:
            # Score says NAME/3, or 3 alone.
            number = version.rpartition("/")[2]
            self._trees[version] = Trees.of(f"{SCHEME}{self._name}/{number}", self._folder)
        return self._trees[version]

    def _why(self, trees: Trees, rows: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
        require(self._stream, trees.inputs, rows.schema)
        columns = [
            rows.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False) for name in trees.inputs
        ]
        matrix = np.column_stack(columns)
        found = trees.contributions(matrix)
        base, added = found[:, -1], found[:, :-1]
        top = np.argsort(-np.abs(added), axis=1, kind="stable")[:, : self._top]
        each = top.shape[1]
        which = top.ravel()
        row = np.repeat(np.arange(len(matrix)), each)
        made = {
            "rank": np.tile(np.arange(1, each + 1), len(matrix)),
            "feature": np.array(trees.inputs, object)[which],
            "value": matrix[row, which],
            "contribution": added[row, which],
            "base": base[row],
            "margin": found.sum(axis=1)[row],
        }
        kept = [rows.column(name).take(pa.array(row)) for name in self._keep]
        values = pa.array(made["value"], from_pandas=True)  # an input that is missing is null, not NaN
        columns = [values if name == "value" else pa.array(made[name], kind) for name, kind in _MADE.items()]
        return pa.Table.from_arrays([*kept, *columns], schema=schema)

    def snapshot(self) -> bytes:
        """The counts; the trees are found again."""
        return msgpack.encode((_VERSION, self.explained, self.unexplained))

    def restore(self, state: bytes) -> None:
        """Continue counting; B602 when another version of it wrote it."""
        _, self.explained, self.unexplained = state_of(tuple[int, int, int], state, _VERSION, self._stream)


def _none(where: str, why: str) -> BoucleError:
    return BoucleError(
        "B752",
        "there are no trees to explain the scores with",
        where=where,
        why=why,
        fix=f"train it with LightGBM by boucle train, which keeps {TREES}, or put its own file there under that name",
    )
