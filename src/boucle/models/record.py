"""The record of a training: everything needed to do it again, and what it measured."""

import hashlib
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.features.source import DataVersion
from boucle.features.view import FeatureView
from boucle.product.training import ModelSpec

__all__ = ["SKETCHES", "Record", "commit", "environment"]

SKETCHES = "sketches.json"
"""Beside the record: input → what it was like in the training rows (`features.sketch`), to find data drift by."""

_LIBRARIES = (
    "boucle",
    "numpy",
    "scikit-learn",
    "lightgbm",
    "onnx",
    "skl2onnx",
    "onnxmltools",
    "onnxruntime",
    "pyarrow",
    "duckdb",
)
_LOCKS = ("uv.lock", "poetry.lock", "requirements.txt")


class Record(Struct, frozen=True, kw_only=True):
    """One training: what was declared, read, chosen and measured, with which code and libraries."""

    name: str
    spec: ModelSpec
    views: tuple[FeatureView, ...]
    cut: Nanos
    """Nothing after it was looked at."""
    data: dict[str, DataVersion]
    """Table, as declared → the version that was read."""
    parameters: dict[str, Any]
    """The ones chosen: trained with again, never searched again."""
    searched: dict[str, Any]
    rows: dict[str, int]
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    slices: dict[str, dict[str, dict[str, float]]]
    drift: dict[str, float]
    """PSI of each feature from training to held-out rows."""
    equal: float
    """The largest difference between trainer and ONNX on held-out rows."""
    sha256: str
    seed: int
    code: dict[str, Any]
    environment: dict[str, str]
    seconds: float
    created: str

    @classmethod
    def read(cls, told: bytes | None, of: str) -> "Record":
        """From a version's `record.json`; B629 when it has none that can be read."""
        try:
            return msgspec.json.decode(told or b"", type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            why = str(error) if told else "it was registered without one"
            fix = "train it with `boucle train`"
            what = f"{of} has no record of its training"
            raise BoucleError("B629", what, why=why, fix=fix) from error

    def bytes(self) -> bytes:
        """As it is kept."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def commit(folder: Path) -> dict[str, Any]:
    """The commit of the product's folder and whether files differ from it; empty outside git."""
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return {"commit": head, "changed": bool(_git(folder, "status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return {}


def environment(folder: Path) -> dict[str, str]:
    """Python, machine, libraries, and the digest of the lock file next above the product."""
    told = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for name in _LIBRARIES:
        try:
            told[name] = version(name)
        except PackageNotFoundError:
            told[name] = "not installed"
    for above in (folder.resolve(), *folder.resolve().parents):
        if lock := next((above / name for name in _LOCKS if (above / name).is_file()), None):
            told[lock.name] = hashlib.sha256(lock.read_bytes()).hexdigest()
            break
    return told


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603 - git with words of ours
        ["git", *words],  # noqa: S607 - the git of the PATH
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.strip()
