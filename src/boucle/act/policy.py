"""Declared rules at work: rows of a stream become Events for people and Commands for machines.

Only here do alerts become Commands. Everything is decided by event time and the rows alone, and
identities come from rule, subject and the time the episode began: a replay says the same again,
under the same ids, and the journal does nothing twice.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from boucle.act.rules import CommandRule, Condition, Rule, Scaled, read_rules
from boucle.act.says import fill, fill_value
from boucle.block import Block
from boucle.clock import Nanos
from boucle.errors import BoucleError
from boucle.event import Command, Event

__all__ = ["Condition", "Policy", "Rule", "read_rules"]

_TIME = "at"
_LEAST = 1024


class _Episode(Struct):
    """What a rule remembers of one subject; times are event times."""

    last: Nanos
    since: Nanos | None = None
    """When the conditions began to hold."""
    said: bool = False
    ended: Nanos | None = None
    """When they ceased to hold, after the rule spoke."""


class Policy:
    """Rules over the streams of one product. A row older than its subject's last one is not judged.

    Between two rows of a subject the first one's truth is taken to last. `decide` raises B715 when a
    stream lacks a column that a rule needs. A subject whose episode is over, and its `rearm` too, is forgotten once
    the watermark has passed both: whatever it says then begins anew anyhow.
    """

    def __init__(self, rules: Sequence[Rule], product: str) -> None:
        self.product = product
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.on, []).append(rule)
        self._read_of: dict[str, tuple[pa.Schema, list[tuple[str, int]], int]] = {}
        self._columns = {rule.id: {*rule.columns(), _TIME} for rule in rules}
        self._episodes: dict[str, dict[str, _Episode]] = {rule.id: {} for rule in rules}
        self._most = dict.fromkeys(self._episodes, _LEAST)
        """Subjects per rule at which it is looked who can be forgotten."""

    @property
    def subjects(self) -> int:
        """Subjects that something is remembered of, over all rules."""
        return sum(len(known) for known in self._episodes.values())

    def decide(self, block: Block, caused_at: Nanos = 0) -> tuple[list[Event], list[Command]]:
        """What the rules make of a Block; `caused_at` is the event time of the last sample behind it."""
        events: list[Event] = []
        commands: list[Command] = []
        rules = self._rules.get(block.stream, ())
        if rules:
            read = self._read(block, rules)
            for rule in rules:
                self._judge(rule, block.rows, read, caused_at, events, commands)
                self._forget(rule, block.watermark)
        return events, commands

    def _read(self, block: Block, rules: Sequence[Rule]) -> dict[str, list[Any]]:
        """The columns that tell whether rules speak, each once for all of them; times in ns."""
        schema = block.rows.schema
        known = self._read_of.get(block.stream)
        if known is None or not known[0].equals(schema):
            for rule in rules:
                if missing := self._columns[rule.id].difference(schema.names):
                    raise _no_column(rule, min(missing), schema.names)
            wanted = {condition.column for rule in rules for condition in rule.when}
            wanted |= {name for rule in rules for name in rule.per if name in schema.names}
            places = [(name, schema.get_field_index(name)) for name in sorted(wanted - {_TIME})]
            known = self._read_of[block.stream] = (schema, places, schema.get_field_index(_TIME))
        rows = block.rows
        read: dict[str, list[Any]] = {name: rows.column(place).to_pylist() for name, place in known[1]}
        read[_TIME] = rows.column(known[2]).view(pa.int64()).to_pylist()
        return read

    def _judge(
        self,
        rule: Rule,
        rows: pa.RecordBatch,
        read: Mapping[str, list[Any]],
        caused_at: Nanos,
        events: list[Event],
        commands: list[Command],
    ) -> None:
        per = [read[name] for name in rule.per if name in read]
        tested = [(condition, read[condition.column]) for condition in rule.when]
        for index, moment in enumerate(read[_TIME]):
            if moment is None:
                continue
            subject = "/".join(str(column[index]) for column in per)
            holds = all(condition.holds(column[index]) for condition, column in tested)
            began = self._follow(rule, subject, moment, holds=holds)
            if began is not None:
                row = _row(rows, index)
                self._speak(rule, subject, began, row, max(moment, caused_at), events, commands)

    def _follow(self, rule: Rule, subject: str, at: Nanos, *, holds: bool) -> Nanos | None:
        """When the episode began, if this row is the one that makes the rule speak."""
        episode = self._episodes[rule.id].setdefault(subject, _Episode(at))
        if at < episode.last:
            return None
        episode.last = at
        if not holds:
            if not episode.said:
                episode.since = None
            elif episode.ended is None:
                episode.ended = at
            if episode.said and episode.ended is not None and at - episode.ended >= rule.rearm:
                self._episodes[rule.id][subject] = _Episode(at)
            return None
        if episode.ended is not None and at - episode.ended >= rule.rearm:
            episode = self._episodes[rule.id][subject] = _Episode(at)
        episode.ended = None
        episode.since = at if episode.since is None else episode.since
        if at - episode.since < rule.hold or (episode.said and rule.once == "episode"):
            return None
        episode.said = True
        return at if rule.once == "row" else episode.since

    def _forget(self, rule: Rule, watermark: Nanos) -> None:
        known = self._episodes[rule.id]
        if len(known) > self._most[rule.id]:
            kept = {subject: one for subject, one in known.items() if not _is_over(one, rule, watermark)}
            self._episodes[rule.id] = kept
            self._most[rule.id] = max(_LEAST, 2 * len(kept))

    def _speak(
        self,
        rule: Rule,
        subject: str,
        began: Nanos,
        row: Mapping[str, Any],
        now: Nanos,
        events: list[Event],
        commands: list[Command],
    ) -> None:
        identity = f"{rule.id}/{subject}/{began}"
        because: tuple[str, ...] = ()
        if rule.event is not None:
            because = (identity,)
            events.append(
                Event(
                    id=identity,
                    product=self.product,
                    subject=str(row.get("subject") or subject),
                    kind=rule.event.kind,
                    at=row[_TIME],
                    severity=rule.event.severity,
                    says={lang: fill(text, row, lang) for lang, text in rule.event.says.items()},
                    evidence=_evidence(row),
                )
            )
        for number, told in enumerate(rule.commands):
            commands.append(_command(told, f"{identity}/{number}", because, row, now))

    def snapshot(self) -> bytes:
        """The episodes, as bytes."""
        return msgspec.msgpack.encode(self._episodes)

    def restore(self, state: bytes) -> None:
        """Continue from a snapshot; rules that did not exist then start afresh."""
        kept = msgspec.msgpack.decode(state, type=dict[str, dict[str, _Episode]])
        for rule in self._episodes:
            self._episodes[rule] = kept.get(rule, {})


def _is_over(episode: _Episode, rule: Rule, watermark: Nanos) -> bool:
    """Whether no row to come can tell this subject from one that was never seen."""
    if episode.ended is not None:
        return max(episode.last, episode.ended + rule.rearm) < watermark
    return episode.since is None and not episode.said and episode.last < watermark


def _no_column(rule: Rule, column: str, names: list[str]) -> BoucleError:
    near = difflib.get_close_matches(column, names, n=1)
    fix = f'did you mean "{near[0]}"?' if near else f"{rule.on} has: {', '.join(names)}"
    return BoucleError("B715", f"rule {rule.id}: the stream {rule.on} has no column {column!r}", fix=fix)


def _command(
    told: CommandRule, identity: str, because: tuple[str, ...], row: Mapping[str, Any], now: Nanos
) -> Command:
    value = told.value.of_row(row) if isinstance(told.value, Scaled) else fill_value(told.value, row)
    return Command(
        id=identity,
        target=fill(told.target, row),
        verb=told.verb,
        value=value,
        not_after=now + told.lifetime(),
        because=because,
        needs_approval=told.approval,
        issued_at=now,
        caused_at=now,
        says={lang: fill(text, row, lang) for lang, text in told.says.items()},
    )


def _row(rows: pa.RecordBatch, index: int) -> dict[str, Any]:
    """The row's plain values; times as nanoseconds, long lists left out."""
    row: dict[str, Any] = {}
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            row[field.name] = column[index].value
        elif not pa.types.is_nested(field.type):
            row[field.name] = column[index].as_py()
    return row


def _evidence(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if (
            name.startswith("says_")
            or value is None
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            continue
        found[name] = _unfolded(value) if name == "evidence" else value
    return found


def _unfolded(value: Any) -> Any:
    # A verdict's evidence comes as JSON text; one that does not is shown as it is.
    try:
        return msgspec.json.decode(value) if isinstance(value, str) else value
    except (msgspec.DecodeError, UnicodeDecodeError):
        return value
