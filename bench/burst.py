"""What a loop makes of ten times its usual rate for a minute: the readings lost, the memory it takes, the lag.

A line of 20 Blocks a second (25 readings of 1 000 float32 values each) sends 200 a second for 60 s; the path works
through 150 a second at most, and 4 MB may wait for it. What the loop does not take waits with the line, as with a
broker. `burst_grown_mb` is how much the process grew at most from before the first Block; the burst is 1.2 GB.
`burst_worked_off_s`: from the line's last Block until everything was worked through and durable.
"""

import tempfile
from pathlib import Path

from tests.loop.bursts import Phase, burst

from bench.figures import Figure, figure, options, publish

USUAL, TIMES, CAPACITY = 20, 10, 150
SECONDS, QUICK = 60, 6
QUEUE = "4MB"


def main() -> None:
    asked = options(__doc__)
    seconds = QUICK if asked.quick else SECONDS
    phases = [Phase(2, USUAL), Phase(seconds, USUAL * TIMES), Phase(2, USUAL)]
    with tempfile.TemporaryDirectory() as folder:
        told = burst(Path(folder), phases, CAPACITY, {"run.queue_bytes": QUEUE})
    lost = told.sent - len(set(told.logged))
    figures: list[Figure] = [
        figure("burst_mb", told.volume / 1e6, "MB"),
        figure("burst_lost_rows", lost, "rows", goal="<= 0"),
        figure("burst_doubled_rows", len(told.logged) - len(set(told.logged)), "rows", goal="<= 0"),
        figure("burst_shed_rows", told.accounting.shed, "rows", goal="<= 0"),
        figure("burst_queue_mb", told.most_bytes / 1e6, "MB", goal="<= 4"),
        figure("burst_grown_mb", told.grown / 1e6, "MB", goal="<= 60"),
        figure("burst_waited_with_the_line", told.waited, "Blocks"),
        figure("burst_watermark_delay_s", told.delay, "s"),
        figure("burst_worked_off_s", told.worked_off, "s"),
    ]
    publish(figures, asked)


if __name__ == "__main__":
    main()
