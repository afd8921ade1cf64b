"""What was told about an episode, held against the truth."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from bench.attribution.episodes import MACHINE, Episode
from bench.attribution.rows import START
from boucle.block import Block, Position
from boucle.clock import SECOND
from boucle.drift import Attribute
from boucle.testing.scenario import Fault

__all__ = ["Outcome", "Said", "judge", "score"]

FAULTY = ("sensor", "machine")


class Said(Struct, frozen=True):
    """One verdict that was issued: the same family, cause and subject for some seconds; times in seconds."""

    family: str
    cause: str
    subject: str
    """The sensor, `all` or `machine`."""
    candidates: tuple[str, ...]
    begun: float
    ended: float
    onset: float
    confidence: float
    """When it was first said."""


class Outcome(Struct, frozen=True):
    """Everything that was said in an episode."""

    episode: Episode
    said: tuple[Said, ...]
    seconds: int

    @property
    def issued(self) -> tuple[Said, ...]:
        """Verdicts about a sensor or the machine."""
        return tuple(one for one in self.said if one.family in FAULTY)

    @property
    def alarms(self) -> tuple[Said, ...]:
        """What a person would have been called for, with nothing wrong (yet)."""
        first = self.episode.faults[0].onset if self.episode.faults else float("inf")
        return tuple(one for one in self.said if one.family in (*FAULTY, "unknown") and one.begun < first)

    @property
    def last(self) -> Said | None:
        """The verdict the episode ends with; what stood last when it ended with none."""
        return self.issued[-1] if self.issued else None

    def begun(self, said: Said) -> list[Fault]:
        """What was wrong when this was said; a second counts as a whole."""
        return [fault for fault in self.episode.faults if fault.onset <= said.ended + 1]

    def right_family(self, said: Said) -> bool:
        """Whether something of this family was wrong."""
        if said.family == "operation":
            return any(change.at <= said.ended + 1 for change in self.episode.scenario.operation)
        return any(fault.family == said.family for fault in self.begun(said))

    def right_sensor(self, said: Said) -> bool:
        """Whether a faulty sensor is among the candidates."""
        named = {sensor for one in said.candidates for sensor in sensors(one)}
        return any(named & set(fault.sensors) for fault in self.begun(said) if fault.family == "sensor")

    def right(self, said: Said) -> bool:
        """Whether the family is right, and for a sensor the sensor too: what an action rests on."""
        return self.right_family(said) and (said.family != "sensor" or self.right_sensor(said))

    def right_cause(self, said: Said) -> bool:
        """Whether cause and, for a sensor, the sensor are what is wrong."""
        return any(
            fault.family == said.family
            and fault.kind == said.cause
            and (fault.family == "machine" or set(sensors(said.subject)) == set(fault.sensors))
            for fault in self.begun(said)
        )


def sensors(subject: str) -> tuple[str, ...]:
    """The sensors a subject stands for."""
    return ("vib_x", "vib_y", "vib_z") if subject == "all" else (subject,)


def judge(episode: Episode, rows: pa.Table) -> Outcome:
    """Let the verdict engine see an episode, second by second."""
    batch = rows.combine_chunks().to_batches()[0]
    (told,) = Attribute("verdicts").step(Block("health", batch, 0, Position("rows", 0)))
    return Outcome(episode, tuple(_runs(told.rows.to_pylist())), batch.num_rows)


def _runs(rows: Sequence[Mapping[str, Any]]) -> Iterable[Said]:
    run: list[Mapping[str, Any]] = []
    for row in (*rows, None):
        if run and (row is None or _key(row) != _key(run[-1])):
            if run[-1]["family"] != "none":
                yield _said(run)
            run = []
        if row is not None:
            run.append(row)


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["family"], row["cause"], row["subject"]


def _said(run: Sequence[Mapping[str, Any]]) -> Said:
    last = run[-1]
    evidence = msgspec.json.decode(last["evidence"])
    subject = last["subject"].partition("/")[2] or MACHINE
    begun, ended = (
        _seconds(row["at"]) + 1 for row in (run[0], last)
    )  # a row is known when its second is over
    return Said(
        family=last["family"],
        cause=last["cause"],
        subject=subject,
        candidates=tuple(evidence.get("candidates", [subject])),
        begun=begun,
        ended=ended,
        onset=_seconds(last["onset"]) if last["onset"] is not None else begun,
        confidence=run[0]["confidence"],
    )


def _seconds(at: Any) -> float:
    return float(at.timestamp()) - START / SECOND


class Score(Struct, frozen=True):
    """The figures of a set of episodes; shares in percent."""

    family_right: float
    wear_called_sensor: float
    decided: float
    sensor_in_set: float
    exact_cause: float
    alarms: int
    quiet_seconds: int
    verdicts: int
    episodes: int


def score(outcomes: Sequence[Outcome]) -> Score:
    """The figures of the issue over everything that was said."""
    faulty = [one for one in outcomes if one.episode.faults]
    said = [(one, verdict) for one in outcomes for verdict in one.said if verdict.family != "unknown"]
    worn = [one for one in faulty if any(fault.family == "machine" for fault in one.episode.faults)]
    wrong_sensor = [
        one for one in worn if any(v.family == "sensor" and not one.right_sensor(v) for v in one.issued)
    ]
    last = [(one, one.last) for one in faulty if one.last is not None and one.right_family(one.last)]
    of_sensors = [(one, verdict) for one, verdict in last if verdict.family == "sensor"]
    return Score(
        family_right=_share(one.right_family(verdict) for one, verdict in said),
        wear_called_sensor=100 * len(wrong_sensor) / max(1, len(worn)),
        decided=_share(bool(one.issued) for one in faulty),
        sensor_in_set=_share(one.right_sensor(verdict) for one, verdict in of_sensors),
        exact_cause=_share(one.right_cause(verdict) for one, verdict in last),
        alarms=sum(len(one.alarms) for one in outcomes),
        quiet_seconds=round(
            sum(min([one.seconds, *(f.onset for f in one.episode.faults)]) for one in outcomes)
        ),
        verdicts=len(said),
        episodes=len(outcomes),
    )


def _share(hits: Iterable[bool]) -> float:
    known = list(hits)
    return 100 * sum(known) / max(1, len(known))
