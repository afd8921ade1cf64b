"""The output ports a product declares (ODPS), and whether what they give is what the contract promised.

`type` says the interface: `sql`, `flight`, `rest`, `files`, `events` (or `tables`: the lake's table as it lies).
Our settings stand in the port's `customProperties`: `table` (default: the port's name); of files `format` (`parquet`,
`csv`), `every` (how often, 1h), `keep` (how many versions, 7) and `folder`; of events `to` (a sink of the bus, a
webhook's `http(s)://`, a log's `file://`), `topic`, `secret` (the variable of the environment that signs a webhook's
events) and `attempts` (at a webhook that fails, 5).
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from msgspec import Struct

from boucle.address import parse_address
from boucle.errors import BoucleError, ContractBroken, Problem
from boucle.outlet.notes import TableNote
from boucle.product.duration import seconds
from boucle.product.lines import Document

__all__ = ["KINDS", "SCHEMES", "OutputPort", "check_contract", "output_ports", "port_problems"]

KINDS = ("tables", "sql", "flight", "rest", "files", "events")
_SETTINGS: dict[str, tuple[str, ...]] = {
    "tables": (),
    "sql": ("table",),
    "flight": ("table",),
    "rest": ("table",),
    "files": ("table", "format", "every", "keep", "folder"),
    "events": ("table", "to", "topic", "secret", "attempts"),
}
SCHEMES = ("http", "https", "file")
"""What events can go to beside the sinks of the bus."""
_FORMATS = ("parquet", "csv")


class OutputPort(Struct, frozen=True):
    """One declared interface."""

    name: str
    kind: str
    table: str
    version: str
    settings: dict[str, str]


def output_ports(product: Mapping[str, Any]) -> list[OutputPort]:
    """The ports of an ODPS document, in its order."""
    ports = []
    for one in product.get("outputPorts") or ():
        custom = {item["property"]: str(item["value"]) for item in one.get("customProperties") or ()}
        table = custom.get("table", one["name"])
        ports.append(
            OutputPort(one["name"], one.get("type", "tables"), table, str(one.get("version", "")), custom)
        )
    return ports


def port_problems(product: Document, about: Mapping[str, TableNote]) -> Iterator[Problem]:
    """What `boucle check` says about the ports: unknown types, settings, formats, addresses and tables."""
    for index, port in enumerate(output_ports(product.value)):
        line = product.line(("outputPorts", index))

        def problem(what: str, fix: str, code: str = "B846", line: int = line) -> Problem:
            return Problem(code, what, product.file, line, fix=fix)

        if port.kind not in KINDS:
            near = difflib.get_close_matches(port.kind, KINDS, n=1)
            fix = f'did you mean "{near[0]}"?' if near else f"one of {', '.join(KINDS)}"
            yield problem(f"port {port.name}: there is no interface {port.kind!r}", fix)
            continue
        known = _SETTINGS[port.kind]
        for name in sorted(set(port.settings) - {*known, "boucle"} if port.kind != "tables" else ()):
            yield problem(
                f"port {port.name}: a port of type {port.kind} has no setting {name!r}",
                f"known: {', '.join(known)}",
            )
        if port.kind != "tables" and port.table not in about:
            near = difflib.get_close_matches(port.table, about, n=1)
            fix = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(sorted(about))}"
            yield problem(f"port {port.name}: the contract says nothing of a table {port.table!r}", fix)
        if (form := port.settings.get("format", "parquet")) not in _FORMATS:
            yield problem(f"port {port.name}: files cannot be {form!r}", f"one of {', '.join(_FORMATS)}")
        for what, fix, code in _unusable(port):
            yield problem(f"port {port.name}: {what}", fix, code)


def _unusable(port: OutputPort) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the settings that say how often, how many and where: what, fix, code."""
    for name in ("keep", "attempts"):
        if not (text := port.settings.get(name, "1")).isdecimal() or not 0 < int(text[:9]) <= 10_000:
            yield f"{name} cannot be {text!r}", "a whole number from 1 to 10000", "B846"
    try:
        seconds(port.settings.get("every", "1h"))
    except BoucleError as error:
        yield error.what, error.fix, error.code
    to = port.settings.get("to", "")
    if to and to.partition("://")[0] not in SCHEMES:
        try:
            parse_address(to.replace("{", "").replace("}", ""), "sink")
        except BoucleError as error:
            yield error.what, error.fix, error.code


def _fits(kind: pa.DataType, wanted: str) -> bool:
    tests = {
        "string": pa.types.is_string,
        "integer": pa.types.is_integer,
        "boolean": pa.types.is_boolean,
        "timestamp": pa.types.is_timestamp,
        "date": lambda one: pa.types.is_date(one) or pa.types.is_timestamp(one) or pa.types.is_string(one),
        "time": lambda one: pa.types.is_time(one) or pa.types.is_string(one),
        "array": lambda one: pa.types.is_list(one) or pa.types.is_large_list(one),
        "object": lambda one: pa.types.is_struct(one) or pa.types.is_map(one),
        "number": lambda one: (
            pa.types.is_floating(one) or pa.types.is_decimal(one) or pa.types.is_integer(one)
        ),
    }
    test = tests.get(wanted)
    return test is None or bool(test(kind))


def check_contract(table: str, schema: pa.Schema, note: TableNote) -> None:
    """Hold a table's columns against its contract; `ContractBroken` (B845) lists every difference.

    A column the contract does not name is no difference. A table without columns was not written yet: nothing is said.
    """
    if not schema.names:
        return
    wrong = []
    for name, promised in note.columns.items():
        if name not in schema.names:
            wrong.append(f'"{name}" is missing')
        elif not _fits(schema.field(name).type, promised.type):
            wrong.append(f'"{name}" is {schema.field(name).type}, not {promised.type}')
    if wrong:
        raise ContractBroken(
            "B845",
            f'table "{table}" is not what its contract promises',
            why="; ".join(wrong),
            fix="mend the step that feeds it, or the contract (boucle diff says for whom that breaks)",
        )
