"""An MLflow server as the registry: our runs, versions and aliases appear there, models logged elsewhere load here.

Spoken to by its REST API (2.0), so that nothing of MLflow is installed here. A role is an alias; the changes are
kept in tags of the registered model. When the server cannot be reached, what was last seen of it
is used, from a cache on disk, and that is said once.
"""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import yaml

from boucle.errors import BoucleError, Unavailable
from boucle.models.file import Column, ModelFile
from boucle.models.folder import replace_file
from boucle.models.foreign import mlflow_model
from boucle.models.mlflow_run import history_of, next_page, run_of
from boucle.models.registry import (
    Change,
    Reference,
    Registry,
    Roles,
    Version,
    change_of,
    check_name,
    promoted,
    rolled_back,
)
from boucle.models.signing import Unsigned

__all__ = ["MlflowRegistry"]

_LOG = logging.getLogger(__name__)
_EXPERIMENT = "boucle"
_LOOK_AGAIN = 1.0
"""Seconds after which `generation` asks the server again, beside the path."""


class MlflowRegistry(Registry):
    """Models of an MLflow server, `mlflow+http://host:port`.

    MLflow has no signatures: the digest of each file is checked, who made it is not.
    """

    unsigned: Unsigned = "allow"

    def __init__(self, address: str, *, cache: Path | None = None, timeout: float = 10.0) -> None:
        import httpx

        self.address = address.removeprefix("mlflow+").rstrip("/")
        self._client = httpx.Client(base_url=self.address, timeout=timeout)
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = hashlib.sha256(self.address.encode()).hexdigest()[:16]
        self._cache = cache or home / "boucle" / "models" / key
        self._away = False
        self._known: dict[str, tuple[float, Roles]] = {}
        self._asking = threading.Lock()

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def add(
        self, model: ModelFile, *, by: str = "", note: str = "", files: Mapping[str, bytes] | None = None
    ) -> Version:
        """A run with parameters, metrics and artifacts, and the next version of the registered model."""
        name = check_name(model.manifest.name)
        run = self._run(model, files or {})
        info = run["info"]
        place = f"{_path(info['artifact_uri'])}/model"
        content = {**(files or {}), **model.files()}
        content["MLmodel"] = _described(model, info["run_id"])
        for file, told in content.items():
            self._call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{place}/{file}", content=told)
        self._api("POST", "runs/update", run_id=info["run_id"], status="FINISHED", end_time=_ms())
        self._api("POST", "registered-models/create", _ignore={"RESOURCE_ALREADY_EXISTS"}, name=name)
        made = self._api(
            "POST",
            "model-versions/create",
            name=name,
            source=f"{info['artifact_uri']}/model",
            run_id=info["run_id"],
            description=note,
            tags=[
                {"key": "boucle.sha256", "value": model.manifest.sha256},
                {"key": "boucle.by", "value": by},
            ],
        )
        return _version(made["model_version"])

    def names(self) -> list[str]:
        """Every registered model."""
        told = self._seen("names", lambda: self._api("GET", "registered-models/search", max_results=1000))
        return sorted(str(one["name"]) for one in told.get("registered_models", []))

    def versions(self, name: str) -> list[Version]:
        """Every version of a name, oldest first."""
        query = f"name='{check_name(name)}'"
        told = self._seen(
            f"{name}.versions",
            lambda: self._api("GET", "model-versions/search", filter=query, max_results=10_000),
        )
        found = [_version(one) for one in told.get("model_versions", [])]
        return sorted(found, key=lambda one: one.number)

    def roles(self, name: str) -> Roles:
        """The aliases, and the changes made through here."""
        told = self._seen(
            f"{check_name(name)}.roles",
            lambda: self._api("GET", "registered-models/get", _ignore={"RESOURCE_DOES_NOT_EXIST"}, name=name),
        )
        model = told.get("registered_model", {})
        aliases = {str(one["alias"]): int(one["version"]) for one in model.get("aliases", [])}
        history = history_of(model.get("tags", []))
        # Aliases may be changed by anybody: the generation is of what they say, not of what we did.
        mark = hashlib.sha256(repr(sorted(aliases.items())).encode()).digest()
        roles = Roles(generation=int.from_bytes(mark[:6], "big"), roles=aliases, history=history)
        self._known[name] = (time.monotonic(), roles)
        return roles

    def generation(self, name: str) -> int:
        """Changes with the aliases; the server is asked beside the path, at most once a second."""
        known = self._known.get(name)
        if known is None:
            return self.roles(name).generation
        if time.monotonic() - known[0] > _LOOK_AGAIN and self._asking.acquire(blocking=False):
            threading.Thread(target=self._ask, args=(name, known[1]), daemon=True).start()
        return known[1].generation

    def _ask(self, name: str, last: Roles) -> None:
        try:
            self.roles(name)
        except (BoucleError, RuntimeError):  # the latter when the connections were given back meanwhile
            self._known[name] = (time.monotonic(), last)
        finally:
            self._asking.release()

    def load(self, reference: str | Reference) -> ModelFile:
        """The model: ours with its manifest verified, or one that somebody logged, as ONNX or pyfunc.

        B639 for anything else, B640 when its signature names no columns.
        """
        version = self.resolve(reference)
        files = self.files(Reference(version.name, number=version.number))
        if "manifest.json" not in files:
            return mlflow_model(files, version.name)
        model = ModelFile.load(self._place(version))
        if version.sha256 and version.sha256 != model.manifest.sha256:
            what = "these are not the files that were registered"
            raise BoucleError("B622", what, where=str(version), fix="register the model again")
        return model

    def files(self, reference: str | Reference) -> dict[str, bytes]:
        """Every artifact of a version; kept in the cache, because a version never changes."""
        version = self.resolve(reference)
        folder = self._place(version)
        if not (folder / ".whole").exists():
            told = self._api(
                "GET", "model-versions/get-download-uri", name=version.name, version=str(version.number)
            )
            root = PurePosixPath(_path(told["artifact_uri"]))
            for path in self._artifacts(str(root)):
                content = self._call("GET", f"/api/2.0/mlflow-artifacts/artifacts/{path}").content
                file = folder / _inside(PurePosixPath(path).relative_to(root))
                file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(file, content)
            (folder / ".whole").touch()
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in sorted(folder.rglob("*"))
            if file.is_file() and file.name != ".whole"
        }

    def folder(self, reference: str | Reference) -> Path:
        """Where the artifacts of a version lie on this machine, fetched if need be."""
        version = self.resolve(reference)
        self.files(Reference(version.name, number=version.number))
        return self._place(version)

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
        """Set the alias; who was champion becomes `previous`."""
        self.load(Reference(name, number=version))
        Reference.parse(f"{name}@{role}")
        now = self.roles(name)
        after = promoted(now.roles, version, role)
        change = change_of("promote", role, now.roles, after, by=by, why=why, evidence=evidence)
        return self._change(name, now, after, change)

    def rollback(self, name: str, *, by: str = "", why: str = "", role: str = "champion") -> Roles:
        """The champion before this one again; B623 when there is none. Of a challenger: its trial ends."""
        now = self.roles(name)
        after = rolled_back(self, name, now.roles, role)
        return self._change(name, now, after, change_of("rollback", role, now.roles, after, by=by, why=why))

    def keep(self, name: str, last: int) -> list[int]:
        """Delete our versions but the `last` and those with an alias; runs and artifacts stay (`mlflow gc`).

        Versions that somebody else registered under the name are left alone.
        """
        known = [one for one in self.versions(name) if one.sha256]
        played = set(self.roles(name).roles.values())
        gone = [one.number for one in known[: -max(1, last)] if one.number not in played]
        for number in gone:
            self._api("DELETE", "model-versions/delete", name=name, version=str(number))
            shutil.rmtree(self._cache / name / str(number), ignore_errors=True)
        return gone

    def _run(self, model: ModelFile, files: Mapping[str, bytes]) -> dict[str, Any]:
        """A run with what the training record tells."""
        found = self._api(
            "GET",
            "experiments/get-by-name",
            _ignore={"RESOURCE_DOES_NOT_EXIST"},
            experiment_name=_EXPERIMENT,
        )
        experiment = found.get("experiment") or self._api("POST", "experiments/create", name=_EXPERIMENT)
        run: dict[str, Any] = self._api(
            "POST",
            "runs/create",
            experiment_id=experiment["experiment_id"],
            run_name=model.manifest.name,
            start_time=_ms(),
        )["run"]
        told = run_of(model.manifest, files.get("record.json", b""))
        for batch in told.batches():
            self._api("POST", "runs/log-batch", run_id=run["info"]["run_id"], **batch)
        if told.datasets:
            self._api("POST", "runs/log-inputs", run_id=run["info"]["run_id"], datasets=told.datasets)
        return run

    def _artifacts(self, path: str) -> list[str]:
        told = self._call("GET", "/api/2.0/mlflow-artifacts/artifacts", params={"path": path}).json()
        found: list[str] = []
        for one in told.get("files", []):
            here = f"{path}/{_inside(PurePosixPath(one['path']))}"
            found += self._artifacts(here) if one.get("is_dir") else [here]
        return found

    def _place(self, version: Version) -> Path:
        return self._cache / version.name / str(version.number)

    def _alias(self, name: str, alias: str, version: int | None) -> None:
        if version is None:
            self._api("DELETE", "registered-models/alias", name=name, alias=alias)
        else:
            self._api("POST", "registered-models/alias", name=name, alias=alias, version=str(version))

    def _change(self, name: str, now: Roles, after: Mapping[str, int], change: Change) -> Roles:
        """Move the aliases, the champion last, and keep what was done in the tags of the registered model."""
        differs = [role for role in {*now.roles, *after} if now.roles.get(role) != after.get(role)]
        for role in sorted(differs, key=lambda one: one == "champion"):
            self._alias(name, role, after.get(role))
        told = self._api("GET", "registered-models/get", name=name).get("registered_model", {})
        key, text = next_page(told.get("tags", []), change)
        self._api("POST", "registered-models/set-tag", name=name, key=key, value=text)
        return self.roles(name)

    def _seen(self, what: str, ask: Any) -> dict[str, Any]:
        """What the server says; what it last said when it cannot be reached."""
        file = self._cache / f"{what}.json"
        try:
            told: dict[str, Any] = ask()
        except Unavailable:
            if not file.exists():
                raise
            if not self._away:
                self._away = True
                _LOG.warning(
                    "the MLflow server %s cannot be reached: what was last seen is used", self.address
                )
            return dict(msgspec.json.decode(file.read_bytes()))
        self._away = False
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_file(file, msgspec.json.encode(told))
        return told

    def _api(self, verb: str, path: str, _ignore: set[str] | None = None, **told: Any) -> dict[str, Any]:
        sent = {"params": told} if verb == "GET" else {"json": told}
        response = self._call(verb, f"/api/2.0/mlflow/{path}", _ignore, **sent)
        return dict(response.json()) if response.status_code < 400 else {}

    def _call(self, verb: str, path: str, _ignore: set[str] | None = None, **sent: Any) -> Any:
        import httpx

        try:
            response = self._client.request(verb, path, **sent)
        except httpx.HTTPError as error:
            raise Unavailable(
                "B636",
                "the MLflow server cannot be reached",
                where=self.address,
                why=str(error) or type(error).__name__,
                fix="start it, or correct [models] registry in boucle.toml",
            ) from error
        if response.status_code < 400:
            return response
        try:
            told = response.json()
        except ValueError:
            told = {}
        if _ignore and told.get("error_code") in _ignore:
            return response
        kind = Unavailable if response.status_code >= 500 else BoucleError
        why = (
            f"{response.status_code} {told.get('error_code', '')}: {told.get('message', response.text[:200])}"
        )
        what = f"the MLflow server refuses {path.rpartition('mlflow/')[2]}"
        raise kind("B637", what, where=self.address, why=why, fix="see the server's log")


def _path(uri: str) -> str:
    """The path below the server's artifact root; B638 when the artifacts lie where only MLflow can read."""
    scheme, _, rest = uri.partition(":")
    if scheme != "mlflow-artifacts":
        what = f"the artifacts lie at {uri}, not behind the server"
        raise BoucleError("B638", what, fix="start it with --artifacts-destination (it serves them then)")
    return rest.lstrip("/") if not rest.startswith("//") else rest[2:].partition("/")[2]


def _inside(path: PurePosixPath) -> PurePosixPath:
    """A relative path that stays in its folder; B638 when a server says another."""
    if path.is_absolute() or ".." in path.parts:
        raise BoucleError("B638", f"the server names an artifact {path}", fix="do not use this server")
    return path


def _version(told: Mapping[str, Any]) -> Version:
    tags = {one["key"]: one.get("value", "") for one in told.get("tags", [])}
    moment = time.gmtime(int(told.get("creation_timestamp", 0)) / 1000)
    return Version(
        name=str(told["name"]),
        number=int(told["version"]),
        object=str(told.get("source", "")),
        sha256=str(tags.get("boucle.sha256", "")),
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", moment),
        by=str(tags.get("boucle.by") or told.get("user_id", "")),
        note=str(told.get("description", "")),
        flavour="onnx" if "boucle.sha256" in tags else "",
    )


def _described(model: ModelFile, run: str) -> bytes:
    """`MLmodel`: what MLflow itself loads our model by."""
    manifest = model.manifest

    def columns(some: tuple[Column, ...]) -> str:
        return msgspec.json.encode(
            [{"type": "float", "name": one.name, "required": True} for one in some]
        ).decode()

    told = {
        "artifact_path": "model",
        "flavors": {
            "onnx": {"data": "model.onnx", "onnx_version": "1", "providers": ["CPUExecutionProvider"]},
            "python_function": {"data": "model.onnx", "loader_module": "mlflow.onnx"},
        },
        "run_id": run,
        "signature": {
            "inputs": columns(manifest.inputs),
            "outputs": columns(manifest.outputs),
            "params": None,
        },
        "utc_time_created": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
    }
    return yaml.safe_dump(told).encode()


def _ms() -> int:
    return time.time_ns() // 1_000_000
