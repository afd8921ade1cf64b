"""A project folder read as one value: what the product is, where it runs, and where each value is from.

`product.yaml` says what the product is, `boucle.toml` where it runs, `BOUCLE_*` variables and the
caller's overrides come last. Every setting keeps its origin and the places that were tried, so that
`boucle explain` can tell.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from boucle.errors import BoucleError, DeclarationError, Problem
from boucle.product.contract import StreamContract
from boucle.product.document import LoopDocument
from boucle.product.lines import Document, read_documents

__all__ = ["Project", "Setting", "Settings", "load_project", "read_project"]

_DEFAULTS: dict[str, Any] = {
    "run.folder": "run",
    "run.web": "127.0.0.1:8000",
    "run.queue_blocks": 1024,
    "run.queue_bytes": "256MB",
    "run.trace_every": 100,
    "run.workers": 1,
    "run.fsync_every": "10ms",
    "run.lake": "",
    "run.lake_every": "5s",
    "run.checkpoint_every": "5s",
    "models.registry": "registry",
    "models.keys": "keys",
    "models.unsigned": "refuse",
    "models.python": "",
    "features.store": "memory:",
}


class Setting(Struct, frozen=True):
    """A value, where it came from, and every place that was looked at, in order."""

    name: str
    value: Any
    origin: str
    tried: tuple[str, ...]


class Settings:
    """boucle.toml, environment and overrides, looked up in one place. Frozen after loading."""

    def __init__(
        self, folder: Path, environment: str | None = None, overrides: Mapping[str, Any] | None = None
    ) -> None:
        self._overrides = dict(overrides or {})
        self._file = folder / "boucle.toml"
        self._values: dict[str, Any] = {}
        self._environment = environment
        self._scoped: dict[str, Any] = {}
        if self._file.exists():
            try:
                content = tomllib.loads(self._file.read_text(encoding="utf-8"))
            except tomllib.TOMLDecodeError as error:
                line = int(match[1]) if (match := re.search(r"line (\d+)", str(error))) else 1
                problem = Problem("B206", "boucle.toml is not valid TOML", "boucle.toml", line, str(error))
                raise DeclarationError([problem]) from None
            environments = content.pop("environments", {})
            if environment is not None and environment not in environments:
                raise BoucleError(
                    "B207",
                    f"there is no environment {environment!r} in boucle.toml",
                    fix=f"one of: {', '.join(sorted(environments)) or '(none declared)'}",
                )
            self._values = _flat(content)
            self._scoped = _flat(environments.get(environment, {})) if environment else {}

    def get(self, name: str) -> Setting:
        """One setting; B208 lists every place tried when there is none."""
        variable = "BOUCLE_" + name.upper().replace(".", "_")
        places: list[tuple[str, Mapping[str, Any], str]] = [
            ("the command line", self._overrides, name),
            (f"environment variable {variable}", os.environ, variable),
            (f"boucle.toml [environments.{self._environment}] {name}", self._scoped, name),
            (f"boucle.toml {name}", self._values, name),
            ("default", _DEFAULTS, name),
        ]
        tried = []
        for place, values, key in places:
            if self._environment is None and place.startswith("boucle.toml [environments"):
                continue
            tried.append(place)
            if key in values:
                return Setting(name, values[key], place, tuple(tried))
        raise BoucleError(
            "B208",
            f"nothing says what {name!r} is",
            why=f"looked at {', '.join(tried)}",
            fix=f'boucle.toml: [{name.rpartition(".")[0]}] {name.rpartition(".")[2]} = "…", or {variable}=…',
        )

    def all(self) -> list[Setting]:
        """Every setting that has a value, by name."""
        names = {*_DEFAULTS, *self._values, *self._scoped, *self._overrides}
        return [self.get(name) for name in sorted(names)]

    def fill(self, text: str) -> str:
        """`{name}` replaced by the setting `addresses.name`."""
        return re.sub(r"\{(\w+)\}", lambda match: str(self.get(f"addresses.{match[1]}").value), text)


class Project(Struct, frozen=True):
    """A product that can run: its three documents, its contracts, its settings."""

    folder: Path
    settings: Settings
    product: Document
    contract: Document
    loop_document: Document
    loop: LoopDocument
    contracts: dict[str, StreamContract]

    @property
    def id(self) -> str:
        """The id of the DataProduct."""
        return str(self.product.value["id"])

    def within_lake(self) -> "Project":
        """The same product with all its tables in the lake: what a replay says again is written nowhere else."""
        tables = {name: structs.replace(spec, to="") for name, spec in self.loop.tables.items()}
        return structs.replace(self, loop=structs.replace(self.loop, tables=tables))

    def path(self, setting: str) -> Path:
        """A folder named by a setting, relative to where the command runs."""
        return Path(str(self.settings.get(setting).value))


def load_project(
    folder: Path, environment: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Project:
    """Read a project folder; DeclarationError carries every problem of every document at once."""
    project, problems = read_project(folder, environment, overrides)
    if problems or project is None:
        raise DeclarationError(problems)
    return project


def read_project(
    folder: Path,
    environment: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    shown: str | None = None,
) -> tuple[Project | None, list[Problem]]:
    """As much of a project as can be read, and every problem; None where the documents lack their shape.

    `shown` is what problems call its product.yaml.
    """
    from boucle.product.check import check_documents

    settings = Settings(folder, environment, overrides)
    documents, problems = read_documents(folder / "product.yaml", shown)
    if not documents and problems:
        return None, problems
    by_kind, contracts, found = check_documents(documents)
    problems += found
    if not contracts:
        return None, problems
    loop = msgspec.convert(by_kind["Loop"].value, LoopDocument)
    project = Project(
        folder=folder,
        settings=settings,
        product=by_kind["DataProduct"],
        contract=by_kind["DataContract"],
        loop_document=by_kind["Loop"],
        loop=loop,
        contracts=contracts,
    )
    return project, problems


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
