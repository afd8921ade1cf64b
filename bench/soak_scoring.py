"""Kill products that score, while their models change, some hundred times: `python -m bench.soak_scoring --kills 300`.

Champion, shadow, canary, Performance and Explain in one product; another process promotes, rolls back and is killed
too. Each round ends with a run that nobody disturbs, told the same versions from the same rows on; every table must be
the same. Progress goes to standard error.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.story.killing_scored import Killed, kill, killer

from bench.figures import Figure, Options, figure, publish

ROWS, ROUND = 1000, 12


def rounds(folder: Path, kills: int, seed: int) -> list[Killed]:
    """Rounds until there were enough kills; what a sound one wrote is removed."""
    found: list[Killed] = []
    with killer() as by:
        while sum(one.kills.total() for one in found) < kills:
            here = folder / f"seed-{seed}"
            here.mkdir()
            found.append(kill(by, here, seed, rows=ROWS, kills=ROUND))
            sys.stderr.write(f"seed {seed}: {found[-1]}\n")
            if found[-1].sound:
                shutil.rmtree(here)
            seed += 1
    return found


def figures(found: list[Killed], seconds: float) -> list[Figure]:
    """What to publish."""
    judged = [one.judged for one in found]
    wrong = sum(one.elsewhere + one.unequal for one in judged) + sum(len(one.differing) for one in found)
    return [
        figure("soak_scoring_kills", sum(one.kills.total() for one in found), "kills"),
        figure("soak_scoring_switches", sum(one.switches for one in judged), "switches"),
        figure("soak_scoring_rows", ROWS * len(found), "rows"),
        figure("soak_scoring_missing", sum(one.missing for one in judged), "rows", goal="<= 0"),
        figure("soak_scoring_twice", sum(one.twice for one in judged), "rows", goal="<= 0"),
        figure("soak_scoring_unscored", sum(one.unscored for one in judged), "rows", goal="<= 0"),
        figure("soak_scoring_other", wrong, "rows and tables", goal="<= 0"),
        figure("soak_scoring_seconds", seconds, "s"),
    ]


def main() -> int:
    """Soak, publish; 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300, help="how many at least (300)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round (1)")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    asked = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = rounds(Path(folder), 2 * ROUND if asked.quick else asked.kills, asked.seed)
    publish(figures(found, time.monotonic() - begun), Options(quick=asked.quick, json=asked.json))
    if not asked.json:
        for moment, count in sorted(sum((one.kills for one in found), Counter[str]()).items()):
            print(f"{count:6}  {moment}")
    return 0 if all(one.sound for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
