"""Kill products that score, while their models change, 120 times: `python -m bench.soak_scoring`.

Champion, shadow, canary, Performance and Explain in one product; another process promotes, rolls back and is killed
too. Each round ends with a run that nobody disturbs, told the same versions from the same rows on; every table must be
the same. Progress goes to standard error.
"""

import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.story.killing_scored import Killed, kill, killer

from bench.figures import Figure, figure, options, publish

ROWS, ROUND, KILLS = 1000, 12, 120


def rounds(folder: Path, kills: int) -> list[Killed]:
    """Rounds until there were enough kills; what a sound one wrote is removed."""
    found: list[Killed] = []
    seed = 1
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
    asked = options(__doc__)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = rounds(Path(folder), 2 * ROUND if asked.quick else KILLS)
    publish(figures(found, time.monotonic() - begun), asked)
    if not asked.json:
        for moment, count in sorted(sum((one.kills for one in found), Counter[str]()).items()):
            print(f"{count:6}  {moment}")
    return 0 if all(one.sound for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
