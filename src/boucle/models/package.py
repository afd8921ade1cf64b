"""A version as one file, and what a cluster needs to serve it.

`NAME-VERSION.boucle-model` is a zip with what the registry keeps (model, manifest, record, card, SHA256SUMS) and the
signed version. It is written without times, so that the same version gives the same bytes. Beside it: a Dockerfile,
and a Deployment and a Service for Kubernetes with probes, resources and a locked-down container.
"""

import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import yaml

from boucle.errors import BoucleError
from boucle.models.archive import pack
from boucle.models.file import ModelFile
from boucle.models.folder import FolderRegistry, replace_file, sums_of
from boucle.models.kubernetes import manifest_problems
from boucle.models.registry import Registry, Version

__all__ = ["SUFFIX", "manifests", "package", "unpack"]

SUFFIX = ".boucle-model"
_LARGEST = 2 << 30
_PORT, _GRPC = 8080, 8081
_ACCESS = "/etc/model"
_USER = 10_001


def package(registry: Registry, reference: str, to: Path, *, image: str = "") -> list[Path]:
    """Write the file, `Dockerfile` and `kubernetes.yaml` into a folder; returns their paths."""
    version = registry.resolve(reference)
    files = registry.files(str(version))
    if "model.onnx" not in files:
        raise BoucleError(
            "B649",
            f"{version} is no ONNX model, and only those are packaged",
            why="a pyfunc needs an image with its own environment",
            fix="mlflow models build-docker, or export it as ONNX",
        )
    files |= registry.proof(version) if isinstance(registry, FolderRegistry) else {}
    # A registry elsewhere keeps no list of its files: the package brings one, unsigned.
    files.setdefault("SHA256SUMS", sums_of(files))
    to.mkdir(parents=True, exist_ok=True)
    packed = to / f"{version.name}-{version.number}{SUFFIX}"
    replace_file(packed, pack(files))
    image = image or f"{_label(version.name)}:{version.number}"
    documents = manifests(version, image)
    problems = [problem for one in documents for problem in manifest_problems(one)]
    if problems:
        fix = "name another image, or another model"
        raise BoucleError("B644", "the manifests would not be valid", why="; ".join(problems), fix=fix)
    replace_file(to / "Dockerfile", _dockerfile(packed.name, version.name).encode())
    text = "---\n".join(yaml.safe_dump(one, sort_keys=False) for one in documents)
    replace_file(to / "kubernetes.yaml", text.encode())
    return [packed, to / "Dockerfile", to / "kubernetes.yaml"]


def unpack(packed: Path) -> tuple[ModelFile, dict[str, bytes]]:
    """The model of a package and its other files, every digest checked; B645 when it is no whole package."""
    try:
        with zipfile.ZipFile(packed) as opened:
            if sum(one.file_size for one in opened.infolist()) > _LARGEST:
                raise _broken(packed, f"it would unpack to more than {_LARGEST >> 30} GiB")
            files = {one: opened.read(one) for one in opened.namelist()}
        sums = {line[66:]: line[:64] for line in files["SHA256SUMS"].decode().splitlines()}
        wrong = [name for name, digest in sums.items() if hashlib.sha256(files[name]).hexdigest() != digest]
        manifest = files["manifest.json"], files["model.onnx"]
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, RuntimeError, NotImplementedError) as error:
        raise _broken(packed, str(error)) from error
    except EOFError as error:
        raise _broken(packed, "it is cut off") from error
    if wrong or not {"manifest.json", "model.onnx"} <= set(sums):
        raise _broken(packed, f"changed: {', '.join(wrong) or 'its list of files'}")
    return ModelFile.read(*manifest, where=str(packed)), files


def manifests(version: Version, image: str) -> list[dict[str, Any]]:
    """A Deployment and a Service that speak the Open Inference Protocol.

    Beyond one machine boucle answers known users only, over TLS: the Secret `NAME-access` holds `tls.crt`, `tls.key`
    and `users`.
    """
    name = _label(version.name)
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/version": str(version.number)}
    chosen = {"app.kubernetes.io/name": name}

    def probe(path: str, **more: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": "https", "scheme": "HTTPS"}, **more}

    container = {
        "name": "model",
        "image": image,
        "ports": [{"name": "https", "containerPort": _PORT}, {"name": "grpc", "containerPort": _GRPC}],
        "startupProbe": probe("/v2/health/live", periodSeconds=2, failureThreshold=30),
        "livenessProbe": probe("/v2/health/live", periodSeconds=10, timeoutSeconds=2),
        "readinessProbe": probe("/v2/health/ready", periodSeconds=5, timeoutSeconds=2),
        "resources": {
            "requests": {"cpu": "250m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
            {"name": "access", "mountPath": _ACCESS, "readOnly": True},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "access", "secret": {"secretName": f"{name}-access"}},
        ],
    }
    meta = {"name": name, "labels": labels}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**meta, "annotations": {"boucle.dev/sha256": version.sha256}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": chosen},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    ports = [
        {"name": "https", "port": 443, "targetPort": "https"},
        {"name": "grpc", "port": _GRPC, "targetPort": "grpc"},
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": dict(meta),
        "spec": {"selector": chosen, "ports": ports},
    }
    # Each mapping of its own: YAML would write shared ones as anchors.
    copied: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode([deployment, service]))
    return copied


def _dockerfile(packed: str, name: str) -> str:
    access = f"--users {_ACCESS}/users --certificate {_ACCESS}/tls.crt --key {_ACCESS}/tls.key"
    words = (
        f"boucle serve --models /model/{name} --http 0.0.0.0:{_PORT} --grpc 0.0.0.0:{_GRPC} {access}".split()
    )
    return f"""FROM python:3.11-slim
RUN pip install --no-cache-dir 'boucle[serving]' && useradd --uid {_USER} --no-create-home model
COPY {packed} /model/
RUN python -m zipfile -e /model/{packed} /model/{name} && cd /model/{name} && sha256sum --check --quiet SHA256SUMS
USER {_USER}
ENV ORT_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 HOME=/tmp
EXPOSE {_PORT} {_GRPC}
CMD {msgspec.json.encode(words).decode()}
"""


def _label(name: str) -> str:
    """A name that Kubernetes accepts (RFC 1123)."""
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:50].strip("-") or "model"


def _broken(packed: Path, why: str) -> BoucleError:
    fix = "package it again: boucle models package"
    return BoucleError("B645", "this is no whole package of a model", where=str(packed), why=why, fix=fix)
