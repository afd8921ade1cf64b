"""A trained model as a step of the path: features in, the same rows with its outputs appended out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from boucle.block import Block
from boucle.errors import BoucleError
from boucle.models.file import ModelFile
from boucle.models.onnx import OnnxModel
from boucle.ports import Traced
from boucle.stream.origin import Inputs, carried, made_of, one_of

__all__ = ["Score"]

_VERSION = 1


class Score:
    """Appends a model's outputs to every row.

    `model` is a model folder, relative to the product's. A row that lacks a number the model needs is
    passed on with null outputs and counted in `unscored`; nothing is dropped and nothing is guessed.
    """

    def __init__(self, stream: str, *, model: str | Path, folder: str | Path = ".") -> None:
        self._stream = stream
        self.model = OnnxModel(ModelFile.load(Path(folder) / model))
        self.unscored = 0

    @classmethod
    def trace(cls, inputs: Inputs, *, model: str | Path, folder: str | Path = ".", **declared: Any) -> Traced:
        """Columns as they are, and every output of the model from every input of its signature."""
        del declared
        manifest = ModelFile.load(Path(folder) / model).manifest
        says = f"scored by the model {manifest.name}"
        made = made_of(one_of(inputs), [one.name for one in manifest.inputs], "TRANSFORMATION", says)
        return Traced(carried(inputs) | {one.name: made for one in manifest.outputs})

    def step(self, block: Block) -> Sequence[Block]:
        """The Block with the model's outputs; SignatureMismatch when it has other columns."""
        scored = self.model.score(block)
        self.unscored += scored.rows.column(self.model.manifest.outputs[0].name).null_count
        return (Block(self._stream, scored.rows, block.watermark, block.position),)

    def snapshot(self) -> bytes:
        """The count; the model itself is found again by its folder."""
        return msgspec.msgpack.encode((_VERSION, self.model.manifest.sha256, self.unscored))

    def restore(self, state: bytes) -> None:
        """Continue counting; B602 when the state is of another version of this step."""
        try:
            version, _, unscored = msgspec.msgpack.decode(state, type=tuple[int, str, int])
        except msgspec.DecodeError as error:
            raise self._refused(str(error)) from error
        if version != _VERSION:
            raise self._refused(f"version {version}, this code reads {_VERSION}")
        self.unscored = unscored

    def _refused(self, why: str) -> BoucleError:
        what = f"the state of {self._stream} was written by another version"
        return BoucleError("B602", what, why=why, fix="remove the checkpoint to start afresh")
