"""Changes who is champion, challenger and candidate again and again, and is killed while it does: `… FOLDER RUN SEED`.

It begins when the first row was scored. Each child promotes, rolls back and gives roles until it is killed, and the
next one begins, until standard input ends.
"""

import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from boucle.errors import BoucleError
from boucle.models.registry import registry_of

_MOST = 55
"""Changes altogether: the journal of a step keeps so many before it forgets."""


def child(folder: Path, seed: int) -> None:
    """Change roles until somebody kills it."""
    registry, chance = registry_of(folder), random.Random(seed)
    while registry.generation("fraud") < _MOST:
        version = chance.randint(1, 3)
        what = chance.choice(["champion", "champion", "challenger", "candidate", "back"])
        try:
            if what == "back":
                registry.rollback("fraud", by="promoter")
            else:
                registry.promote("fraud", version, what, by="promoter")
        except BoucleError as error:
            if error.code != "B623":  # nobody to go back to
                raise
        time.sleep(chance.uniform(0.01, 0.15))


def main() -> None:
    """One child after the other, each killed after a while, until standard input ends."""
    folder, run, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    chance, kills = random.Random(seed), 0
    while not (run / "steps" / "scored" / "switches.jsonl").exists():
        if select.select([sys.stdin], [], [], 0.02)[0]:
            break
    while not select.select([sys.stdin], [], [], 0)[0]:
        pid = os.fork()
        if pid == 0:
            try:
                child(folder, seed + kills)
                time.sleep(60)
            finally:
                os._exit(1)
        select.select([sys.stdin], [], [], chance.uniform(0.05, 0.6))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), status
        kills += 1
    print(kills)


if __name__ == "__main__":
    main()
