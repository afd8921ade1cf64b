"""The models a server offers: of model folders, or of a registry whose roles are followed as they change.

Reading, verifying and the first run of a model happen beside the requests; then one assignment puts it in the place
of the one before. A request that began with a version ends with it.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from boucle.errors import BoucleError
from boucle.models.file import ModelFile
from boucle.models.foreign import model_folder
from boucle.models.registry import Registry, registry_of
from boucle.product.project import Settings
from boucle.serve.declared import PyfuncSpec
from boucle.serve.oip.refusal import Refusal
from boucle.serve.oip.served import Served, none_such
from boucle.serve.pyfunc import start_pyfunc
from boucle.serve.ready import prepare

__all__ = ["Offer", "Shelf"]

log = logging.getLogger("boucle.serve.oip.shelf")

EVERY_S = 0.02
"""How often the roles are looked at: a stat for each model."""
_ASIDE = 8
"""Versions of a model that somebody asked for by number, kept beside those that play a role."""
_NEVER = (None, -1)
_ROLES = ("champion", "challenger", "previous")


class Offer(Struct, frozen=True):
    """What is served of one name at one moment."""

    name: str
    default: Served | None
    """None: it could not be loaded yet."""
    roles: dict[str, str]
    """Role → version."""
    ready: dict[str, Served]
    """The versions that play a role."""
    versions: tuple[str, ...]
    problem: str = ""

    @property
    def shadow(self) -> Served | None:
        """The challenger, when it is another version than the champion."""
        found = self.ready.get(self.roles.get("challenger", ""))
        return None if found is self.default else found


class _Source(Protocol):
    """Where models come from."""

    def names(self) -> list[str]: ...

    def generation(self, name: str) -> Hashable: ...

    def state(self, name: str) -> tuple[dict[str, str], tuple[str, ...]]: ...

    def load(self, name: str, version: str) -> ModelFile: ...


class Shelf:
    """Offers by name. `start` follows them in a thread, until `stop`.

    `where` is a product's folder (its registry is meant), a registry's folder or `mlflow+http://…`, a folder of model
    folders, or one model folder. B680 when there is no model. `python` runs the versions that are no ONNX, in a child
    process each; empty: `models.python` of the product.
    """

    def __init__(self, where: str | Path, python: str = "") -> None:
        self._source = _source(where)
        self._python = python or _python_of(Path(where))
        self._offers: dict[str, Offer] = {}
        self._seen: dict[str, Hashable] = {}
        self._tried: dict[str, tuple[Hashable, int]] = {}
        """What was tried last, and in which second: what cannot be loaded is not tried fifty times in each."""
        self._asked: OrderedDict[tuple[str, str], Served] = OrderedDict()
        self._asking = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.on_change: Callable[[Offer], None] | None = None
        """Told of each offer that took the place of another."""
        self.refresh()
        if not self._offers:
            raise BoucleError(
                "B680",
                "there is no model to serve",
                where=str(where),
                fix="boucle train makes one; name its registry, or a folder with model.onnx and manifest.json",
            )

    def start(self) -> None:
        """Follow the source from now on."""
        self._thread = threading.Thread(target=self._follow, name="boucle-models", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Follow no more. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
            self._thread = None
        for offer in self._offers.values():
            for one in offer.ready.values():
                one.ready.close()
        for one in self._asked.values():
            one.ready.close()

    def _follow(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self.refresh()
            except (
                BoucleError,
                OSError,
            ) as error:  # the registry is away: what is loaded goes on being served
                log.debug("the models cannot be looked at: %s", error)

    def refresh(self) -> None:
        """Look for names and roles that changed, and load what they mean now."""
        for name in self._source.names():
            try:
                generation = self._source.generation(name)
                if name in self._seen and generation == self._seen[name]:
                    continue
                if self._tried.get(name, _NEVER) == (generation, int(time.monotonic())):
                    continue
                self._tried[name] = (generation, int(time.monotonic()))
                offer = self._load(name)
            except BoucleError as error:
                before = self._offers.get(name)
                if before is not None and before.problem == str(error):
                    continue
                log.warning("the model %s cannot be renewed: %s", name, error)
                offer = before or Offer(name, None, {}, {}, ())
                self._offers = {
                    **self._offers,
                    name: Offer(name, offer.default, offer.roles, offer.ready, offer.versions, str(error)),
                }
                continue
            self._offers = {**self._offers, name: offer}
            self._seen[name] = generation
            if self.on_change is not None:
                self.on_change(offer)

    def _load(self, name: str) -> Offer:
        roles, versions = self._source.state(name)
        before = self._offers.get(name)
        ready = {}
        for version in dict.fromkeys(roles[role] for role in _ROLES if role in roles):
            known = before.ready.get(version) if before else None
            try:
                ready[version] = known or self._served(name, version)
            except BoucleError as error:
                if version == roles.get("champion"):
                    raise
                log.warning("version %s of %s cannot be loaded: %s", version, name, error)
        return Offer(name, ready.get(roles.get("champion", "")), roles, ready, versions)

    def _served(self, name: str, version: str) -> Served:
        file, number = self._source.load(name, version), int(version) if version.isdigit() else 0
        if file.manifest.flavour == "onnx":
            return Served(name, version, prepare(file, number))
        return Served(name, version, start_pyfunc(file, number, PyfuncSpec(), self._python))

    def offers(self) -> dict[str, Offer]:
        """Everything that is served now."""
        return self._offers

    def offer(self, name: str) -> Offer:
        """What is served of a name; NoSuchThing when nothing is."""
        found = self._offers.get(name)
        if found is None:
            raise none_such(name, known=sorted(self._offers))
        return found

    def find(self, name: str, version: str = "") -> Served | None:
        """The version meant (a number, or a role; empty: the champion); None when it must be fetched first."""
        offer = self.offer(name)
        if not version:
            if offer.default is None:
                raise NotReady(name, offer.problem)
            return offer.default
        version = offer.roles.get(version, version)
        return offer.ready.get(version) or self._asked.get((name, version))

    def fetch(self, name: str, version: str) -> Served:
        """A version that plays no role, loaded now; it may take a second. NoSuchThing when there is none."""
        with self._asking:
            key = (name, version)
            if key in self._asked:
                return self._asked[key]
            known = self._source.state(name)[1]
            if version not in known:
                raise none_such(name, version, known)
            self._asked[key] = self._served(name, version)
            while len(self._asked) > _ASIDE:
                self._asked.popitem(last=False)
            return self._asked[key]

    def versions(self, name: str) -> tuple[str, ...]:
        """The versions of a name, oldest first."""
        return self.offer(name).versions


class NotReady(Refusal):
    """A model that is known and could not be loaded (B676)."""

    retryable = True
    status, rpc = 503, "UNAVAILABLE"
    headers = (("retry-after", "1"),)

    def __init__(self, name: str, why: str) -> None:
        super().__init__("B676", f"the model {name} is not ready", why=why or "no version is champion")


def _python_of(folder: Path) -> str:
    """What a product says of models that are no ONNX; a path in it is seen from the product."""
    told = str(Settings(folder).get("models.python").value)
    return str(folder / told) if "/" in told else told


def _source(where: str | Path) -> _Source:
    folder = Path(where)
    if (folder / "boucle.toml").exists():
        return _Registered(registry_of(folder))
    if _described(folder) or any(_described(one) for one in _within(folder)):
        return _Folders(folder)
    return _Registered(Registry.at(where))


def _described(folder: Path) -> Path | None:
    """The file that makes a folder a model: ours, or the one MLflow writes."""
    return next((one for one in (folder / "manifest.json", folder / "MLmodel") if one.exists()), None)


def _within(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []


class _Folders:
    """Model folders: each has one version, called after its content, and it is the champion."""

    def __init__(self, folder: Path) -> None:
        self._one = folder if _described(folder) else None
        self._folder = folder

    def names(self) -> list[str]:
        if self._one is not None:
            return [self._one.resolve().name]
        return [one.name for one in _within(self._folder) if _described(one)]

    def _place(self, name: str) -> Path:
        return self._one or self._folder / name

    def generation(self, name: str) -> Hashable:
        found = _described(self._place(name))
        if found is None:
            return None
        told = found.stat()
        return told.st_mtime_ns, told.st_ino, told.st_size

    def state(self, name: str) -> tuple[dict[str, str], tuple[str, ...]]:
        version = model_folder(self._place(name)).manifest.sha256[:12]
        return {"champion": version}, (version,)

    def load(self, name: str, version: str) -> ModelFile:
        del version
        return model_folder(self._place(name))


class _Registered:
    """The names of a registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def names(self) -> list[str]:
        return self._registry.names()

    def generation(self, name: str) -> Hashable:
        return self._registry.generation(name)

    def state(self, name: str) -> tuple[dict[str, str], tuple[str, ...]]:
        roles = {role: str(number) for role, number in self._registry.roles(name).roles.items()}
        return roles, tuple(str(one.number) for one in self._registry.versions(name))

    def load(self, name: str, version: str) -> ModelFile:
        return self._registry.load(f"{name}/{version}")
