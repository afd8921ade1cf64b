"""Refining that is killed: `python -m tests.refine.killed_refiner FOLDER KILLS SEED`.

One child after the other brings payments in, refines all that was declared, joins files and vacuums, round and round,
until it is killed (SIGKILL) after some milliseconds; the last one does two rounds and ends.
"""

from pathlib import Path

from boucle.lake.delta import LakeTable
from boucle.lake.upkeep import compact
from boucle.lake.whole import Lake
from boucle.refine.run import refine
from boucle.refine.transform import transforms_of
from tests.killed_children import main
from tests.refine.payments import payments, shop


def work(folder: Path, rounds: int) -> None:
    lake = Lake(folder / "lake")
    transforms = transforms_of(shop())
    table = LakeTable(lake.path("raw", "payments"), partition_by=("day",))
    for _ in range(rounds):
        number = (table.transaction("w") or 0) + 1
        card = f"card-{number % 3}"
        table.append(payments((number, number % 5, card, 1.0)), app="w", transaction=number)
        for one in transforms:
            refine(one, lake, folder / "work")
        compact(table)
        compact(lake.find("accepted"))


if __name__ == "__main__":
    main(work, alive=(0.05, 0.8), last=2)
