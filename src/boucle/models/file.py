"""A model on disk: `model.onnx` and a `manifest.json` that says what it is and proves it is that one.

A model that only its own environment can run (MLflow's `pyfunc`) is `model.zip`, the folder MLflow made of it.

The model's identity is the SHA-256 of its bytes. A file that was changed, truncated or swapped is
refused when it is loaded, before it can score anything.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.errors import BoucleError

__all__ = ["Column", "Manifest", "ModelFile"]

_MANIFEST = "manifest.json"
_MODEL = {"onnx": "model.onnx", "pyfunc": "model.zip"}
"""Flavour → the file that holds the model."""


class Column(Struct, frozen=True):
    """One column of a signature: Arrow's name of its type (`double`, `int64`) and its unit."""

    name: str
    type: str = "double"
    unit: str = ""
    description: str = ""


class Manifest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model is: identity, signature, what it was trained on, how well it does."""

    name: str
    sha256: str
    inputs: tuple[Column, ...]
    """In the order of the model's input tensor."""
    outputs: tuple[Column, ...]
    """In the order of the model's output tensor."""
    created: str
    trained_on: dict[str, Any]
    """Seeds, rows, code version: enough to train it again."""
    metrics: dict[str, Any]
    """On held-out data, beside the figures of the mean as a predictor."""
    flavour: Literal["onnx", "pyfunc"] = "onnx"
    """`onnx`, or `pyfunc`: run by a child process of an environment of its own."""
    optional: tuple[str, ...] = ()
    """Inputs of a pyfunc that may be null."""

    def signature(self) -> pa.Schema:
        """The columns a Block must have."""
        return _schema(self.inputs)

    def gives(self) -> pa.Schema:
        """The columns that scoring appends."""
        return _schema(self.outputs)


class ModelFile(Struct, frozen=True):
    """A model whose bytes match its manifest."""

    manifest: Manifest
    content: bytes

    @classmethod
    def load(cls, folder: Path) -> "ModelFile":
        """Read and verify; B610 when it cannot be read, B611 when it is not the one of its manifest."""
        try:
            told = (folder / _MANIFEST).read_bytes()
            content = (folder / _MODEL[_manifest(told, str(folder)).flavour]).read_bytes()
        except OSError as error:
            raise BoucleError(
                "B610",
                "there is no model here",
                where=str(folder),
                why=f"{error.strerror}: {error.filename}",
                fix=f"train one, or point to a folder with model.onnx and {_MANIFEST}",
            ) from error
        return cls.read(told, content, where=str(folder))

    @classmethod
    def read(cls, told: bytes, content: bytes, *, where: str) -> "ModelFile":
        """A manifest and the model it is of, verified; B610 and B611 as in `load`."""
        manifest = _manifest(told, where)
        found = hashlib.sha256(content).hexdigest()
        if found != manifest.sha256:
            raise BoucleError(
                "B611",
                f"{_MODEL[manifest.flavour]} is not the model of its manifest",
                where=where,
                why=f"its SHA-256 is {found[:12]}…, the manifest says {manifest.sha256[:12]}…",
                fix="restore the file, or save model and manifest together",
            )
        return cls(manifest, content)

    @classmethod
    def build(cls, content: bytes, **told: Any) -> "ModelFile":
        """A model and its manifest; `told` are the Manifest's fields but for `sha256`."""
        return cls(Manifest(sha256=hashlib.sha256(content).hexdigest(), **told), content)

    def files(self) -> dict[str, bytes]:
        """Both files as they are written, the manifest last."""
        return {_MODEL[self.manifest.flavour]: self.content, _MANIFEST: _pretty(self.manifest)}

    def save(self, folder: Path) -> None:
        """Write both files; the manifest last, so that an interrupted save is refused by `load`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            beside = folder / f"{name}.new"
            beside.write_bytes(content)
            beside.replace(folder / name)


def _manifest(told: bytes, where: str) -> Manifest:
    try:
        manifest = msgspec.json.decode(told, type=Manifest)
        manifest.signature(), manifest.gives()
    except (msgspec.DecodeError, ValueError) as error:
        raise BoucleError(
            "B610",
            "the manifest of the model cannot be read",
            where=f"{where}/{_MANIFEST}",
            why=str(error),
            fix="save the model again; a manifest is not written by hand",
        ) from error
    return manifest


def _pretty(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema([pa.field(column.name, pa.type_for_alias(column.type)) for column in columns])
