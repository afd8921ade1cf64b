"""Writers that are killed: `python -m tests.lake.killed_writer ADDRESS LOG KILLS SEED`.

The parent has everything imported and forks one writer after the other. Each kills itself (SIGKILL) at one of the
MOMENTS, which it may pass a few times before, or is killed by the parent after some milliseconds; the one after the
last is left to its end. It prints how many kills met a writer that had not ended, and how many rows those who died had
written.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from boucle.address import parse_address
from boucle.bus.log import EventLog
from boucle.clock import SystemClock
from boucle.lake.postgres import PostgresTable
from boucle.lake.writer import Feed, LakeWriter

MOMENTS = ("begun", "copied", "committed", "clock")
"""Within the transaction before any row, with the rows but before the commit, after it and before anybody heard."""


class Dying(PostgresTable):
    """A table whose process dies at a moment, after it passed `skip` times."""

    def __init__(self, address: str, moment: str, skip: int) -> None:
        super().__init__(parse_address(address, "table"), "killed", "raw")
        self._moment, self._left = moment, skip

    def _passes(self, moment: str) -> None:
        if moment == self._moment:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def _fit(self, *given: Any) -> None:
        self._passes("begun")
        super()._fit(*given)

    def _copy(self, *given: Any) -> None:
        super()._copy(*given)
        self._passes("copied")

    def append(self, *given: Any, **named: Any) -> int:
        version = super().append(*given, **named)
        self._passes("committed")
        return version


def write(address: str, log: str, moment: str, skip: int) -> None:
    """Commit what the table lacks, fifty rows at a time."""
    table = Dying(address, moment, skip)
    writer = LakeWriter([Feed(EventLog(Path(log), stream="readings"), table)], SystemClock(), rows=50)
    writer.step(force=True)
    assert not writer.failures, writer.failures


def child(address: str, log: str, moment: str = "", skip: int = 0) -> int:
    """The process id of a writer."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            write(address, log, moment, skip)
            status = 0
        finally:
            os._exit(status)
    return pid


def main(address: str, log: str, kills: int, seed: int) -> None:
    chance, met = random.Random(seed), 0
    for number in range(kills):
        moment = MOMENTS[number % len(MOMENTS)]
        pid = child(address, log, moment, chance.randrange(4))
        if moment == "clock":
            time.sleep(chance.uniform(0.0, 0.1))
            os.kill(pid, signal.SIGKILL)
        met += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    table = PostgresTable(parse_address(address, "table"), "killed", "raw")
    written = table.transaction("boucle/readings") or 0
    table.close()
    _, status = os.waitpid(child(address, log), 0)
    assert status == 0
    print(met, written)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
