"""Adds, promotes, rolls back and forgets until it is killed: `… killed_promoter FOLDER KILLS SEED`."""

from pathlib import Path

from boucle.models.folder import FolderRegistry
from tests.killed_children import main
from tests.models.tiny import tiny


def work(folder: Path, rounds: int) -> None:
    registry = FolderRegistry(folder / "registry")
    for width in range(rounds):
        version = registry.add(tiny(2 + width % 5))
        registry.promote("tiny", version.number)
        if "previous" in registry.roles("tiny").roles:
            registry.rollback("tiny")
        if width % 4 == 3:
            registry.keep("tiny", 3)


if __name__ == "__main__":
    tiny()  # onnx is imported once, before the children are made
    main(work, (0.005, 0.15), 2)
