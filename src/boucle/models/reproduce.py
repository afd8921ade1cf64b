"""A version trained again from its own record: the same bytes, or what differs."""

import hashlib

from msgspec import Struct

from boucle.features.source import Source
from boucle.models.file import ModelFile
from boucle.models.record import Record, environment
from boucle.models.registry import Registry
from boucle.models.train import retrain

__all__ = ["Reproduced", "reproduce"]


class Reproduced(Struct, frozen=True):
    """Whether a version came out again bit for bit."""

    version: str
    same: bool
    sha256: str
    """Of what came out now."""
    bytes: int
    differs: str


def reproduce(registry: Registry, reference: str, source: Source) -> Reproduced:
    """Train again on the recorded versions of the data; B626 when one of them is gone."""
    version = registry.resolve(reference)
    files = registry.files(str(version))
    record = Record.read(files.get("record.json"), str(version))
    now = retrain(record, source)
    digest = hashlib.sha256(now.content).hexdigest()
    same = now.content == files["model.onnx"]
    why = "" if same else _differs(record, now, files["model.onnx"], environment(source.folder))
    return Reproduced(str(version), same, digest, len(now.content), why)


def _differs(record: Record, now: ModelFile, then: bytes, here: dict[str, str]) -> str:
    import onnx

    parts = []
    changed = [
        f"{name} {old} → {here.get(name, 'absent')}"
        for name, old in record.environment.items()
        if here.get(name) != old
    ]
    parts.append(f"environment: {'; '.join(changed)}" if changed else "the environment is the same")
    old, new = onnx.load_from_string(then).graph, onnx.load_from_string(now.content).graph
    if len(old.node) != len(new.node):
        parts.append(f"{len(old.node)} nodes then, {len(new.node)} now")
    for one, other in zip(old.node, new.node, strict=False):
        for before, after in zip(one.attribute, other.attribute, strict=False):
            if before != after:
                parts.append(f"{one.op_type}.{before.name} differs")
    return ". ".join(parts)
