"""A registry as a folder: content under its digest, signed versions, roles replaced in one step.

    objects/<sha256 of SHA256SUMS>/   model.onnx, manifest.json, what training told of it, SHA256SUMS
    <name>/versions/<n>.json          signed; written once
    <name>/roles.json                 who is champion; signed, replaced atomically

Signature and content are one file each (a DSSE envelope), so that there is no order in which a crash could part them.
Everything is written beside and renamed into place, so that a process killed anywhere leaves a registry that is
valid: at worst an object that no version names, which `keep` takes away. Writers wait for each other by a file lock
that a killed process lets go of. `sha256sum -c SHA256SUMS` checks an object without us.
"""

import datetime as dt
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from boucle.errors import BoucleError
from boucle.lake.place import fsync
from boucle.models.file import ModelFile
from boucle.models.registry import (
    Change,
    Reference,
    Registry,
    Roles,
    Version,
    change_of,
    check_name,
    no_such_name,
    promoted,
    rolled_back,
    user,
)
from boucle.models.signing import ROLES, Envelope, Keys, Unsigned

__all__ = ["FolderRegistry", "replace_file", "sums_of"]

_SUMS = "SHA256SUMS"


class _Told(Struct, frozen=True):
    """What is signed: the roles, and of which model, so that one model's are not taken for another's."""

    model: str
    roles: Roles


class FolderRegistry(Registry):
    """Models in a folder of this machine."""

    def __init__(self, folder: Path, *, unsigned: Unsigned = "refuse", keys: Path | None = None) -> None:
        self.folder = folder
        self.address = str(folder)
        self.unsigned = unsigned
        self.keys = Keys(keys or folder.parent / "keys")
        self._seen: dict[str, tuple[tuple[int, int, int], Roles]] = {}

    def add(
        self, model: ModelFile, *, by: str = "", note: str = "", files: Mapping[str, bytes] | None = None
    ) -> Version:
        """Register a model as the next version of its name; B620 when a file of it has no plain name."""
        name = check_name(model.manifest.name)
        with self._alone(name) as home:
            digest = self._keep({**(files or {}), **model.files()})
            version = Version(
                name=name,
                number=max(self._numbers(name), default=0) + 1,
                object=digest,
                sha256=model.manifest.sha256,
                created=_now(),
                by=by or user(),
                note=note,
                flavour=model.manifest.flavour,
            )
            (home / "versions").mkdir(exist_ok=True)
            signed = self.keys.sign(msgspec.json.encode(version))
            replace_file(self._file(name, version.number), signed)
        return version

    def names(self) -> list[str]:
        """Every name that has a version, in order."""
        return sorted({file.parents[1].name for file in self.folder.glob("*/versions/*.json")})

    def versions(self, name: str) -> list[Version]:
        """Every version of a name, oldest first, its signature verified (B613 to B616)."""
        return [self._version(name, number) for number in self._numbers(name)]

    def resolve(self, reference: str | Reference) -> Version:
        """The version a reference means now: only its own file is read, however many there are."""
        meant = Reference.parse(reference) if isinstance(reference, str) else reference
        number = meant.number or self.roles(meant.name).roles.get(meant.role, 0)
        if number and self._file(check_name(meant.name), number).is_file():
            return self._version(meant.name, number)
        return super().resolve(meant)

    def roles(self, name: str) -> Roles:
        """Who plays which role now, its signature verified (B613 to B616).

        B621 when the file cannot be read, B646 when it is one that nobody signed, B647 when it is of another model.
        """
        return self._roles(check_name(name))

    def generation(self, name: str) -> int:
        """The number of changes so far: one `stat` while nothing changes."""
        return self._roles(name).generation

    def load(self, reference: str | Reference) -> ModelFile:
        """The model, verified: signature, digest, ONNX bytes; B622 when an object is not what was signed."""
        version = self.resolve(reference)
        model = ModelFile.load(self._object(version))
        sums = self._sums(version)
        for name, content in model.files().items():
            _same(name, content, sums, str(self._object(version)))
        return model

    def files(self, reference: str | Reference) -> dict[str, bytes]:
        """Every file of a version; B622 when one is missing, changed or too many."""
        version = self.resolve(reference)
        folder = self._object(version)
        sums = self._sums(version)
        found = {}
        for name in sums:
            try:
                found[name] = (folder / name).read_bytes()
            except OSError as error:
                raise _altered(str(folder), f"{name}: {error.strerror}") from error
            _same(name, found[name], sums, str(folder))
        return found

    def proof(self, version: Version) -> dict[str, bytes]:
        """What shows that a version is the signed one, for those who get only its files: the list and the envelope."""
        file = self._file(version.name, version.number)
        return {_SUMS: (self._object(version) / _SUMS).read_bytes(), "version.dsse.json": file.read_bytes()}

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
        """Give a role to a version that can be loaded; who was champion becomes `previous`."""
        self.load(Reference(name, number=version))
        Reference.parse(f"{name}@{role}")
        with self._alone(name):
            now = self._roles(name)
            after = promoted(now.roles, version, role)
            change = change_of("promote", role, now.roles, after, by=by, why=why, evidence=evidence)
            return self._change(name, now, after, change)

    def rollback(self, name: str, *, by: str = "", why: str = "", role: str = "champion") -> Roles:
        """The champion before this one again; the one rolled back becomes `previous`. B623 when there is none.

        Rolling back the challenger ends its trial.
        """
        if not self._numbers(name):
            raise no_such_name(self, name)
        with self._alone(name):
            now = self._roles(name)
            after = rolled_back(self, name, now.roles, role)
            if role in after:
                self.load(Reference(name, number=after[role]))
            return self._change(
                name, now, after, change_of("rollback", role, now.roles, after, by=by, why=why)
            )

    def keep(self, name: str, last: int) -> list[int]:
        """Forget all but the `last` versions and those that play a role; returns what is gone.

        Objects that no version names any more go too. The newest stays always, so that no number is given twice.
        """
        with self._alone(name) as home:
            known = self.versions(name)
            stay = {one.number for one in known[-max(1, last) :]} | set(self._roles(name).roles.values())
            gone = [one for one in known if one.number not in stay]
            for one in gone:
                (home / "versions" / f"{one.number}.json").unlink()
            fsync(home / "versions")
            self._sweep()
        return [one.number for one in gone]

    def _sweep(self) -> None:
        named = {one.object for name in self.names() for one in self.versions(name)}
        objects = self.folder / "objects"
        for folder in objects.iterdir() if objects.exists() else ():
            if folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)

    def _keep(self, content: Mapping[str, bytes]) -> str:
        """Write the files under their digest, once."""
        for name in content:
            if Path(name).name != name or name.startswith(".") or name == _SUMS or "\n" in name:
                what = f"a version cannot keep a file called {name!r}"
                raise BoucleError("B620", what, fix="give it a plain file name")
        sums = sums_of(content)
        digest = hashlib.sha256(sums).hexdigest()
        place = self.folder / "objects" / digest
        if place.exists():
            return digest
        beside = place.with_name(f".{digest[:16]}.{os.getpid()}")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, bytes_ in {**content, _SUMS: sums}.items():
            (beside / name).write_bytes(bytes_)
            fsync(beside / name)
        fsync(beside)
        try:
            beside.rename(place)
        except OSError:  # somebody wrote the same meanwhile
            shutil.rmtree(beside, ignore_errors=True)
        fsync(place.parent)
        return digest

    def _object(self, version: Version) -> Path:
        return self.folder / "objects" / version.object

    def _sums(self, version: Version) -> dict[str, str]:
        """File → SHA-256 of an object whose list is the one that was signed."""
        folder = self._object(version)
        try:
            told = (folder / _SUMS).read_bytes()
        except OSError as error:
            raise _altered(str(folder), f"{_SUMS}: {error.strerror}") from error
        if hashlib.sha256(told).hexdigest() != version.object:
            raise _altered(str(folder), f"{_SUMS} is not the list that was signed")
        return {line[66:]: line[:64] for line in told.decode().splitlines()}

    def _file(self, name: str, number: int) -> Path:
        return self.folder / name / "versions" / f"{number}.json"

    def _numbers(self, name: str) -> list[int]:
        files = (self.folder / check_name(name) / "versions").glob("*.json")
        return sorted(int(file.stem) for file in files if file.stem.isdecimal())

    def _version(self, name: str, number: int) -> Version:
        file = self._file(name, number)
        payload, key = self.keys.open(file.read_bytes(), str(file), self.unsigned)
        try:
            version = msgspec.json.decode(payload, type=Version)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            fix = "restore the file; a version is written once and never changed"
            what = "this is no version of a model"
            raise BoucleError("B613", what, where=str(file), why=str(error), fix=fix) from error
        digests = (version.object, version.sha256)
        told = version.name == name and version.number == number
        if not told or any(len(one) != 64 or not one.isalnum() for one in digests):
            raise BoucleError(
                "B615",
                f"this file says it is {version}",
                where=str(file),
                why=f"it lies where {name}/{number} should be",
                fix="restore the version from where it was made; somebody moved it",
            )
        return msgspec.structs.replace(version, key=key)

    def _roles(self, name: str) -> Roles:
        file = self.folder / name / "roles.json"
        try:
            told = file.stat()
        except FileNotFoundError:
            return Roles()
        # A change always makes the history longer, so the size alone would tell; the rest guards against copies.
        mark = (told.st_size, told.st_mtime_ns, told.st_ino)
        seen = self._seen.get(name)
        if seen is None or seen[0] != mark:
            roles = self._opened(name, file)
            seen = self._seen[name] = (mark, roles)
        return seen[1]

    def _opened(self, name: str, file: Path) -> Roles:
        """The roles of a file: signed, or, where that is allowed, as they were written before roles were signed."""
        told = file.read_bytes()
        if _unsigned(told):
            if self.unsigned == "refuse":
                raise BoucleError(
                    "B646",
                    f"nobody signed the roles of {name}",
                    where=str(file),
                    why="they were written before roles were signed, or by somebody without a key",
                    fix=f"look at them, then sign them: boucle models sign {name}",
                )
            return _plain(told, file)
        payload, _ = self.keys.open(told, str(file), self.unsigned, ROLES)
        return _of(name, payload, file)

    def sign_roles(self, name: str, *, by: str = "") -> Roles:
        """Sign the roles of a name as they stand, whoever wrote them: for a person who has looked at them."""
        with self._alone(check_name(name)):
            now = self.unverified_roles(name)
            change = change_of("sign", "", {}, {}, by=by, why="as they stood")
            return self._change(name, now, now.roles, change)

    def unverified_roles(self, name: str) -> Roles:
        """What the file of roles says, whoever wrote it; B621 when it cannot be read."""
        file = self.folder / check_name(name) / "roles.json"
        try:
            told = file.read_bytes()
            if _unsigned(told):
                return _plain(told, file)
            payload = msgspec.json.decode(told, type=Envelope).content()
            return msgspec.json.decode(payload, type=_Told).roles
        except FileNotFoundError:
            return Roles()
        except (msgspec.DecodeError, ValueError) as error:
            raise _unreadable(file, str(error)) from error

    def _change(self, name: str, now: Roles, roles: dict[str, int], change: Change) -> Roles:
        after = Roles(generation=now.generation + 1, roles=roles, history=(*now.history, change))
        told = msgspec.json.encode(_Told(model=name, roles=after))
        replace_file(self.folder / name / "roles.json", self.keys.sign(told, ROLES))
        return after

    @contextmanager
    def _alone(self, name: str) -> Iterator[Path]:
        """No other process changes this registry meanwhile. A killed one lets go."""
        home = self.folder / check_name(name)
        home.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield home


def sums_of(content: Mapping[str, bytes]) -> bytes:
    """The list of files that `sha256sum --check` reads, in the order of their names."""
    lines = [f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in sorted(content)]
    return "".join(lines).encode()


def replace_file(file: Path, content: bytes) -> None:
    """The whole new content or the old, never a part; it stays after a power cut."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_bytes(content)
    fsync(beside)
    beside.replace(file)
    fsync(file.parent)


def _same(name: str, content: bytes, sums: Mapping[str, str], where: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if sums.get(name) != found:
        raise _altered(
            where, f"{name} has SHA-256 {found[:12]}…, {sums.get(name, 'nothing')[:12]}… was signed"
        )


def _altered(where: str, why: str) -> BoucleError:
    fix = "restore the files, or train the version again: boucle models reproduce"
    return BoucleError("B622", "these are not the files that were signed", where=where, why=why, fix=fix)


def _unsigned(told: bytes) -> bool:
    """Whether a file of roles is one of before they were signed."""
    try:
        return "generation" in msgspec.json.decode(told, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _plain(told: bytes, file: Path) -> Roles:
    """The roles of a file that was written before they were signed."""
    try:
        return msgspec.json.decode(told, type=Roles)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(file, str(error)) from error


def _of(name: str, payload: bytes, file: Path) -> Roles:
    """The roles that were signed, of the model of this name."""
    try:
        told = msgspec.json.decode(payload, type=_Told)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(file, str(error)) from error
    if told.model != name:
        raise BoucleError(
            "B647",
            f"these are the roles of {told.model}",
            where=str(file),
            why=f"they lie where those of {name} should be",
            fix="restore the file; somebody moved it",
        )
    return told.roles


def _unreadable(file: Path, why: str) -> BoucleError:
    fix = "restore the file, or remove it and promote again"
    return BoucleError("B621", "the roles of this model cannot be read", where=str(file), why=why, fix=fix)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
