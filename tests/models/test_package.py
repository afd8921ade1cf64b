"""One file that is whole or refused, and manifests that Kubernetes takes."""

import argparse
import copy
import importlib
import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench.peers import Unusable, environment
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from boucle.cli.main import main
from boucle.errors import BoucleError
from boucle.models.kubernetes import manifest_problems
from boucle.models.package import manifests, package, unpack
from boucle.models.registry import Registry, Version
from tests.models.tiny import tiny


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry.at(tmp_path / "registry")
    made.add(tiny(), files={"card.md": b"# tiny"})
    return made


def test_a_package_is_the_version(registry: Registry, tmp_path: Path) -> None:
    written = package(registry, "tiny/1", tmp_path / "dist", image="registry.example/fraud:1")
    model, files = unpack(written[0])
    assert model == tiny()
    assert {"SHA256SUMS", "version.dsse.json", "card.md"} <= set(files)
    before = written[0].read_bytes()
    assert package(registry, "tiny/1", tmp_path / "dist")[0].read_bytes() == before
    docker = written[1].read_text()
    assert "USER 10001" in docker
    assert "COPY tiny-1.boucle-model" in docker
    command = json.loads(docker.rpartition("CMD ")[2])
    parser = argparse.ArgumentParser()
    importlib.import_module(f"boucle.cli.{command[1]}").arguments(parser)
    assert parser.parse_args(command[2:]).models == "/model/tiny"
    assert [one["kind"] for one in yaml.safe_load_all(written[2].read_text())] == ["Deployment", "Service"]


def test_the_command_line_packages(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ["--product", str(tmp_path), "--to", str(tmp_path / "dist")]
    assert main(["models", "package", "tiny/1", *there]) == 0
    assert "tiny-1.boucle-model" in capsys.readouterr().out
    assert main(["models", "package", "tiny/1", *there, "--image", "Not An Image"]) == 1
    assert "B644" in capsys.readouterr().err


def test_a_changed_package_is_refused(registry: Registry, tmp_path: Path) -> None:
    packed = package(registry, "tiny/1", tmp_path)[0]
    whole = packed.read_bytes()
    for broken in (b"", whole[:200], whole[: len(whole) // 2], b"no zip"):
        packed.write_bytes(broken)
        with pytest.raises(BoucleError):
            unpack(packed)
    packed.write_bytes(whole)
    _, files = unpack(packed)
    with zipfile.ZipFile(packed, "w") as out:
        for name, told in {**files, "card.md": b"# other"}.items():
            out.writestr(name, told)
    with pytest.raises(BoucleError, match=r"changed: card\.md"):
        unpack(packed)


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_package_or_refused(told: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.boucle-model"
        file.write_bytes(b"PK\x03\x04" + told)
        with pytest.raises(BoucleError):
            unpack(file)


@settings(max_examples=25)
@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", fullmatch=True))
def test_every_model_name_gives_manifests_that_are_valid(name: str) -> None:
    version = Version(name=name, number=3, object="", sha256="0" * 64, created="")
    assert [problem for one in manifests(version, "image:1") for problem in manifest_problems(one)] == []


OFFICIAL = json.loads((Path(__file__).with_name("kubernetes") / "schemas.json").read_text(encoding="utf-8"))
MADE = manifests(Version(name="m", number=1, object="", sha256="0" * 64, created=""), "m:1")


def official(document: Any) -> list[str]:
    """What the official schema of a kind refuses; unknown fields too."""
    kind = {"Deployment": "deployment-apps-v1", "Service": "service-v1"}[document["kind"]]
    schema = {**OFFICIAL["kinds"][kind], "$defs": OFFICIAL["$defs"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(document)]


@settings(max_examples=25)
@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", fullmatch=True))
def test_the_official_schemas_take_what_is_written(name: str) -> None:
    version = Version(name=name, number=3, object="", sha256="0" * 64, created="")
    assert [problem for one in manifests(version, "image:1") for problem in official(one)] == []


def _places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inner:
        yield (*at, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*at, key))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_the_official_schemas_refuse_is_refused_here(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from(MADE)))
    *above, last = data.draw(st.sampled_from([one for one in _places(document) if one != ("kind",)]))
    there: Any = document
    for step in above:
        there = there[step]
    wrong: Any = data.draw(
        st.sampled_from(["gone", "other", 5, "text", -1, None, [], {}, {"a": "b"}, 1.5, True])
    )
    if wrong == "gone":
        del there[last]
    elif wrong == "other" and isinstance(there, dict):
        there["unheardOf"] = there.pop(last)
    else:
        there[last] = wrong
    if official(document):
        assert manifest_problems(document)


def test_every_version_of_kubernetes_takes_the_file(registry: Registry, tmp_path: Path) -> None:
    try:
        python = environment("kubernetes", make=False)
    except Unusable:
        pytest.skip(
            "no kubernetes-validate: environment('kubernetes', make=True) of bench.peers makes it (60 MB)"
        )
    written = package(registry, "tiny/1", tmp_path / "dist")[2]
    code = (
        "import sys, yaml, kubernetes_validate as k\n"
        "rows = list(yaml.safe_load_all(open(sys.argv[1])))\n"
        "for version in k.utils.all_versions():\n"
        "    for one in rows: k.validate(one, version, strict=True)\n"
        "    print(version)"
    )
    done = subprocess.run(
        [python, "-c", code, written], check=False, capture_output=True, text=True, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert {"1.25.0", "1.37.0"} <= {one.partition("-")[0] for one in done.stdout.split()}


def _set(document: Any, path: str, value: Any) -> None:
    *above, last = path.split(".")
    for step in above:
        document = document[int(step) if step.isdigit() else step]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "Upper"),
        ("spec.replicas", -1),
        ("spec.template.spec.containers", []),
        ("spec.template.spec.containers.0.image", "with space"),
        ("spec.template.spec.containers.0.resources.limits.memory", "much"),
        ("spec.template.spec.containers.0.readinessProbe.httpGet.path", "v2"),
        ("spec.template.spec.containers.0.livnessProbe", {}),
        ("spec.template.metadata.labels", {"app": "other"}),
        ("kind", "Daemonset"),
    ],
)
def test_what_kubernetes_would_refuse_is_told(path: str, value: Any) -> None:
    document = manifests(Version(name="m", number=1, object="", sha256="", created=""), "m:1")[0]
    assert manifest_problems(document) == []
    _set(document, path, value)
    assert manifest_problems(document)
