"""Both tables of the lake room keep every rule of the Table port."""

from collections.abc import Callable
from pathlib import Path

import pytest

from boucle.lake.delta import LakeTable
from boucle.lake.memory import MemoryTable
from boucle.ports import Table
from boucle.testing.conformance.table import TABLE_CHECKS, OpenTable


def delta_tables(folder: Path) -> OpenTable:
    return lambda name: LakeTable(folder / "silver" / name)


def memory_tables(folder: Path) -> OpenTable:
    known: dict[str, Table] = {}
    return lambda name: known.setdefault(name, MemoryTable(name))


@pytest.mark.parametrize("opener", [delta_tables, memory_tables], ids=["delta", "memory"])
@pytest.mark.parametrize("check", TABLE_CHECKS, ids=lambda check: check.__name__)
def test_table(
    opener: Callable[[Path], OpenTable], check: Callable[[OpenTable], None], tmp_path: Path
) -> None:
    check(opener(tmp_path))
