"""Incremental transformations apply each input once, wherever they are killed."""

import subprocess
import sys
from pathlib import Path

from boucle.lake.delta import LakeTable
from boucle.lake.whole import Lake
from tests.refine.payments import ask


def test_killed_while_it_refines_each_payment_counts_once(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.refine.killed_refiner", str(tmp_path), "12", "3"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 12
    lake = Lake(tmp_path / "lake")
    last = LakeTable(lake.path("raw", "payments")).transaction("w")
    assert last is not None
    assert ask(lake, "accepted", ["id"]) == [(number,) for number in range(1, last + 1)]
    spent = ask(lake, "spent", ["card", "sum(payments)", "sum(spent)"], group=["card"])
    wanted = {f"card-{card}": sum(n % 3 == card for n in range(1, last + 1)) for card in range(3)}
    assert {card: (int(count), total) for card, count, total in spent} == {
        card: (count, float(count)) for card, count in wanted.items() if count
    }
