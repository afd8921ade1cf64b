"""Finds the versions a step needs, and follows their roles: loaded, verified and warm before the path hears of them.

Asking the registry and loading happen on a thread of their own, so that a promotion costs the path one look between
two Blocks. What was loaded is kept beside the checkpoints too: a restart does not need the registry.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa

from boucle.errors import BoucleError
from boucle.models.file import ModelFile
from boucle.models.foreign import model_folder
from boucle.models.registry import SCHEME, Reference, Registry, registry_of
from boucle.product.project import Settings
from boucle.serve.alerts import Alerts
from boucle.serve.declared import Declared, Previous
from boucle.serve.numbers import missing
from boucle.serve.pyfunc import start_pyfunc
from boucle.serve.ready import Identity, Ready, check_gives, prepare

__all__ = ["CANARY", "CHAMPION", "PREVIOUS", "SHADOW", "Follower"]

CHAMPION, CANARY, PREVIOUS, SHADOW = "champion", "canary", "previous", "shadow"
_EVERY = 0.01
"""Seconds between two looks at the registry's generation."""
_RETRY = 1.0
"""Seconds until a version that was refused is looked at again."""
_KEPT = 4
"""Versions that stay in memory, so that going back to one of them takes no loading."""


class Follower:
    """The models of one step by arm, as their references say now."""

    def __init__(self, stream: str, declared: Declared, folder: Path, alerts: Alerts) -> None:
        self._stream, self._declared, self._folder, self._alerts = stream, declared, folder, alerts
        self._wanted = _wanted(declared)
        self._registry: Registry | None = None
        self._generations: dict[str, int] = {}
        self._again: dict[str, float] = {}
        self._memory: dict[str, Ready] = {}
        self._shelf: Path | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.outputs: list[str] = []
        """What every version must give; set once the first champion is known."""
        self.schema: pa.Schema | None = None
        """Of the last Block, for versions that come."""

    # ── finding ───────────────────────────────────────────────────────────────────────────────

    def find(self) -> dict[str, Ready]:
        """Every arm as its reference says now; raises for the champion only, other arms may be empty."""
        found = {}
        for arm, reference in self._wanted.items():
            try:
                found[arm] = self._load(reference)
            except BoucleError as error:
                if arm == CHAMPION:
                    raise
                if error.code != "B619":  # a role nobody plays is no trouble
                    self._alerts.trouble("refused", arm=arm, why=str(error))
                continue
            if arm == CHAMPION:
                self.outputs = found[arm].outputs
            try:
                self._check(found[arm])
            except BoucleError as error:
                del found[arm]
                self._alerts.trouble("refused", arm=arm, why=str(error))
        return found

    def by(self, identity: Identity) -> Ready:
        """The very version that scored some rows: from memory, from beside the checkpoints, or from the registry."""
        held = self._memory.get(identity.sha256)
        if held is not None and held.identity == identity:
            return held
        file = self._from_shelf(identity)
        if file is None:
            file = self._from_registry(identity)
        return self._keep(self._prepare(file, identity.number))

    def _load(self, reference: str) -> Ready:
        if not reference.startswith(SCHEME):
            file, number = model_folder(self._folder / reference), 0
        else:
            registry = self._open()
            version = registry.resolve(reference)
            held = self._memory.get(version.sha256)
            if held is not None and held.identity.number == version.number:
                return held
            file, number = registry.load(Reference(version.name, number=version.number)), version.number
        held = self._memory.get(file.manifest.sha256)
        if held is not None and held.identity.number == number:
            return held
        return self._keep(self._prepare(file, number))

    def _prepare(self, file: ModelFile, number: int) -> Ready:
        memory = self._declared.memory
        if file.manifest.flavour == "onnx":
            return prepare(file, number, memory=memory)
        spec = self._declared.pyfunc
        python = spec.python or str(Settings(self._folder).get("models.python").value)
        python = str(self._folder / python) if "/" in python else python
        return start_pyfunc(file, number, spec, python, memory=memory)

    def _keep(self, ready: Ready) -> Ready:
        with self._lock:
            self._memory[ready.identity.sha256] = ready
            while len(self._memory) > _KEPT + len(self._wanted):
                del self._memory[next(iter(self._memory))]
        self._shelve(ready.file)
        return ready

    def _from_shelf(self, identity: Identity) -> ModelFile | None:
        if self._shelf is None:
            return None
        try:
            return ModelFile.load(self._shelf / identity.sha256)
        except BoucleError:
            return None

    def _from_registry(self, identity: Identity) -> ModelFile:
        why = "neither beside the checkpoint nor in the registry"
        try:
            if identity.number:
                file = self._open().load(Reference(identity.name, number=identity.number))
            else:
                file = model_folder(self._folder / self._declared.model)
            if file.manifest.sha256 == identity.sha256:
                return file
            why = "the model of that name has other bytes now"
        except BoucleError as error:
            why = f"{why}: {error}"
        raise BoucleError(
            "B655",
            f"{self._stream} was scored by {identity.name} {identity.version}, which is gone",
            why=why,
            fix="put the version back, or remove the checkpoint's folder to start afresh",
        )

    def _open(self) -> Registry:
        if self._registry is None:
            self._registry = registry_of(self._folder)
        return self._registry

    def _check(self, ready: Ready) -> None:
        check_gives(ready, self.outputs, self._stream)
        if self.schema is not None and (wrong := missing(self.schema, ready.signature)):
            raise BoucleError(
                "B654",
                f"{ready.identity.name} {ready.identity.version} was trained on other columns",
                where=self._stream,
                why="; ".join(wrong),
                fix="give the stream these columns first, or promote a version that does without",
            )

    # ── keeping copies ────────────────────────────────────────────────────────────────────────

    def shelve(self, folder: Path) -> None:
        """Keep a copy of every version in `folder`, those loaded so far included."""
        self._shelf = folder
        for ready in self._memory.values():
            self._shelve(ready.file)

    def _shelve(self, file: ModelFile) -> None:
        if self._shelf is None or (self._shelf / file.manifest.sha256 / "manifest.json").exists():
            return
        try:
            file.save(self._shelf / file.manifest.sha256)
        except OSError as error:
            self._alerts.trouble("disk", why=str(error))

    # ── following ─────────────────────────────────────────────────────────────────────────────

    def start(self, deliver: Callable[[Mapping[str, Ready | None]], None]) -> None:
        """Follow the roles from now on; `deliver` is called from another thread when one has changed."""
        if not any(one.startswith(SCHEME) for one in self._wanted.values()) or self._thread is not None:
            return
        self._thread = threading.Thread(
            target=self._follow, args=(deliver,), name=f"boucle models of {self._stream}", daemon=True
        )
        self._thread.start()

    def _follow(self, deliver: Callable[[Mapping[str, Ready | None]], None]) -> None:
        while not self._ending.wait(_EVERY):
            try:
                news = self.look()
            except (BoucleError, OSError) as error:
                self._alerts.trouble("registry", why=str(error))
                continue
            self._alerts.well("registry")
            if news:
                deliver(news)

    def look(self) -> dict[str, Ready | None]:
        """The arms of every model whose roles changed since the last look."""
        registry = self._open()
        news: dict[str, Ready | None] = {}
        names = dict.fromkeys(
            Reference.parse(one).name for one in self._wanted.values() if one.startswith(SCHEME)
        )
        for name in names:
            generation = registry.generation(name)
            if self._generations.get(name) == generation:
                continue
            if generation == 0 and not registry.versions(name):
                self._generations.pop(name, None)
                raise BoucleError("B619", f"there is no model {name!r}", where=registry.address)
            if time.monotonic() < self._again.get(name, 0.0):
                continue
            found, refused = self._of(name)
            news |= found
            if refused:  # somebody may repair it where it lies
                self._again[name] = time.monotonic() + _RETRY
            else:
                self._generations[name] = generation
        return news

    def _of(self, name: str) -> tuple[dict[str, Ready | None], bool]:
        """What plays the roles of a name now; a version that is refused changes nothing."""
        news: dict[str, Ready | None] = {}
        refused = False
        for arm, reference in self._wanted.items():
            if not reference.startswith(SCHEME) or Reference.parse(reference).name != name:
                continue
            try:
                ready = self._load(reference)
                if arm == CHAMPION and not self.outputs:
                    self.outputs = ready.outputs
                self._check(ready)
                news[arm] = ready
            except BoucleError as error:
                if error.code == "B619" and arm != CHAMPION:
                    news[arm] = None
                    continue
                refused = True
                self._alerts.trouble("refused", arm=arm, why=str(error))
        if not refused:
            self._alerts.well("refused")
        return news, refused

    def close(self) -> None:
        """Stop following, end what versions hold. Safe to call twice."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(5)
        for ready in list(self._memory.values()):
            ready.close()
        if self._registry is not None:
            self._registry.close()


def _wanted(declared: Declared) -> dict[str, str]:
    """Arm → reference, the champion first."""
    wanted = {CHAMPION: declared.model}
    if declared.canary is not None:
        wanted[CANARY] = declared.canary.model
    if declared.shadow is not None:
        wanted[SHADOW] = declared.shadow.model
    if any(isinstance(one, Previous) for one in declared.fallback) and declared.model.startswith(SCHEME):
        wanted[PREVIOUS] = f"{SCHEME}{Reference.parse(declared.model).name}@previous"
    return wanted
