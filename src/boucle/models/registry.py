"""Where models live: names, numbered versions that never change, and the roles they play.

A reference names one: `press_health/3` is a version, `press_health@champion` whoever plays that role now. In a
product.yaml it is written `models:press_health@champion`, beside the path of a model folder.
"""

import datetime as dt
import getpass
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from boucle.errors import BoucleError
from boucle.models.file import Manifest, ModelFile
from boucle.models.signing import Unsigned

__all__ = [
    "SCHEME",
    "Change",
    "Reference",
    "Registry",
    "Roles",
    "Version",
    "change_of",
    "check_name",
    "no_such_name",
    "open_model",
    "promoted",
    "registry_of",
    "rolled_back",
    "user",
]

SCHEME = "models:"
"""What a model of a registry begins with where the path of a folder could stand too."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_REFERENCE = re.compile(r"([^@/]+)(?:@([a-z][a-z0-9_-]{0,30})|/([1-9][0-9]{0,8}))?")


class Reference(Struct, frozen=True):
    """A model of a registry: a version by number, or whoever plays a role."""

    name: str
    role: str = ""
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """`[models:]NAME@ROLE`, `NAME/NUMBER`, or `NAME` for its champion; B617 when it is none of them."""
        found = _REFERENCE.fullmatch(text.removeprefix(SCHEME))
        if not found or not _NAME.fullmatch(found[1]):
            raise BoucleError(
                "B617",
                f"{text!r} names no model",
                why="letters, digits, _ . - make a name; a role or a number follows it",
                fix="write NAME@champion or NAME/3",
            )
        number = int(found[3] or 0)
        return cls(found[1], role=found[2] or ("" if number else "champion"), number=number)

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.name}/{self.number}" if self.number else f"{self.name}@{self.role}"


class Version(Struct, frozen=True, kw_only=True):
    """A version of a model as it was registered; never changed afterwards."""

    name: str
    number: int
    object: str
    """The SHA-256 of the list of its files (`SHA256SUMS`), which is where they lie."""
    sha256: str
    """Of model.onnx."""
    created: str
    by: str = ""
    note: str = ""
    flavour: str = "onnx"
    """`onnx`, or `pyfunc` for a model of an MLflow server that only its own environment can run."""
    key: str = ""
    """Who signed it; filled in when it is read, empty where that was not asked for."""

    def __str__(self) -> str:
        """As a reference."""
        return f"{self.name}/{self.number}"


class Change(Struct, frozen=True, kw_only=True):
    """One line of the history of a name: who gave which role to which version, when, why, on what evidence."""

    at: str
    verb: str
    """`promote`, `rollback`, or `sign`."""
    role: str
    version: int | None
    before: int | None
    by: str
    why: str = ""
    evidence: dict[str, Any] = {}


class Roles(Struct, frozen=True, kw_only=True):
    """Which version plays which role, and how that came about; `generation` grows by one with every change."""

    generation: int = 0
    roles: dict[str, int] = {}
    history: tuple[Change, ...] = ()


class Registry(ABC):
    """Names, versions and roles, wherever they are kept."""

    address: str
    unsigned: Unsigned = "refuse"

    @staticmethod
    def at(address: str | Path, *, unsigned: Unsigned = "refuse", keys: Path | None = None) -> "Registry":
        """A folder (`registry`, `file://…`), or an MLflow server (`mlflow+http://host:port`).

        `unsigned` and `keys` (default: `keys` beside the folder) say which versions of a folder are trusted.
        """
        text = str(address)
        if text.startswith(("mlflow+http://", "mlflow+https://")):
            from boucle.models.mlflow import MlflowRegistry

            return MlflowRegistry(text)
        if "://" in text and not text.startswith("file://"):
            raise BoucleError(
                "B618",
                f'"{text}" is no registry of models',
                fix="a folder, file://…, or mlflow+http://host:port",
            )
        from boucle.models.folder import FolderRegistry

        return FolderRegistry(Path(text.removeprefix("file://")), unsigned=unsigned, keys=keys)

    @abstractmethod
    def add(
        self, model: ModelFile, *, by: str = "", note: str = "", files: Mapping[str, bytes] | None = None
    ) -> Version:
        """Register a model under its manifest's name as the next version; `files` are kept with it."""

    @abstractmethod
    def names(self) -> list[str]:
        """Every name that has a version, in order."""

    @abstractmethod
    def versions(self, name: str) -> list[Version]:
        """Every version of a name, oldest first; empty when there is no such name."""

    @abstractmethod
    def roles(self, name: str) -> Roles:
        """Who plays which role now, and the history."""

    @abstractmethod
    def generation(self, name: str) -> int:
        """Changes whenever a role of this name changes; cheap enough to be asked for every Block."""

    @abstractmethod
    def load(self, reference: "str | Reference") -> ModelFile:
        """The model, verified: its signature, the digest of its files, its ONNX bytes."""

    @abstractmethod
    def files(self, reference: "str | Reference") -> dict[str, bytes]:
        """Every file of a version, verified."""

    @abstractmethod
    def promote(
        self,
        name: str,
        version: int,
        role: str = "champion",
        *,
        evidence: Mapping[str, Any] | None = None,
        by: str = "",
        why: str = "",
    ) -> Roles:
        """Give a role to a version that can be loaded and verified. Who was champion becomes `previous`."""

    @abstractmethod
    def rollback(self, name: str, *, by: str = "", why: str = "", role: str = "champion") -> Roles:
        """The champion before this one is champion again; B623 when there was none."""

    @abstractmethod
    def keep(self, name: str, last: int) -> list[int]:
        """Forget all but the `last` versions and those with a role; returns what is gone."""

    def close(self) -> None:  # noqa: B027 - a folder has nothing to give back
        """Give back connections, where it has some. Safe to call twice."""

    def resolve(self, reference: "str | Reference") -> Version:
        """The version a reference means now; B619 names what there is when there is none."""
        meant = Reference.parse(reference) if isinstance(reference, str) else reference
        known = {one.number: one for one in self.versions(meant.name)}
        if not known:
            raise no_such_name(self, meant.name)
        number = meant.number or self.roles(meant.name).roles.get(meant.role)
        if number in known:
            return known[number]
        if meant.role and number is None:
            raise BoucleError(
                "B619",
                f"no version of {meant.name} is {meant.role}",
                where=self.address,
                why=f"roles: {_said(self.roles(meant.name).roles)}",
                fix=f"boucle promote {meant.name} {max(known)} --role {meant.role}",
            )
        raise BoucleError(
            "B619",
            f"{meant.name} has no version {number}",
            where=self.address,
            why=f"versions: {', '.join(map(str, known))}",
            fix=f"boucle models show {meant.name}",
        )

    def manifest(self, reference: "str | Reference") -> Manifest:
        """What a version is."""
        return self.load(reference).manifest


def promoted(roles: Mapping[str, int], version: int, role: str) -> dict[str, int]:
    """The roles when a version was given one: who was champion is `previous`, and no longer its own challenger."""
    after = {**roles, role: version}
    if role == "champion":
        before = roles.get(role)
        if before is not None and before != version:
            after["previous"] = before
        if after.get("challenger") == version:
            del after["challenger"]
    return after


def rolled_back(registry: Registry, name: str, roles: Mapping[str, int], role: str) -> dict[str, int]:
    """The roles when the champion before is champion again, or the trial of a challenger ended; B623 when none is."""
    before = roles.get(role)
    again = roles.get("previous") if role == "champion" else None
    if before is None or (role == "champion" and again is None):
        raise BoucleError(
            "B623",
            f"{name} has no {role} to go back {'to' if before else 'from'}",
            where=registry.address,
            why="it was promoted once at most",
            fix=f"boucle promote {name} VERSION --role {role}",
        )
    if again is None:
        return {one: number for one, number in roles.items() if one != role}
    return {**roles, "champion": again, "previous": before}


def change_of(
    verb: str,
    role: str,
    now: Mapping[str, int],
    after: Mapping[str, int],
    *,
    by: str = "",
    why: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> Change:
    """A line of the history, of this moment and by this user when nobody else is named."""
    return Change(
        at=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        verb=verb,
        role=role,
        version=after.get(role),
        before=now.get(role),
        by=by or user(),
        why=why,
        evidence=dict(evidence or {}),
    )


def user() -> str:
    """Who is at work, as the system calls them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def check_name(name: str) -> str:
    """The name, when models can be called so; B617 otherwise."""
    if not _NAME.fullmatch(name):
        fix = "letters, digits, _ . - and at most 100 of them"
        raise BoucleError("B617", f"a model cannot be called {name!r}", fix=fix)
    return name


def no_such_name(registry: Registry, name: str) -> BoucleError:
    """B619 for a name without a version."""
    return BoucleError(
        "B619",
        f"there is no model {name!r}",
        where=registry.address,
        why=f"models: {', '.join(registry.names()) or 'none yet'}",
        fix="boucle train makes one; boucle models list shows what there is",
    )


def registry_of(folder: str | Path, environment: str | None = None) -> Registry:
    """The registry of a product's folder: `[models] registry` of its boucle.toml, `registry` in it by default."""
    from boucle.product.project import Settings

    settings = Settings(Path(folder), environment)
    where = str(settings.get("models.registry").value)
    unsigned = str(settings.get("models.unsigned").value)
    if unsigned not in {"refuse", "allow"}:
        what = f"[models] unsigned = {unsigned!r} says nothing"
        raise BoucleError("B618", what, where="boucle.toml", fix="write refuse or allow")
    keys = Path(folder) / str(settings.get("models.keys").value)
    address = where if "://" in where else str(Path(folder) / where)
    return Registry.at(address, unsigned="allow" if unsigned == "allow" else "refuse", keys=keys)


def open_model(model: str | Path, folder: str | Path = ".") -> ModelFile:
    """The model that a product.yaml names: a folder's path (ours or MLflow's), or `models:NAME@ROLE`."""
    text = str(model)
    if text.startswith(SCHEME):
        return registry_of(folder).load(text)
    from boucle.models.foreign import model_folder

    return model_folder(Path(folder) / text)


def _said(roles: Mapping[str, int]) -> str:
    return ", ".join(f"{role} {number}" for role, number in roles.items()) or "none given yet"
