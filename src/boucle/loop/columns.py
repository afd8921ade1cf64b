"""What a product's declaration tells of its columns: from topics through steps to tables, rules and commands.

Nothing is run: operators answer `trace` from their settings, SQL is parsed, rules are read. An operator that does not
answer, cannot be imported or refuses its settings makes its output `*`: any column from any input, and says why.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import structs

from boucle.act.guard import Limits, read_limits
from boucle.act.rules import CommandRule, Condition, Rule, Scaled, read_rules
from boucle.act.says import columns_of
from boucle.catalog.entry import Entry, Field, TableEntry
from boucle.catalog.graph import WHOLE, Link, Node
from boucle.catalog.lineage import dataset
from boucle.catalog.sql import TracedSql, trace_sql
from boucle.catalog.things import Lineage, Thing
from boucle.errors import BoucleError
from boucle.loop.plan import find_operator
from boucle.ports import From, How, Traced
from boucle.product.document import LoopDocument, StepSpec
from boucle.product.project import Settings
from boucle.product.transforms import TransformSpec
from boucle.stream.origin import ANY, opaque, traced_windows

__all__ = ["Foreign", "trace_product"]

Foreign = Callable[[str], tuple[Node, Sequence[str]] | None]
"""A table of another product by its name, `product.table` or the table's alone when one product has it."""

_OWN = {"", "raw", "silver", "gold", "changed", "removed"}
"""What stands before the name of a product's own table; anything else is the id of another product."""
_PREVIOUS = "previous"
"""A transformation's own table as it was (`boucle.refine`)."""
_NAME = re.compile(r'(?:\b(?:from|join|using|pivot)|,)\s*("?[\w-]+"?(?:\."?[\w-]+"?)?)', re.IGNORECASE)
_FAILS = (
    ArithmeticError, AssertionError, AttributeError, BoucleError, ImportError, LookupError, NameError, OSError,
    RuntimeError, SyntaxError, TypeError, ValueError,
)  # fmt: skip
"""What a stranger's module may raise when it is imported or asked: one product must not stop a catalogue."""


def trace_product(
    entry: Entry,
    folder: Path,
    foreign: Foreign = lambda _: None,
    fill: Callable[[str], str] | None = None,
) -> Lineage:
    """The lineage of one product; never raises for what the product declares, it is told in `problems`.

    `fill` puts settings into addresses, by default those of the product's boucle.toml.
    """
    return _Tracer(entry, folder, foreign, fill).traced()


class _Tracer:
    def __init__(
        self, entry: Entry, folder: Path, foreign: Foreign, fill: Callable[[str], str] | None
    ) -> None:
        self._entry, self._folder, self._foreign = entry, folder, foreign
        self._promised = {table.name: table for table in entry.tables}
        self._things: dict[Node, Thing] = {}
        self._links: dict[Link, None] = {}
        self._problems: dict[str, None] = {}
        self._streams: dict[str, tuple[Node, list[str]]] = {}
        self._fill: Callable[[str], str] = str
        try:
            self._fill = fill or Settings(folder).fill
        except BoucleError as error:
            self._problem(str(error))

    def traced(self) -> Lineage:
        for port in self._entry.inputs:
            if port.contract and port.contract != self._entry.contract:
                promised = self._promised.get(port.name)
                fields = promised.fields if promised else ()
                self._thing(
                    Thing("input", self._entry.id, port.name, port.contract, port.description, fields)
                )
        loop = self._loop()
        if loop is not None:
            self._sources(loop)
            for step in loop.steps:
                self._step(step)
            self._tables(loop)
            self._rules(loop)
        self._contract_tables(loop)
        self._sql(loop)
        self._declared()
        return Lineage(tuple(self._things.values()), tuple(self._links), tuple(self._problems))

    def _problem(self, what: str) -> None:
        self._problems[what[:400]] = None

    def _thing(self, thing: Thing) -> Node:
        self._things.setdefault(thing.node, thing)
        return thing.node

    def _link(
        self, source: Node, target: Node, how: How = "IDENTITY", says: str = "", step: str = ""
    ) -> None:
        if source != target:
            self._links[Link(source, target, how, says, step)] = None

    def _loop(self) -> LoopDocument | None:
        if self._entry.loop is None:
            return None
        try:
            return msgspec.convert(self._entry.loop, LoopDocument)
        except (msgspec.ValidationError, RecursionError) as error:
            self._problem(f"the Loop document: {error}")
            return None

    # ── where rows come in ────────────────────────────────────────────────────────────────────

    def _sources(self, loop: LoopDocument) -> None:
        inputs = {one.name: one for one in self._things}
        for name, spec in loop.sources.items():
            try:
                address = self._fill(spec.from_)
            except BoucleError:
                address = spec.from_
            try:
                known = dataset(address, name=name if address.startswith("opc.tcp:") else "")
                topic = f"{known.namespace}/{known.name}"
            except ValueError as error:
                self._problem(f"source {name}: {error}")
                topic = address
            promised = self._promised.get(spec.schema, TableEntry(spec.schema))
            node = self._thing(Thing("topic", "", topic, name, promised.description, promised.fields))
            columns = [field.name for field in promised.fields] or [ANY]
            self._streams[name] = (node, columns)
            self._streams[f"{name}/late"] = (node, columns)
            port = inputs.get(name) or inputs.get(spec.schema)
            for column in columns if port is not None else ():
                assert port is not None
                self._link(port.of(column), node.of(column), says="delivered under contract", step=name)

    # ── steps ─────────────────────────────────────────────────────────────────────────────────

    def _step(self, step: StepSpec) -> None:
        read = {name: self._streams[name][1] for name in step.from_ if name in self._streams}
        told = self._told(step, read)
        node = Node("stream", self._entry.id, step.id)
        title = step.title.get("en") or step.use.rpartition(":")[2]
        fields = tuple(self._handed_on(name, made) for name, made in told.columns.items())
        self._thing(Thing("stream", self._entry.id, step.id, title, step.use, fields, told.unknown))
        for column, made in told.columns.items():
            for one in made:
                self._made(one, node.of(column), step.id)
        for one in told.rows:
            self._made(one, node, step.id)
        for name in read:
            self._link(self._streams[name][0], node, says="its rows", step=step.id)
        self._streams[step.id] = (node, list(told.columns))
        self._streams[f"{step.id}/late"] = (node, [ANY])
        model = step.with_.get("model")
        if isinstance(model, str):
            self._model(step, model, told)

    def _handed_on(self, name: str, made: Sequence[From]) -> Field:
        """A column as it is promised where it comes from unchanged: its type, unit and PII class go with it."""
        for one in made:
            source = self._streams.get(one.stream)
            if one.how == "IDENTITY" and source is not None:
                known = {field.name: field for field in self._things[source[0]].fields}
                if one.column in known:
                    return structs.replace(known[one.column], name=name, key=False, required=False, rules=())
        return Field(name)

    def _told(self, step: StepSpec, read: Mapping[str, Sequence[str]]) -> Traced:
        try:
            factory = find_operator(step.use, self._folder)
            asked = getattr(factory, "trace", None)
            if asked is None and factory.__module__ == "boucle.stream.window":
                asked = traced_windows
            if asked is None:
                return opaque(read, f"{step.use} does not declare its columns")
            more = {"folder": self._folder} if "folder" in inspect.signature(asked).parameters else {}
            told = asked(read, **step.with_, **more)
        except _FAILS as error:
            said = f"{error.what}: {error.why}" if isinstance(error, BoucleError) else f"{error}"
            self._problem(f"step {step.id} ({step.use}) cannot be traced: {said or type(error).__name__}")
            return opaque(read, f"{step.use} cannot be traced: {said}"[:200])
        if not isinstance(told, Traced):
            return opaque(read, f"{step.use}.trace gives no Traced")
        return told

    def _made(self, one: From, target: Node, step: str) -> None:
        source = self._streams.get(one.stream)
        if source is None:
            table = self._thing(Thing("input", self._entry.id, one.stream, "file"))
            self._link(table.of(one.column), target, one.how, one.says, step)
            return
        node, columns = source
        if one.column not in columns:
            if ANY not in columns:
                self._problem(f"step {step} reads {one.stream}.{one.column}, which is not there")
                return
            columns.append(one.column)
            self._link(node.of(ANY), node.of(one.column), "UNKNOWN", "its columns are not declared", step)
        self._link(node.of(one.column), target, one.how, one.says, step)

    def _model(self, step: StepSpec, model: str, told: Traced) -> None:
        node = self._thing(
            Thing("model", self._entry.id, Path(model).name, step.id, f"scored by step {step.id}")
        )
        says = f"scored by the model {node.name}"
        inputs = {one for made in told.columns.values() for one in made if one.says == says}
        for one in sorted(inputs, key=lambda one: one.column):
            self._made(From(one.stream, one.column, "TRANSFORMATION", "input of the model"), node, step.id)

    # ── tables ────────────────────────────────────────────────────────────────────────────────

    def _tables(self, loop: LoopDocument) -> None:
        for name, spec in loop.tables.items():
            stream = self._streams.get(spec.from_)
            if stream is None:
                self._problem(f"table {name} is fed by {spec.from_}, which nothing produces")
                continue
            source, columns = stream
            kept = [column for column in columns if not spec.columns or column in spec.columns]
            promised = self._promised.get(name, TableEntry(name))
            known = {field.name: field for field in promised.fields}
            inherited = {field.name: field for field in self._things[source].fields}
            listed = dict.fromkeys([*kept, *known])
            fields = tuple(known.get(one) or inherited.get(one) or Field(one) for one in listed if one != ANY)
            node = self._thing(
                Thing(
                    "table",
                    self._entry.id,
                    name,
                    spec.zone,
                    promised.description,
                    fields,
                    self._open(columns),
                )
            )
            for column in kept:
                self._link(source.of(column), node.of(column), step=name)
            for column in known:
                if column not in columns and ANY in columns:
                    self._made(From(spec.from_, column), node.of(column), name)
                elif column not in columns:
                    self._problem(f"table {name}: {spec.from_} does not give the promised column {column}")
            self._link(source, node, says="its rows", step=name)

    def _open(self, columns: Sequence[str]) -> str:
        return "some of its columns are not declared" if ANY in columns else ""

    def _contract_tables(self, loop: LoopDocument | None) -> None:
        sources = {spec.schema for spec in loop.sources.values()} if loop else set()
        for name, promised in self._promised.items():
            made = Node("table", self._entry.id, name)
            if name in sources or made in self._things or promised.kind in ("topic", "stream"):
                continue
            node = self._thing(
                Thing("table", self._entry.id, name, "", promised.description, promised.fields)
            )
            for field in promised.fields:
                for source in field.made_from:
                    table, _, column = source.rpartition(".")
                    self._from_table(
                        table or source, column if table else WHOLE, node.of(field.name), "UNKNOWN"
                    )

    def _declared(self) -> None:
        """A product without a loop or SQL: from its inputs to its tables, nobody says how."""
        inputs = [node for node in self._things if node.kind == "input"]
        outputs = [node for node in self._things if node.kind == "table"]
        if self._entry.loop is not None or self._links or not inputs:
            return
        for port in inputs:
            for table in outputs:
                self._link(port.of(ANY), table, "UNKNOWN", "the product does not say how")

    # ── SQL ───────────────────────────────────────────────────────────────────────────────────

    def _sql(self, loop: LoopDocument | None) -> None:
        """The declared transformations in an order in which each finds its inputs; else every file of `sql/`."""
        declared = dict(loop.transforms) if loop is not None else {}
        if not declared:
            for file in sorted(self._folder.glob("sql/**/*.sql")):
                self._file(file, file.stem)
        while declared:
            ready = [
                name
                for name, spec in declared.items()
                if not {_bare(one) for one in spec.from_} & set(declared)
            ]
            for name in ready or list(declared):
                self._transform(name, declared.pop(name))

    def _transform(self, name: str, spec: TransformSpec) -> None:
        node = Node("table", self._entry.id, name)
        promised = self._promised.get(name, TableEntry(name))
        self._things.setdefault(
            node, Thing("table", self._entry.id, name, spec.zone, promised.description, promised.fields)
        )
        if spec.use == "sql":
            self._file(self._folder / (spec.sql or f"sql/{name}.sql"), name)
            return
        why = "a dbt project: its models are not read"
        self._things[node] = structs.replace(self._things[node], unknown=why)
        for table in spec.from_:
            self._from_table(table, WHOLE, node, "UNKNOWN", why, name)

    def _file(self, file: Path, target: str) -> None:
        shown = file.relative_to(self._folder).as_posix() if file.is_relative_to(self._folder) else str(file)
        try:
            text = file.read_text(encoding="utf-8")
            told = trace_sql(text, self._columns(text))
        except (BoucleError, OSError, ValueError) as error:
            why = error.why if isinstance(error, BoucleError) else str(error)
            self._problem(f"{shown} cannot be read: {why}")
            return
        for one in told:
            self._query(one, one.target or target, shown)

    def _columns(self, text: str) -> dict[str, list[str]]:
        """The tables a query may name: the product's own, and those of others it speaks of."""
        known = {
            node.name: [field.name for field in thing.fields]
            for node, thing in self._things.items()
            if node.kind in ("table", "input") and thing.fields
        }
        for name in dict.fromkeys(_names(text)):
            if (_bare(name) not in known or name.rpartition(".")[0] not in _OWN) and (
                found := self._foreign(name)
            ) is not None:
                known[name] = list(found[1])
        return known

    def _query(self, told: TracedSql, target: str, shown: str) -> None:
        name = _bare(target)
        for problem in told.problems:
            self._problem(f"{shown}: {problem}")
        fields = tuple(Field(column) for column in told.columns)
        unknown = "; ".join(told.problems)
        node = Node("table", self._entry.id, name)
        known = self._things.get(node)
        if known is None or not known.fields:
            zone = target.rpartition(".")[0]
            self._things[node] = Thing(
                "table", self._entry.id, name, zone, f"made by {shown}", fields, unknown
            )
        for column, made in told.columns.items():
            for one in made:
                self._from_table(one.stream, one.column, node.of(column), one.how, one.says, shown)
        if unknown:
            self._things[node] = structs.replace(self._things[node], unknown=unknown)
        for one in told.rows:
            self._from_table(one.stream, one.column, node, one.how, one.says, shown)
        for table in told.reads:
            self._from_table(table, WHOLE, node, "FILTER", "its rows are read", shown)

    def _from_table(
        self, table: str, column: str, target: Node, how: How, says: str = "", step: str = ""
    ) -> None:
        name = _bare(table)
        if name == _PREVIOUS:
            return  # what was published before: the table itself
        elsewhere = self._foreign(table) if table.rpartition(".")[0] not in _OWN else None
        if elsewhere is not None:
            self._link(elsewhere[0].of(column), target, how, says, step)
            return
        for kind in ("table", "input"):
            own = Node(kind, self._entry.id, name)
            if own in self._things:
                self._link(own.of(column), target, how, says, step)
                return
        found = self._foreign(table)
        if found is None:
            self._problem(f"{step or target.name} reads {table}, a table that nobody in this catalogue has")
            found = self._thing(Thing("input", self._entry.id, table)), ()
        self._link(found[0].of(column), target, how, says, step)

    # ── rules and commands ────────────────────────────────────────────────────────────────────

    def _rules(self, loop: LoopDocument) -> None:
        rules, wrong = read_rules(loop.rules, streams=self._streams, limits=self._limits(loop))
        for _, what, _ in wrong:
            self._problem(what)
        for rule in rules:
            self._rule(rule)

    def _limits(self, loop: LoopDocument) -> dict[str, Limits]:
        limits = {}
        for name, actuator in loop.actuators.items():
            for signal, declared in actuator.limits.items():
                try:
                    limits[f"{name}/{signal}"] = read_limits(declared)
                except BoucleError as error:
                    self._problem(f"{name}/{signal}: {error.what}")
        return limits

    def _rule(self, rule: Rule) -> None:
        node = self._thing(
            Thing("rule", self._entry.id, rule.id, rule.on, f"on {rule.on}: {_when(rule.when)}")
        )
        for condition in rule.when:
            self._made(From(rule.on, condition.column, "FILTER", _condition(condition)), node, rule.id)
        columns = self._streams[rule.on][1]
        for column in rule.per:
            if column in columns or ANY in columns:
                self._made(From(rule.on, column, "GROUP_BY", "each has its own episode"), node, rule.id)
        if rule.event is not None:
            event = self._thing(Thing("event", self._entry.id, rule.event.kind, rule.event.severity.value))
            self._link(node, event, "CONDITIONAL", "the rule tells it", rule.id)
            for column in sorted(columns_of(rule.event.says)):
                self._made(From(rule.on, column, "TRANSFORMATION", "told in its sentence"), event, rule.id)
        for command in rule.commands:
            self._command(rule, node, command)

    def _command(self, rule: Rule, node: Node, told: CommandRule) -> None:
        target = self._thing(
            Thing("command", self._entry.id, told.target, told.verb, told.says.get("en", ""))
        )
        self._link(node, target, "CONDITIONAL", "the rule gives it", rule.id)
        for column in sorted(columns_of(told.target)):
            self._made(From(rule.on, column, "CONDITIONAL", "says whom"), target, rule.id)
        if isinstance(told.value, Scaled):
            self._made(From(rule.on, told.value.of, "TRANSFORMATION", _scaled(told.value)), target, rule.id)
            return
        for column in sorted(columns_of(told.value)):
            self._made(From(rule.on, column, "TRANSFORMATION", "written into the order"), target, rule.id)


def _bare(table: str) -> str:
    """`readings` of `raw.readings` and of `changed.readings`."""
    return table.rpartition(".")[2]


def _names(text: str) -> Iterator[str]:
    """Every word of a query that stands where a table is named."""
    for match in _NAME.finditer(text):
        yield match[1].replace('"', "")


def _condition(condition: Condition) -> str:
    value = ", ".join(map(str, condition.value)) if condition.compare == "in" else condition.value
    return f"{condition.column} {condition.compare} {value}"


def _when(conditions: Iterable[Condition]) -> str:
    return " and ".join(_condition(one) for one in conditions)


def _scaled(value: Scaled) -> str:
    words = [value.of]
    words += [f"× {value.times:g}"] if value.times != 1 else []
    words += [f"+ {value.plus:g}"] if value.plus else []
    words += [f"at least {value.at_least:g}"] if value.at_least is not None else []
    words += [f"at most {value.at_most:g}"] if value.at_most is not None else []
    return ", ".join([" ".join(words[:3]), *words[3:]]) if len(words) > 3 else ", ".join(words)
