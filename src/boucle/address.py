"""Addresses name where data comes from and goes to: `mqtt://host:1883/press/+/vibration`.

Which class serves a scheme is a table of text, imported only when an address of that scheme is
opened; strangers add theirs by entry point (`boucle.sources`, `boucle.sinks`, `boucle.actuators`, `boucle.tables`).
"""

import difflib
import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

from boucle.errors import BoucleError, MissingExtra

__all__ = ["SCHEMES", "Address", "Port", "adapter", "known_schemes", "parse_address"]

Port: TypeAlias = Literal["source", "sink", "actuator", "table"]

SCHEMES: dict[Port, dict[str, str]] = {
    "source": {
        "file": "boucle.bus.files:FileSource",
        "memory": "boucle.bus.memory:MemorySource",
        "mqtt": "boucle.bus.mqtt:MqttSource",
        "mqtts": "boucle.bus.mqtt:MqttSource",
        "opc.tcp": "boucle.bus.opcua:OpcUaSource",
    },
    "sink": {
        "memory": "boucle.bus.memory:MemorySink",
        "mqtt": "boucle.bus.mqtt:MqttSink",
        "mqtts": "boucle.bus.mqtt:MqttSink",
    },
    "actuator": {
        "http": "boucle.act.mes:MesActuator",
        "https": "boucle.act.mes:MesActuator",
        "opc.tcp": "boucle.act.plc:PlcActuator",
        "training": "boucle.act.training:TrainingActuator",
    },
    "table": {
        "postgresql": "boucle.lake.postgres:PostgresTable",
    },
}


class Address(Struct, frozen=True):
    """A parsed address. `path` has no leading slash for network schemes."""

    text: str
    scheme: str
    host: str
    port: int | None
    path: str
    options: dict[str, str]


def known_schemes(port: Port) -> dict[str, str]:
    """Scheme → `module:Class` for one port, ours and strangers'."""
    return {**_strangers(port), **SCHEMES[port]}


@cache
def _strangers(port: Port) -> dict[str, str]:
    """Looked up once: it reads the metadata of every installed package."""
    return {entry.name: entry.value for entry in entry_points(group=f"boucle.{port}s")}


def parse_address(text: str, port: Port) -> Address:
    """Split an address and check its scheme; B204 names the likely typo and the known schemes.

    >>> parse_address("mqtt://gateway:1883/press/+/vibration?qos=1", "source").path
    'press/+/vibration'
    """
    split = urlsplit(text if "://" in text else text.replace(":", "://", 1))
    known = known_schemes(port)
    if split.scheme not in known:
        near = difflib.get_close_matches(split.scheme, known, n=1)
        hint = f'Did you mean "{near[0]}"? ' if near else ""
        raise BoucleError(
            "B204",
            f'"{text}": unknown {port} scheme "{split.scheme}"',
            fix=f"{hint}Known: {', '.join(sorted(known))}",
        )
    try:
        number = split.port
    except ValueError as error:
        raise BoucleError("B205", f'"{text}": {error}', fix="write the port as a number 1-65535") from None
    path = unquote(split.path)
    local = split.scheme in {"file", "memory"}
    return Address(
        text=text,
        scheme=split.scheme,
        host="" if local else split.hostname or "",
        port=number,
        path=(split.netloc + path) if local else path.removeprefix("/"),
        options=dict(parse_qsl(split.query, keep_blank_values=True)),
    )


def adapter(address: Address, port: Port) -> Any:
    """The class that serves an address, imported now; MissingExtra when its driver is absent."""
    module, _, name = known_schemes(port)[address.scheme].partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "boucle":
            raise
        raise MissingExtra(address.text, package, address.scheme) from error
