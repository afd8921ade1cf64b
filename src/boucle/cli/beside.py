"""What a replay is told beside the run it is held against: table by table, row by row."""

import fcntl
import os
import re
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.bus.log import EventLog
from boucle.clock import Nanos
from boucle.loop.compare import Compared, Unequal, compare, derived_rows, moment
from boucle.loop.replay import Ahead, Span
from boucle.loop.run import Loop
from boucle.loop.tables import EVENTS

__all__ = ["Verdict", "against"]

_OF_A_RULE = re.compile(r"(?!receipt-)[^/]+/.*/\d+")
"""The id of an event that a rule told; all others tell of disks, connections and machines as they were then."""


class Verdict(Struct, frozen=True):
    """A replay held against a run."""

    run: str
    compared_from: Nanos | None
    compared_to: Nanos | None
    warm: Nanos
    from_its_beginning: bool
    """Nothing lies before what was replayed: the steps' state is that of the run."""
    goes_on: bool
    """The run was still going on."""
    events_apart: int
    """Events of the run that no rule told; they are not compared."""
    tables: list[Compared]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return all(one.same for one in self.tables)

    def plain(self) -> dict[str, Any]:
        """For `--json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for name in ("compared_from", "compared_to"):
            plain[name] = None if plain[name] is None else moment(plain[name])
        plain["warm"] = self.warm / 1e9
        return {"same": self.same, **plain}

    def lines(self, language: str) -> list[str]:
        """For people."""
        words = _WORDS[language]
        lines = [words["head"].format(run=self.run), *self._honest(words)]
        width = max([len(one.table) for one in self.tables] + [8])
        names = ("equal", "different", "only_live", "only_replay")
        lines.append(f"{'':<{width}} " + " ".join(f"{words[name]:>14}" for name in names))
        for one in self.tables:
            counts = (one.equal, one.different, one.only_live, one.only_replay)
            lines.append(f"{one.table:<{width}} " + " ".join(f"{count:>14}" for count in counts))
        for one in self.tables:
            lines += _details(one, words)
        lines.append(words["same" if self.same else "not_same"])
        return lines

    def _honest(self, words: dict[str, str]) -> list[str]:
        since = words["begin"] if self.compared_from is None else moment(self.compared_from)
        until = words["end"] if self.compared_to is None else moment(self.compared_to)
        lines = ["  " + words["span"].format(since=since, until=until)]
        if not self.from_its_beginning:
            lines.append("  " + words["state"].format(warm=f"{self.warm / 1e9:g} s"))
        if self.goes_on:
            lines.append("  " + words["goes_on"])
        if self.events_apart:
            lines.append("  " + words["apart"].format(count=self.events_apart))
        return lines


_WORDS = {
    "en": {
        "head": "against {run}", "begin": "its first row", "end": "its last row",
        "span": "compared: rows from {since} up to {until}",
        "state": "state: built from {warm} of warm-up; what a step remembers from before is missing here",
        "goes_on": "the run goes on: what it had not decided when the replay began is not compared",
        "apart": "{count} events of disks, connections and commands are not compared",
        "equal": "equal", "different": "different", "only_live": "only live", "only_replay": "only replay",
        "column": "{column} differs in {count} rows", "lost": "columns only live: {columns}",
        "new": "columns only in the replay: {columns}", "live": "live", "replay": "replay", "none": "no such row",
        "same": "the same", "not_same": "not the same",
    },
    "fr": {
        "head": "face à {run}", "begin": "sa première ligne", "end": "sa dernière ligne",
        "span": "comparées : les lignes de {since} à {until}",
        "state": "état : reconstruit sur {warm} ; ce qu'une étape retient d'avant manque ici",
        "goes_on": "la course continue : ce qui n'y était pas décidé au début du rejeu n'est pas comparé",
        "apart": "{count} événements de disques, connexions et commandes ne sont pas comparés",
        "equal": "égales", "different": "différentes", "only_live": "seulement vif", "only_replay": "seulement rejeu",
        "column": "{column} diffère dans {count} lignes", "lost": "colonnes seulement en vif : {columns}",
        "new": "colonnes seulement au rejeu : {columns}", "live": "vif", "replay": "rejeu",
        "none": "pas de telle ligne", "same": "identiques", "not_same": "pas identiques",
    },
}  # fmt: skip


def _details(one: Compared, words: dict[str, str]) -> list[str]:
    if one.same:
        return []
    lines = ["", one.table]
    lines += ["  " + words["lost"].format(columns=", ".join(one.columns_only_live))] * bool(
        one.columns_only_live
    )
    lines += ["  " + words["new"].format(columns=", ".join(one.columns_only_replay))] * bool(
        one.columns_only_replay
    )
    lines += ["  " + words["column"].format(column=name, count=count) for name, count in one.columns.items()]
    for row in one.first:
        lines += _side_by_side(row, words)
    return lines


def _side_by_side(row: Unequal, words: dict[str, str]) -> list[str]:
    width = max(len(words["live"]), len(words["replay"]))
    lines = ["  " + ", ".join(f"{name}={value}" for name, value in row.key.items())]
    for side, found in (("live", row.live), ("replay", row.replay)):
        said = words["none"]
        if found is not None:
            said = ", ".join(f"{name}={_short(value)}" for name, value in found.items())
        lines.append(f"    {words[side]:<{width}}  {said}")
    return lines


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def against(loop: Loop, sources: dict[str, Ahead], run: Path, span: Span) -> Verdict:
    """Hold the tables of a replay that has ended against those of a run, in the span that both decided."""
    document = loop.plan.project.loop
    goes_on = any(_in_use(run / "log" / name) for name in sources)
    end = span.until
    if goes_on or end is not None:
        ends = [source.reached for source in sources.values() if source.reached]
        end = min([*ends, *([] if end is None else [end])], default=None)
    tables, apart = [], 0
    declared = {name: (spec.from_, spec.key, spec.columns) for name, spec in document.tables.items()}
    declared[EVENTS] = (EVENTS, ["id"], [])
    for name, (stream, key, columns) in declared.items():
        if stream not in loop.tables.derived:
            continue
        live, replay = (
            derived_rows(folder / "log" / stream, columns, span.since, end) for folder in (run, loop.folder)
        )
        if stream == EVENTS:
            live, gone = _of_rules(live)
            replay, _ = _of_rules(replay)
            apart += gone
        tables.append(compare(name, key, live, replay))
    beginning = span.begin is None and all(
        EventLog(run / "log" / name).start().offset == 0 for name in sources
    )
    return Verdict(str(run), span.since, end, span.warm, beginning, goes_on, apart, tables)


def _of_rules(events: pa.Table | None) -> tuple[pa.Table | None, int]:
    if events is None:
        return None, 0
    told = [_OF_A_RULE.fullmatch(one) is not None for one in events.column("id").to_pylist()]
    return events.filter(pa.array(told, pa.bool_())), told.count(False)


def _in_use(log: Path) -> bool:
    """Whether a process writes this log now."""
    try:
        handle = os.open(log / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
