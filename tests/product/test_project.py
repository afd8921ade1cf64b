"""A product folder is read as one value, or every mistake is told at once with its line."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from boucle.errors import BoucleError, DeclarationError, Problem
from boucle.product.check import official_schema
from boucle.product.duration import seconds
from boucle.product.lines import read_documents
from boucle.product.project import Settings, load_project
from boucle.product.size import size

PRESS = Path("examples/press")
STANDARDS = Path("../shared/standards")


def broken(tmp_path: Path, *changes: tuple[str, str]) -> list[Problem]:
    text = (PRESS / "product.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    (tmp_path / "product.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DeclarationError) as caught:
        load_project(tmp_path)
    return list(caught.value.problems)


def line_of(tmp_path: Path, text: str) -> int:
    lines = (tmp_path / "product.yaml").read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_the_press_is_sound() -> None:
    project = load_project(PRESS)
    assert project.id == "press-line"
    tables = ["vibration_events", "maintenance_summary", "process_minutes", "machine_hours"]
    assert set(project.contracts) == {"vibration", "process", *tables}
    samples = project.contracts["vibration"].fields[-1]
    assert (samples.unit, samples.minimum, samples.maximum) == ("g", -100, 100)
    assert project.contracts["vibration"].fields[3].one_of == ("vib_x", "vib_y", "vib_z")


@pytest.mark.parametrize(
    "example", sorted(Path("examples").glob("*/product.yaml")), ids=lambda p: p.parent.name
)
@pytest.mark.skipif(not STANDARDS.exists(), reason="the official schemas are not beside the project")
def test_first_two_documents_satisfy_the_official_schemas(example: Path) -> None:
    documents = list(yaml.load_all(example.read_text(encoding="utf-8"), Loader=yaml.BaseLoader))
    assert [document["kind"] for document in documents] == ["DataProduct", "DataContract", "Loop"]
    read, problems = read_documents(example)
    assert not problems
    for document, file in zip(
        read[:2],
        ("odps/schema/odps-json-schema-v1.0.0.json", "odcs/schema/odcs-json-schema-v3.1.0.json"),
        strict=True,
    ):
        schema = json.loads((STANDARDS / file).read_text(encoding="utf-8"))
        assert schema == official_schema(document.value["kind"]), "the shipped copy is not the official one"
        jsonschema.Draft201909Validator(schema).validate(document.value)


def test_every_problem_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    problems = broken(
        tmp_path,
        ("status: active\ndomain", "statuss: active\ndomain"),
        ("logicalType: integer, physicalType: int64", "logicalType: integr, physicalType: int64"),
        ("    lateness: 500ms", "    latenes: 500ms"),
    )
    told = {problem.line: str(problem) for problem in problems}
    assert 'did you mean "lateness"' in told[line_of(tmp_path, "latenes: 500ms")]
    assert "integr" in told[line_of(tmp_path, "integr,")]
    assert any("status" in text for text in told.values())
    assert all(problem.fix for problem in problems if "unexpected" in problem.what)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("mqtt://{broker}/press/+", "mqt://{broker}/press/+", 'Did you mean "mqtt"'),
        ("    schema: process", "    schema: proces", 'did you mean "process"'),
        ("dedupe: [producer, seq, sensor]", "dedupe: [producer, sequ, sensor]", 'did you mean "seq"'),
        ("lateness: 500ms", "lateness: 500 parsecs", "is not a duration"),
        ("from: [vibration_events, process]", "from: [health, process]", "move it up"),
        (
            "    from: verdicts\n    zone: gold",
            "    from: verdict\n    zone: gold",
            'did you mean "verdicts"',
        ),
        ("product: press-line\ncontract", "product: presses\ncontract", "'press-line'"),
        ("machines: verdicts", "machines: verdict", 'did you mean "verdicts"'),
        ("physicalType: float32", "physicalType: float12", "float32"),
        ("    lateness: 500ms", "    shed: {after: 2 sec}", "is not a duration"),
        ("    lateness: 500ms", "    shed: {after: 0s}", "more than 0"),
        ("    lateness: 500ms", "    shed: {after: 2s, keep: newest}", "shed.keep: there is no such setting"),
        ("    lateness: 500ms", "    keep: {bytes: 20 gigs}", "is not a size"),
        ("    lateness: 500ms", "    keep: 7 days", "is not a duration"),
        ("    lateness: 500ms", "    keep: 1min", "at least horizon + lateness"),
    ],
)
def test_mistakes_say_how_to_mend_them(tmp_path: Path, old: str, new: str, expected: str) -> None:
    problems = broken(tmp_path, (old, new))
    assert len(problems) == 1, [str(problem) for problem in problems]
    assert expected in str(problems[0])
    assert problems[0].line == line_of(tmp_path, new.splitlines()[0])


@pytest.mark.parametrize(
    ("text", "expected"), [("20GB", 20 * 10**9), ("512 MiB", 2**29), ("1.5kB", 1500), (7, 7), ("0B", 0)]
)
def test_sizes(text: str | int, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["20", "GB", "-1GB", "20 gb", "1e3MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BoucleError, match="B215"):
        size(text)


def test_a_missing_document_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="there is no file"):
        load_project(tmp_path)
    (tmp_path / "product.yaml").write_text("kind: DataProduct\napiVersion: v1.0.0\nid: a\nstatus: active\n")
    with pytest.raises(DeclarationError) as caught:
        load_project(tmp_path)
    assert {problem.what for problem in caught.value.problems} == {
        "there is no DataContract document",
        "there is no Loop document",
    }


@pytest.mark.parametrize("text", ["a: [1", "a: 1\na: 2", "\tb: 1", "a: 1\n--- \n: :\n- x\n  y: 1\n"])
def test_bad_yaml_is_told_with_its_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "product.yaml"
    file.write_text(text)
    _, problems = read_documents(file)
    assert problems
    assert problems[0].code == "B202"
    assert problems[0].line >= 1


def test_latin1_bytes_are_told(tmp_path: Path) -> None:
    file = tmp_path / "product.yaml"
    file.write_bytes("name: été".encode("latin-1"))
    _, problems = read_documents(file)
    assert "UTF-8" in problems[0].fix


def test_on_and_no_are_words_not_booleans(tmp_path: Path) -> None:
    file = tmp_path / "product.yaml"
    file.write_text("on: no\nyes: true\nday: 2026-01-01\n")
    (document,), problems = read_documents(file)
    assert not problems
    assert document.value == {"on": "no", "yes": True, "day": "2026-01-01"}


def test_settings_know_their_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boucle.toml").write_text(
        '[addresses]\nbroker = "here:1"\nplc = "here:2"\n[environments.prod.addresses]\nbroker = "there:1"\n'
    )
    plain, prod = Settings(tmp_path), Settings(tmp_path, "prod", {"addresses.plc": "mine:2"})
    assert plain.get("addresses.broker").value == "here:1"
    assert prod.get("addresses.broker").value == "there:1"
    assert "environments.prod" in prod.get("addresses.broker").origin
    assert prod.get("addresses.plc").origin == "the command line"
    assert plain.get("run.folder").origin == "default"
    monkeypatch.setenv("BOUCLE_ADDRESSES_BROKER", "env:1")
    assert prod.fill("mqtt://{broker}/x") == "mqtt://env:1/x"
    with pytest.raises(BoucleError) as missing:
        plain.get("addresses.mes")
    assert "BOUCLE_ADDRESSES_MES" in str(missing.value)
    assert "boucle.toml addresses.mes" in missing.value.why
    with pytest.raises(BoucleError, match="stage"):
        Settings(tmp_path, "stage")


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "boucle.toml").write_text("[addresses]\nbroker = here\n")
    with pytest.raises(DeclarationError) as caught:
        Settings(tmp_path)
    assert caught.value.problems[0].line == 2


@pytest.mark.parametrize("text", ["", "5", "5 weeks", "ms", "-1s", "1s 2s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(BoucleError) as caught:
        seconds(text)
    assert "500ms" in caught.value.fix
