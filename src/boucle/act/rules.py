"""What a product declares as its rules, read and checked; every mistake is told, not only the first."""

import operator
import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from boucle.act.guard import Limits, is_number
from boucle.act.says import columns_of
from boucle.clock import SECOND, Nanos
from boucle.errors import BoucleError
from boucle.event import Severity
from boucle.product.duration import seconds
from boucle.product.suggestion import near

__all__ = ["CommandRule", "Condition", "EventRule", "Rule", "Scaled", "read_rules"]

_COMPARISON = re.compile(r"\s*(<=|>=|<|>|!=)\s*(.+?)\s*")
_COMPARES = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "!=": operator.ne,
    "==": operator.eq,
}
_LANGUAGES = ("en", "fr")


class Condition(Struct, frozen=True):
    """One column compared with one value, or with a list of allowed ones."""

    column: str
    compare: str
    value: Any

    def holds(self, value: Any) -> bool:
        """Whether a value meets it; what is unknown (null, NaN) never does."""
        if value is None or value != value:  # noqa: PLR0124 - NaN
            return False
        if self.compare == "in":
            return any(_same(value, one) for one in self.value)
        if self.compare in {"==", "!="}:
            return _same(value, self.value) == (self.compare == "==")
        return is_number(value) and bool(_COMPARES[self.compare](value, self.value))


def _same(value: Any, wanted: Any) -> bool:
    # True == 1 in Python, but not in a product file.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


class Scaled(Struct, frozen=True, forbid_unknown_fields=True):
    """A number computed from a column: `of × times + plus`, kept within `at_least` and `at_most`."""

    of: str
    times: float = 1.0
    plus: float = 0.0
    at_least: float | None = None
    at_most: float | None = None

    def of_row(self, row: Mapping[str, Any]) -> float:
        """The value; NaN, which the guard refuses, when the column is unknown."""
        given = row[self.of]
        if not is_number(given):
            return float("nan")
        value = float(given) * self.times + self.plus
        value = value if self.at_least is None else max(value, self.at_least)
        return value if self.at_most is None else min(value, self.at_most)


class EventRule(Struct, frozen=True, forbid_unknown_fields=True):
    """The Event a rule gives."""

    kind: str
    severity: Severity
    says: dict[str, str]


class CommandRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Command a rule gives; `value` is a number, a `Scaled`, or an order with `{columns}`."""

    target: str
    verb: str
    value: Any
    expires: str | float
    approval: bool = False
    says: dict[str, str] = {}

    def lifetime(self) -> Nanos:
        """How long it is valid, in nanoseconds."""
        return int(seconds(self.expires) * SECOND)


class _Declared(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    on: str
    when: dict[str, Any]
    per: list[str] = msgspec.field(default_factory=lambda: ["machine", "sensor"])
    hold: str | float = 0.0
    once: Literal["episode", "row"] = "episode"
    rearm: str | float = 0.0
    event: EventRule | None = None
    commands: list[CommandRule] = []


class Rule(Struct, frozen=True, kw_only=True):
    """When rows of `on` meet every condition for `hold`, say and do this; times in nanoseconds.

    With `once: episode` it speaks once, until the conditions were false for `rearm`; with `row` for
    each row. `per` are the columns that tell subjects apart, as far as the stream has them.
    """

    id: str
    on: str
    when: tuple[Condition, ...]
    per: tuple[str, ...]
    hold: Nanos
    once: Literal["episode", "row"]
    rearm: Nanos
    event: EventRule | None
    commands: tuple[CommandRule, ...]

    def columns(self) -> set[str]:
        """Every column it needs."""
        found = {condition.column for condition in self.when}
        found |= columns_of(self.event.says) if self.event is not None else set()
        for command in self.commands:
            found |= columns_of(command.target) | columns_of(command.says)
            found |= {command.value.of} if isinstance(command.value, Scaled) else columns_of(command.value)
        return found


def read_rules(
    declared: list[dict[str, Any]], *, streams: Collection[str], limits: Mapping[str, Limits]
) -> tuple[list[Rule], list[tuple[int, str, str]]]:
    """The good rules, and of the others (number, what is wrong, how to fix it)."""
    rules: list[Rule] = []
    found: list[tuple[int, str, str]] = []
    for index, one in enumerate(declared):
        reader = _Reader(streams, limits)
        rule = reader.rule(one)
        name = one.get("id", f"number {index + 1}") if isinstance(one, Mapping) else f"number {index + 1}"
        found += [(index, f"rule {name}: {what}", fix) for what, fix in reader.found]
        if rule is not None and not reader.found:
            rules.append(rule)
            if sum(other.id == rule.id for other in rules) > 1:
                found.append((index, f"rule {name}: another rule has this id", "give each its own"))
    return rules, found


class _Reader:
    def __init__(self, streams: Collection[str], limits: Mapping[str, Limits]) -> None:
        self.found: list[tuple[str, str]] = []
        self._streams, self._limits = streams, limits

    def wrong(self, what: str, fix: str) -> None:
        self.found.append((what, fix))

    def rule(self, one: Any) -> Rule | None:
        try:
            told = msgspec.convert(one, _Declared)
        except msgspec.ValidationError as error:
            self.wrong(str(error), "see the rules of the press example")
            return None
        if told.on not in self._streams:
            self.wrong(f"there is no stream {told.on!r}", near(told.on, sorted(self._streams)))
        if not told.when:
            self.wrong("it has no condition", "say when: {column: value}")
        if told.event is None and not told.commands:
            self.wrong("it neither says nor does anything", "give it an event or commands")
        if told.event is not None:
            self.says(told.event.says, "event")
        return Rule(
            id=told.id,
            on=told.on,
            when=tuple(self.condition(column, value) for column, value in told.when.items()),
            per=tuple(told.per),
            hold=self.nanos(told.hold),
            once=told.once,
            rearm=self.nanos(told.rearm),
            event=told.event,
            commands=tuple(self.command(command) for command in told.commands),
        )

    def nanos(self, text: str | float) -> Nanos:
        try:
            return int(seconds(text) * SECOND)
        except BoucleError as error:
            self.wrong(error.what, error.fix)
            return 0

    def condition(self, column: str, value: Any) -> Condition:
        if isinstance(value, list):
            return Condition(column, "in", tuple(value))
        match = _COMPARISON.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            if value is None or isinstance(value, Mapping):
                self.wrong(f"{column}: {value!r} cannot be compared", 'write a value, a list, or "<= 0.7"')
            return Condition(column, "==", value)
        sign, text = match.groups()
        try:
            return Condition(column, sign, float(text))
        except ValueError:
            if sign != "!=":
                self.wrong(f"{column}: {text!r} is no number", f'write a number: "{sign} 0.7"')
            return Condition(column, sign, text)

    def says(self, says: Mapping[str, str], where: str) -> None:
        for language in _LANGUAGES:
            if language not in says:
                self.wrong(f"{where}: the sentence in {language} is missing", "say it in en and fr")
        self.template(dict(says), where)

    def template(self, template: Any, where: str) -> None:
        try:
            columns_of(template)
        except ValueError as error:
            self.wrong(f"{where}: {error}", "write plain column names in braces: {machine}")

    def command(self, told: CommandRule) -> CommandRule:
        self.template(told.target, "target")
        if told.says:
            self.says(told.says, told.target)
        lifetime = self.nanos(told.expires) / SECOND
        actuator, _, rest = told.target.partition("/")
        machine, _, signal = rest.rpartition("/")
        limits = self._limits.get(f"{actuator}/{signal}") if machine else None
        if limits is None:
            what = f"nobody declared limits for {told.target}"
            self.wrong(
                what, f"write actuator/machine/signal; {near(f'{actuator}/{signal}', sorted(self._limits))}"
            )
            return told
        if limits.expires is not None and lifetime > limits.expires:
            what = f"{told.target} lives {lifetime:g} s, and its limit is {limits.expires:g} s"
            self.wrong(what, "shorten it: a rule never widens a limit")
        if told.verb != ("set" if limits.numeric else "order"):
            self.wrong(f"{told.target} does not know {told.verb!r}", "numbers are set, orders are ordered")
        return msgspec.structs.replace(told, value=self.value(told, limits))

    def value(self, told: CommandRule, limits: Limits) -> Any:
        if isinstance(told.value, Mapping) and "of" in told.value:
            try:
                value = msgspec.convert(told.value, Scaled)
            except msgspec.ValidationError as error:
                self.wrong(f"{told.target}: {error}", "value: {of: column, times: 0.75, at_least: 24}")
                return told.value
            self.within((value.at_least, value.at_most), told.target, limits)
            return value
        if limits.numeric and not is_number(told.value):
            self.wrong(f"{told.target} takes a number", "value: 24, or {of: column, times: 0.75}")
        elif limits.numeric:
            self.within((told.value,), told.target, limits)
        elif not isinstance(told.value, Mapping):
            self.wrong(f"{told.target} takes an order", "value: {WorkType: Maintenance, …}")
        else:
            self.template(told.value, told.target)
        return told.value

    def within(self, values: tuple[float | None, ...], target: str, limits: Limits) -> None:
        if limits.minimum is None or limits.maximum is None:
            self.wrong(f"{target} takes an order", "value: {WorkType: Maintenance, …}")
            return
        for value in values:
            if value is not None and not limits.minimum <= value <= limits.maximum:
                what = f"{target}: {value:g} is outside {limits.minimum:g} to {limits.maximum:g}"
                self.wrong(what, "stay within the limits: a rule never widens one")
