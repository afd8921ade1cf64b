"""Checks product.yaml against the official schemas and against itself; lists every problem."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any, TypeAlias

import msgspec
from jsonschema.exceptions import ValidationError, best_match

from boucle.address import Port, parse_address
from boucle.errors import BoucleError, Problem, near
from boucle.product.consistency import consistency_problems
from boucle.product.contract import StreamContract
from boucle.product.document import KeepSpec, LoopDocument, SourceSpec, kept
from boucle.product.duration import seconds
from boucle.product.lines import Document, Path_
from boucle.product.odcs import compile_contract
from boucle.product.personal import personal_columns
from boucle.product.scalars import canonical
from boucle.product.size import size
from boucle.product.sla import compile_sla
from boucle.product.training_rules import training_problems
from boucle.product.validity import Validity

__all__ = ["check_documents", "kind_of", "loop_schema", "official_schema", "shape_problems", "standard_of"]

_STANDARDS = {"DataProduct": ("ODPS", "1.0.0"), "DataContract": ("ODCS", "3.1.0")}
"""The schema a document is held to; those of 3.1.0 and 1.0.0 accept what names an older version of theirs."""
_NEWER = {("DataContract", "v3.2.0"): ("ODCS", "3.2.0")}


def standard_of(kind: str, api_version: Any = None) -> tuple[str, str]:
    """Which standard a kind of document keeps, and which of its schemas, for what its `apiVersion` says."""
    return _NEWER.get((kind, str(api_version)), _STANDARDS[kind])


@cache
def official_schema(kind: str, api_version: str = "") -> dict[str, Any]:
    """The official JSON Schema of a `DataProduct` (ODPS) or a `DataContract` (ODCS)."""
    file = "{}-{}.json".format(*standard_of(kind, api_version)).lower()
    text = (resources.files("boucle.product") / "schemas" / file).read_text(encoding="utf-8")
    return dict(json.loads(text))


@cache
def _validity(kind: str, api_version: str) -> Validity:
    return Validity(loop_schema() if kind == "Loop" else official_schema(kind, api_version))


def _fits(document: Document, kind: str, validity: Validity) -> bool:
    """Whether there is nothing to say of a document's shape; found out much faster than what there is to say."""
    if kind != "Loop":
        return validity(document.value)
    try:
        msgspec.convert(document.value, LoopDocument)
    except msgspec.ValidationError:
        return False
    return True


@cache
def loop_schema() -> dict[str, Any]:
    """The JSON Schema of our own `Loop` document."""
    return msgspec.json.schema(LoopDocument)


def check_documents(
    documents: Sequence[Document],
) -> tuple[dict[str, Document], dict[str, StreamContract], list[Problem]]:
    """The documents by kind, the compiled contracts, and all problems."""
    problems: list[Problem] = []
    by_kind: dict[str, Document] = {}
    known = (*_STANDARDS, "Loop")
    for document in documents:
        kind = kind_of(document)
        if kind not in known:
            problems.append(
                _problem(document, ("kind",), f"unknown kind {kind!r}", fix=f"one of {', '.join(known)}")
            )
        elif kind in by_kind:
            problems.append(
                _problem(document, ("kind",), f"a second {kind}", fix="one of each in a product.yaml")
            )
        else:
            by_kind[kind] = document
            problems += shape_problems(document, kind)
    file = documents[0].file if documents else "product.yaml"
    problems += [
        Problem("B211", f"there is no {kind} document", file, 1, fix=f"add `kind: {kind}` after a line `---`")
        for kind in known
        if kind not in by_kind
    ]
    contracts: dict[str, StreamContract] = {}
    if not problems:
        problems += consistency_problems(by_kind["DataContract"])
    if not problems:
        contracts, found = compile_contract(by_kind["DataContract"])
        problems += found
        problems += _loop_problems(by_kind, contracts)
    if not problems:
        loop = msgspec.convert(by_kind["Loop"].value, LoopDocument)
        problems += compile_sla(by_kind["DataContract"], loop, contracts)[1]
    return by_kind, contracts, problems


def kind_of(document: Document) -> Any:
    """What a document says it is; None when it is no mapping."""
    return document.value.get("kind") if isinstance(document.value, dict) else None


def shape_problems(document: Document, kind: str) -> Iterator[Problem]:
    """Where a document is not as the schema of its kind says."""
    version = document.value.get("apiVersion")
    validity = _validity(kind, version if isinstance(version, str) else "")
    if _fits(document, kind, validity):
        return
    said = "" if kind == "Loop" else "{} {} says so".format(*standard_of(kind, version))
    for error in sorted(
        validity.whole.iter_errors(document.value), key=lambda e: list(map(str, e.absolute_path))
    ):
        # Of several forms, the one that was meant: not "this is no null" for a mapping with one mistake in it.
        meant = [one for one in error.context or () if one.validator != "type" or one.relative_path]
        best = (best_match(meant or error.context) if error.context else None) or error
        path: Path_ = tuple(best.absolute_path)
        unknown = _unknown_keys(best)
        for key in unknown:
            yield _unknown(document, (*path, key), best, why=said)
        if not unknown:
            where = ".".join(str(part) for part in path) or kind
            fix = _quoted(document, path, best) or _fix(best)
            yield _problem(document, path, f"{where}: {_short(best.message)}", why=said, fix=fix)


def _unknown_keys(error: ValidationError) -> list[str]:
    if error.validator not in {"additionalProperties", "unevaluatedProperties"}:
        return []
    schema: Any = error.schema
    instance: Any = error.instance
    return [
        key for key in instance if key not in schema.get("properties", {}) and f"'{key}'" in error.message
    ]


def _unknown(document: Document, path: Path_, error: ValidationError, why: str) -> Problem:
    schema: Any = error.schema
    what = f"{'.'.join(map(str, path))}: there is no such setting"
    return _problem(document, path, what, why, near(str(path[-1]), schema.get("properties", {})))


def _quoted(document: Document, path: Path_, error: ValidationError) -> str:
    """`version: 1.10` is a number to YAML; what was meant is text."""
    wanted: Any = error.validator_value
    if error.validator != "type" or wanted != "string" or isinstance(error.instance, dict | list):
        return ""
    instance: Any = error.instance
    written = document.spelled.get(path, canonical(instance))
    return f"put it in quotes: '{written}'" if written else "give a text"


def _short(message: str) -> str:
    return message if len(message) < 200 else f"{message[:120]} … {message[-70:]}"


def _fix(error: ValidationError) -> str:
    if error.validator == "enum":
        allowed: Any = error.validator_value
        return f"one of {', '.join(map(str, allowed))}"
    if error.validator == "required":
        return "add it"
    return f"give a {error.validator_value}" if error.validator == "type" else ""


def _problem(
    document: Document, path: Path_, what: str, why: str = "", fix: str = "", code: str = "B209"
) -> Problem:
    return Problem(code, what, document.file, document.line(path), why, fix)


def _loop_problems(by_kind: dict[str, Document], contracts: dict[str, StreamContract]) -> list[Problem]:
    document = by_kind["Loop"]
    loop = msgspec.convert(document.value, LoopDocument)
    problems = []
    for kind, named in (("DataProduct", "product"), ("DataContract", "contract")):
        real = by_kind[kind].value["id"]
        if getattr(loop, named) != real:
            what = f"{named}: {getattr(loop, named)!r} is not the {kind} of this file"
            problems.append(_problem(document, (named,), what, fix=f"write {real!r}", code="B212"))
    problems += _source_problems(document, loop, contracts)
    problems += _step_problems(document, loop)
    problems += _address_problems(document, loop)
    problems += _query_problems(by_kind["DataContract"], loop, contracts)
    problems += training_problems(document, loop, set(personal_columns(by_kind["DataContract"].value)))
    return problems


def _source_problems(
    document: Document, loop: LoopDocument, contracts: dict[str, StreamContract]
) -> Iterator[Problem]:
    for name, source in loop.sources.items():
        path: Path_ = ("sources", name)
        if source.schema not in contracts:
            fix = near(source.schema, contracts)
            yield _problem(
                document, (*path, "schema"), f"no schema object {source.schema!r}", fix=fix, code="B212"
            )
            continue
        columns = [field.name for field in contracts[source.schema].fields]
        for setting in ("partition", "dedupe"):
            for column in getattr(source, setting):
                if column not in columns:
                    what = f"{setting}: {source.schema} has no column {column!r}"
                    yield _problem(document, (*path, setting), what, fix=near(column, columns), code="B212")
        yield from _amount_problems(document, path, source)


def _amount_problems(document: Document, path: Path_, source: SourceSpec) -> Iterator[Problem]:
    """Durations and sizes that cannot be read, and a log that forgets what a restart must know."""
    keep = kept(source.keep)
    amounts: list[_Amount] = [
        ((name,), seconds, getattr(source, name)) for name in ("lateness", "future", "idle", "horizon")
    ]
    amounts += [(("shed", "after"), seconds, source.shed.after)] if source.shed else []
    amounts += _keep_amounts(keep, named=not isinstance(source.keep, str))
    broken = False
    for place, problem in _unreadable(amounts):
        broken = True
        yield _problem(document, (*path, *place), problem[0], fix=problem[1], code=problem[2])
    if broken or not keep.age:
        return
    place = ("keep",) if isinstance(source.keep, str) else ("keep", "age")
    needed = seconds(source.horizon) + seconds(source.lateness)
    if seconds(keep.age) < needed:
        what = f"keep: {keep.age} is less than a restart must look back to know duplicates ({needed:g} s)"
        fix = "keep at least horizon + lateness"
        yield _problem(document, (*path, *place), what, fix=fix, code="B212")


_Amount: TypeAlias = tuple[Path_, Callable[[str], float], str]
"""Where an amount stands, how it is read, and what is written there."""


def _keep_amounts(keep: KeepSpec, *, named: bool) -> list[_Amount]:
    amounts: list[_Amount] = (
        [(("keep", "age") if named else ("keep",), seconds, keep.age)] if keep.age else []
    )
    return amounts + ([(("keep", "bytes"), size, keep.bytes)] if keep.bytes else [])


def _unreadable(amounts: list[_Amount]) -> Iterator[tuple[Path_, tuple[str, str, str]]]:
    """Amounts that say nothing: where, and what, fix and code."""
    for place, read, text in amounts:
        try:
            if read(text) > 0 or place[0] not in {"shed", "keep"}:
                continue
            yield place, (f"{'.'.join(map(str, place))}: {text} is nothing", "give more than 0", "B212")
        except BoucleError as error:
            yield place, (error.what, error.fix, error.code)


def _step_problems(document: Document, loop: LoopDocument) -> Iterator[Problem]:
    streams = list(loop.sources)
    for index, step in enumerate(loop.steps):
        for wanted in step.from_:
            if wanted not in streams:
                later = any(other.id == wanted for other in loop.steps[index:])
                why = "a step can only read what stands before it" if later else ""
                what = f"step {step.id} reads {wanted!r}, which nothing produces"
                fix = "move it up" if later else near(wanted, streams)
                yield _problem(document, ("steps", index, "from"), what, why, fix, "B212")
        if step.id in streams:
            yield _problem(document, ("steps", index, "id"), f"{step.id!r} names two streams", code="B212")
        streams.append(step.id)
        amounts = _keep_amounts(kept(step.keep), named=not isinstance(step.keep, str))
        for place, problem in _unreadable(amounts):
            yield _problem(document, ("steps", index, *place), problem[0], fix=problem[1], code=problem[2])
    for name, table in loop.tables.items():
        if table.from_ not in streams:
            what = f"table {name} is fed by {table.from_!r}, which nothing produces"
            yield _problem(
                document, ("tables", name, "from"), what, fix=near(table.from_, streams), code="B212"
            )
    for stream, where in ((loop.view.machines, "machines"), (loop.view.live, "live")):
        if stream and stream not in streams:
            what = f"view.{where}: nothing produces {stream!r}"
            yield _problem(document, ("view", where), what, fix=near(stream, streams), code="B212")


def _query_problems(
    contract: Document, loop: LoopDocument, contracts: dict[str, StreamContract]
) -> Iterator[Problem]:
    """Queries about a stream that no table of the lake keeps: a query asks all rows at once."""
    kept_streams = {table.from_ for table in loop.tables.values() if not table.to}
    for name, source in loop.sources.items():
        if name in kept_streams or source.schema not in contracts:
            continue
        for rule in contracts[source.schema].rules:
            if rule.kind == "sql":
                what = f"{rule.id}: a query asks a table, and no table of the lake keeps {name}"
                fix = f"tables: {{{name}: {{from: {name}, zone: raw}}}}, or a rule about rows"
                yield Problem("B255", what, contract.file, rule.line, fix=fix)


def _address_problems(document: Document, loop: LoopDocument) -> Iterator[Problem]:
    places: list[tuple[Path_, str, Port]] = [
        (("sources", name, "from"), source.from_, "source") for name, source in loop.sources.items()
    ]
    places += [
        (("actuators", name, "to"), actuator.to, "actuator") for name, actuator in loop.actuators.items()
    ]
    places += [(("tables", name, "to"), table.to, "table") for name, table in loop.tables.items() if table.to]
    if loop.commands:
        places.append((("commands", "from"), loop.commands.from_, "source"))
        if loop.commands.receipts:
            places.append((("commands", "receipts"), loop.commands.receipts, "sink"))
    for path, text, port in places:
        try:
            parse_address(text.replace("{", "").replace("}", ""), port)
        except BoucleError as error:
            yield _problem(document, path, error.what, error.why, error.fix, error.code)
