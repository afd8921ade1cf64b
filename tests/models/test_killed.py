"""Killed anywhere, or asked by several at once: the registry stays one that can be read."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from boucle.models.folder import FolderRegistry
from tests.house.tree import ROOT
from tests.models.tiny import tiny


def test_a_killed_promoter_leaves_a_valid_registry(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.models.killed_promoter", str(tmp_path), "12", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    registry = FolderRegistry(tmp_path / "registry")
    numbers = [one.number for one in registry.versions("tiny")]
    assert numbers == sorted(set(numbers))
    for number in numbers:
        assert registry.files(f"tiny/{number}")
    roles = registry.roles("tiny")
    assert set(roles.roles.values()) <= set(numbers)
    assert roles.generation == len(roles.history)
    registry.add(tiny())
    registry.promote("tiny", numbers[-1] + 1)
    registry.keep("tiny", 1)
    objects = [one.name for one in (registry.folder / "objects").iterdir()]
    assert sorted(objects) == sorted({one.object for one in registry.versions("tiny")})


def test_concurrent_promoters_lose_nothing(tmp_path: Path) -> None:
    FolderRegistry(tmp_path / "registry").add(tiny())

    def promote(index: int) -> int:
        mine = FolderRegistry(tmp_path / "registry")
        version = mine.add(tiny(2 + index % 3))
        mine.promote("tiny", version.number, by=str(index))
        return version.number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(promote, range(16)))
    assert sorted(numbers) == list(range(2, 18))
    roles = FolderRegistry(tmp_path / "registry").roles("tiny")
    assert (roles.generation, len({one.by for one in roles.history})) == (16, 16)
