"""Writers that are killed: `python -m tests.lake.killed_writer ADDRESS LOG KILLS SEED`.

The parent has everything imported and forks one writer after the other, each killed after some milliseconds; the
one after the last is left to its end. It prints how many kills met a writer that had not ended.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from boucle.address import parse_address
from boucle.bus.log import EventLog
from boucle.clock import SystemClock
from boucle.lake.postgres import PostgresTable
from boucle.lake.writer import Feed, LakeWriter


def write(address: str, log: str) -> None:
    """Commit what the table lacks, fifty rows at a time."""
    table = PostgresTable(parse_address(address, "table"), "killed", "raw")
    writer = LakeWriter([Feed(EventLog(Path(log), stream="readings"), table)], SystemClock(), rows=50)
    writer.step(force=True)
    assert not writer.failures, writer.failures


def child(address: str, log: str) -> int:
    """The process id of a writer."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            write(address, log)
            status = 0
        finally:
            os._exit(status)
    return pid


def main(address: str, log: str, kills: int, seed: int) -> None:
    chance, met = random.Random(seed), 0
    for _ in range(kills):
        pid = child(address, log)
        time.sleep(chance.uniform(0.005, 0.06))
        os.kill(pid, signal.SIGKILL)
        met += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    _, status = os.waitpid(child(address, log), 0)
    assert status == 0
    print(met)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
