"""Children that work until they are killed, one after the other; the parent has everything imported and forks them."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["main"]

Work = Callable[[Path, int], None]


def _child(work: Work, folder: Path, rounds: int) -> int:
    """The process id of one that works."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(folder, rounds)
            status = 0
        finally:
            os._exit(status)
    return pid


def main(work: Work, alive: tuple[float, float], last: int) -> None:
    """`FOLDER KILLS SEED`: kill each child after `alive` seconds at random, let one do `last` rounds and end.

    Prints how many kills met a child at work.
    """
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance, met = random.Random(seed), 0
    for _ in range(kills):
        pid = _child(work, folder, 10_000)
        time.sleep(chance.uniform(*alive))
        os.kill(pid, signal.SIGKILL)
        met += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    _, status = os.waitpid(_child(work, folder, last), 0)
    assert status == 0
    print(met)
