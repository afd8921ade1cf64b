"""Did the sensor change or the machine: verdicts on some six hundred simulated episodes nobody tuned on.

Episodes of one press (bench/attribution): every fault of a sensor and of the machine alone, in pairs, after a
change of the operating point, changes without a fault, and nothing at all. Feature rows are made by the edge and the
features of the press product out of 10 kHz waveforms, and kept under run/drift; the verdict engine then sees them
second by second. Beside it ADWIN, KSWIN, the population stability index and a report of Kolmogorov-Smirnov tests see
the same rows (every fourth episode), with the kindest reading of what they say (bench/attribution/peers.py).

Faults of kinds that no rule knows (bench/attribution/strange.py) and presses that are each other's witnesses
(bench/attribution/fleet.py) have tables of their own.

False alarms are counted on months of sound presses (bench/attribution/quiet.py): halls of two presses, day after day,
drawn without waveforms and judged by the same step; days that were judged before are kept.

A full run renews the tables of docs/why/sensor-or-machine.md (make bench-drift).
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from os import sched_getaffinity
from typing import Any, TypeVar

from bench.all import renew
from bench.attribution import fleet, page, peers, quiet, strange
from bench.attribution.episodes import FINAL, Episode, draw, healthy
from bench.attribution.rows import rows_of, simulate
from bench.attribution.score import Outcome, judge, score
from bench.figures import ROOT, Figure, figure, options, publish
from boucle.block import Block, Position
from boucle.drift import Attribute

_One = TypeVar("_One")
_Told = TypeVar("_Told")

PAGE = ROOT / "docs" / "why" / "sensor-or-machine.md"
SOUND, SOUND_SECONDS = 12, 1800
DAYS = 54
"""Days of two presses: more than three months of running."""


def ours(episode: Episode) -> Outcome:
    return judge(episode, rows_of(episode))


def theirs(name: str, episode: Episode) -> Outcome:
    return peers.judge(name, episode, rows_of(episode))


def cost_ms(episode: Episode) -> float:
    """What a verdict of one machine and second costs, median."""
    (batch,) = rows_of(episode).combine_chunks().to_batches()
    step, times = Attribute("verdicts"), []
    for index in range(batch.num_rows):
        block = Block("health", batch.slice(index, 1), 0, Position("rows", index))
        begun = time.perf_counter()
        step.step(block)
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times)


def figures(outcomes: Sequence[Outcome], sound: Sequence[Outcome], days: Sequence[quiet.Judged], best: tuple[str, Any],
            cost: float) -> list[Figure]:  # fmt: skip
    told, rival = score(outcomes), best[1]
    everything = score([*outcomes, *sound])
    months = sum(one.running for one in days) / quiet.MONTH
    alarms = sum(len(one.alarms) for one in days)
    late = [
        said[0].begun - one.episode.faults[0].onset
        for one in outcomes
        if one.episode.faults and (said := [v for v in one.issued if one.right_family(v)])
    ]
    return [
        figure("family_right", told.family_right, "%", goal=">= 95", peer=best[0], peer_value=rival.family_right),
        figure("wear_called_sensor", told.wear_called_sensor, "%", goal="<= 1", peer=best[0],
               peer_value=rival.wear_called_sensor),
        figure("decided", told.decided, "%", goal=">= 85", peer=best[0], peer_value=rival.decided),
        figure("sensor_in_set", told.sensor_in_set, "%", goal=">= 99", peer=best[0], peer_value=rival.sensor_in_set),
        figure("exact_cause", told.exact_cause, "%", goal=">= 90"),
        figure("false_alarms_per_machine_month", alarms / months, "1/month", goal="<= 1"),
        figure("false_alarms_at_most_95", quiet.at_most(alarms, months), "1/month", goal="<= 1"),
        figure("sound_machine_months", months, "months"),
        figure("sound_waveform_hours", everything.quiet_seconds / 3600, "h"),
        figure("false_alarms_in_them", everything.alarms, ""),
        figure("verdict_delay_median_s", statistics.median(late) if late else math.nan, "s"),
        figure("confidence_off_by", page.confidences(outcomes)[1], ""),
        figure("episodes", told.episodes, ""),
        figure("verdict_ms", cost, "ms"),
    ]  # fmt: skip


def mapped(work: Callable[[_One], _Told], episodes: Iterable[_One]) -> list[_Told]:
    with ProcessPoolExecutor(len(sched_getaffinity(0))) as pool:
        return list(pool.map(work, episodes, chunksize=8))


def main() -> None:
    asked = options(__doc__)
    episodes = list(draw(FINAL, 0.06 if asked.quick else 1.0))
    calm = list(healthy(FINAL, 1 if asked.quick else SOUND, 300 if asked.quick else SOUND_SECONDS))
    halls = list(fleet.fleets(FINAL, 1 if asked.quick else 16))
    beside = [one.episode for one in halls if one.kind != "together"]  # which has the rows of `alone`
    for left in simulate([*episodes, *calm, *beside], workers=len(sched_getaffinity(0))):
        if left % 20 == 0:
            print(f"{left} episodes to simulate ...", file=sys.stderr, flush=True)
    outcomes, sound = mapped(ours, episodes), mapped(ours, calm)
    odd = mapped(strange.judged, strange.strange(FINAL, 0.06 if asked.quick else 1.0))
    witnessed = {
        kind: mapped(fleet.judged, [one for one in halls if one.kind == kind]) for kind in fleet.KINDS
    }
    some = episodes[:: 1 if asked.quick else 4]
    rivals = {"boucle": score(mapped(ours, some))}
    rivals |= {name: score(mapped(partial(theirs, name), some)) for name in peers.PEERS}
    name = max(peers.PEERS, key=lambda one: rivals[one].family_right)
    days = list(
        quiet.months(
            1 if asked.quick else DAYS, len(sched_getaffinity(0)), quiet.HOUR if asked.quick else quiet.DAY
        )
    )
    measured = figures(outcomes, sound, days, (name, rivals[name]), cost_ms(episodes[0]))
    if not asked.quick:
        text = PAGE.read_text(encoding="utf-8")
        for part, body in (
            ("confusion", page.confusion(outcomes)),
            ("groups", page.groups(outcomes)),
            ("delays", page.delays(outcomes)),
            ("confidence", page.confidences(outcomes)[0]),
            ("strange", strange.table(odd)),
            ("fleet", fleet.table(witnessed)),
            ("rivals", page.rivals(rivals)),
            ("sound", quiet.table(days)),
        ):
            text = renew(text, part, body)
        PAGE.write_text(text, encoding="utf-8")
    publish(measured, asked)


if __name__ == "__main__":
    main()
