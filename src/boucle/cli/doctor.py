"""`boucle doctor`: what is installed, reachable or missing, and how to get it."""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

from boucle.address import parse_address
from boucle.errors import DeclarationError

__all__ = ["arguments", "run"]

_PACKAGES = {
    "pyarrow": "Blocks", "deltalake": "the lake", "duckdb": "SQL", "onnxruntime": "scoring", "paho-mqtt": "MQTT",
    "amqtt": "the embedded broker", "asyncua": "OPC UA", "httpx": "the MES", "starlette": "the page",
    "scikit-learn": "training", "skl2onnx": "training",
}  # fmt: skip
_PROGRAMS = {
    "mosquitto": ("a faster broker than the embedded one", "apt-get install mosquitto"),
    "chromium": ("the browser tests of a checkout", "apt-get install chromium"),
}


class Finding(Struct, frozen=True):
    """One thing looked at."""

    what: str
    ok: bool
    detail: str
    needed: bool
    fix: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle doctor`."""
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="a product's folder (default: here)"
    )
    parser.add_argument("--env", help="an environment of boucle.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object: {ok, findings}")
    parser.epilog = "examples:\n  boucle doctor\n  boucle doctor examples/press --env plant"


def run(options: argparse.Namespace) -> int:
    """Print each finding; 1 when something the loop needs is missing."""
    findings = [*_machine(), *_packages(), *_programs(), *_assets(), *_addresses(options.folder, options.env)]
    ok = all(finding.ok or not finding.needed for finding in findings)
    if options.json:
        rows = [{f: getattr(finding, f) for f in finding.__struct_fields__} for finding in findings]
        print(json.dumps({"ok": ok, "findings": rows}, ensure_ascii=False))
        return 0 if ok else 1
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        mark = "✓" if finding.ok else ("✗" if finding.needed else "–")
        fix = f"   fix: {finding.fix}" if finding.fix and not finding.ok else ""
        print(f"{mark} {finding.what:<{width}}  {finding.detail}{fix}")
    return 0 if ok else 1


def _machine() -> list[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return [
        Finding(
            "Python",
            True,
            f"{platform.python_version()} on {platform.system()}, {os.cpu_count()} cores",
            True,
        ),
        Finding("disk", free > 1, f"{free:.0f} GB free here", True, "make room: the log needs it"),
    ]


def _packages() -> list[Finding]:
    findings = []
    for name, purpose in _PACKAGES.items():
        try:
            findings.append(Finding(name, True, f"{version(name)}, for {purpose}", True))
        except PackageNotFoundError:
            findings.append(
                Finding(name, False, f"absent; needed for {purpose}", True, f"pip install {name}")
            )
    return findings


def _programs() -> list[Finding]:
    findings = []
    for name, (purpose, fix) in _PROGRAMS.items():
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        findings.append(
            Finding(name, found is not None, found or f"absent; would give {purpose}", False, fix)
        )
    return findings


def _assets() -> list[Finding]:
    spec = importlib.util.find_spec("boucle.web")
    places = list(spec.submodule_search_locations or []) if spec else []
    found = [file for place in places for file in (Path(place) / "static" / "vendor").glob("**/*.js")]
    detail = f"{len(found)} files" if found else "absent; the page shows tables but no live curves"
    return [
        Finding("page assets", bool(found), detail, False, "make assets, or reinstall with the network up")
    ]


def _addresses(folder: Path, environment: str | None) -> list[Finding]:
    if not (folder / "product.yaml").exists():
        return []
    from boucle.product.project import load_project

    try:
        project = load_project(folder, environment)
    except DeclarationError as error:
        what = f"{len(error.problems)} problems"
        return [Finding("product.yaml", False, what, True, f"boucle check {folder}")]
    named = [(name, source.from_, "source") for name, source in project.loop.sources.items()]
    named += [(name, actuator.to, "actuator") for name, actuator in project.loop.actuators.items()]
    findings = []
    for name, text, port in named:
        filled = project.settings.fill(text)
        address = parse_address(filled, "source" if port == "source" else "actuator")
        if address.host:
            findings.append(
                _reach(f"{port} {name}", address.host, address.port or _PORTS[address.scheme], filled)
            )
    return findings


_PORTS = {"mqtt": 1883, "mqtts": 8883, "opc.tcp": 4840, "http": 80, "https": 443}


def _reach(what: str, host: str, port: int, shown: str) -> Finding:
    try:
        with socket.create_connection((host, port), timeout=2):
            return Finding(what, True, f"{shown} answers", True)
    except OSError as error:
        fix = f"start it, or correct [addresses] in boucle.toml ({error.strerror or error})"
        return Finding(what, False, f"{shown} does not answer", True, fix)
