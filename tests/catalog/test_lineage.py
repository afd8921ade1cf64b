"""Lineage events keep the OpenLineage schemas, survive crashes, and tell no secret."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

from boucle.catalog import Column, Dataset, Lineage, Written, dataset, events, table
from boucle.catalog.lineage import FACETS, uuid7
from boucle.clock import SECOND, Nanos

SPEC = Path(__file__).parents[2] / ".." / "shared" / "standards" / "openlineage" / "spec"
NOON = 1_795_262_400 * SECOND
Check = Callable[[dict[str, Any]], None]


class HandClock:
    speed = 1.0

    def __init__(self, time: Nanos = NOON) -> None:
        self.time = time

    def now(self) -> Nanos:
        self.time += 1_500
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += int(seconds * SECOND)


@pytest.fixture(scope="module")
def keeps_the_standard() -> Check:
    if not SPEC.exists():
        pytest.skip("the OpenLineage schemas are not beside this checkout (../shared/standards)")
    documents = [
        json.loads(path.read_text()) for path in [*SPEC.glob("facets/*.json"), SPEC / "OpenLineage.json"]
    ]
    registry = Registry().with_resources([(one["$id"], Resource.from_contents(one)) for one in documents])
    known = {one["$id"] for one in documents}

    def check(event: dict[str, Any]) -> None:
        _valid({"$ref": event["schemaURL"]}, event)
        for facets in _facets_of(event):
            for name, facet in facets.items():
                url = facet["_schemaURL"]
                assert url.partition("#")[0] in known, f"{name} names a schema that is not in the standard"
                _valid({"$ref": url}, facet)

    def _valid(schema: dict[str, str], value: object) -> None:
        validator = Draft202012Validator(schema, registry=registry, format_checker=FormatChecker())
        problems = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
        assert problems == []

    return check


def _facets_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    found = [event["run"]["facets"], event["job"]["facets"]]
    for one in [*event["inputs"], *event["outputs"]]:
        found += [one[key] for key in ("facets", "inputFacets", "outputFacets") if key in one]
    return found


def press(lineage: Lineage, lake: Path) -> None:
    vibration = dataset(
        "mqtt://bob:hunter2@gateway:1883/press/+/vibration?qos=1&auth=x",
        pa.schema([("machine", pa.string()), ("samples", pa.list_(pa.float32()))]),
    )
    plc = dataset("opc.tcp://plc:4840", name="press-line")
    features = table(
        lake,
        "silver",
        "features",
        pa.schema([("machine", pa.string()), ("x_rms", pa.float64())]),
        made_from={
            "machine": [Column(vibration, "machine")],
            "x_rms": [Column(vibration, "samples", "AGGREGATION", "r.m.s. over 1s")],
        },
    )
    loop = lineage.start("press-line", [vibration, plc], [features])
    loop.running({features.name: Written(10, bytes=2_000, files=2, version=3), vibration.name: Written(30)})
    train = lineage.start("press-line.train", [features], kind="BATCH", parent=loop)
    train.fail("B601 not enough rows")
    loop.complete({features.name: Written(20)})


def test_every_event_and_facet_is_valid(tmp_path: Path, keeps_the_standard: Check) -> None:
    press(Lineage(tmp_path / "lineage", HandClock()), tmp_path / "lake")
    told = list(events(tmp_path / "lineage"))
    assert [one["eventType"] for one in told] == ["START", "RUNNING", "START", "FAIL", "COMPLETE"]
    for one in told:
        keeps_the_standard(one)
    used = {name for one in told for facets in _facets_of(one) for name in facets}
    assert used == set(FACETS)


def test_sources_and_tables_are_named_by_where_they_are(tmp_path: Path) -> None:
    press(Lineage(tmp_path / "lineage", HandClock()), tmp_path / "lake")
    first = next(events(tmp_path / "lineage"))
    assert [(one["namespace"], one["name"]) for one in first["inputs"]] == [
        ("mqtt://gateway:1883", "press/+/vibration"),
        ("opc.tcp://plc:4840", "press-line"),
    ]
    assert [(one["namespace"], one["name"]) for one in first["outputs"]] == [
        (f"file://{tmp_path / 'lake'}", "silver/features")
    ]


def test_no_secret_is_told(tmp_path: Path) -> None:
    press(Lineage(tmp_path / "lineage", HandClock()), tmp_path / "lake")
    text = "".join(path.read_text() for path in (tmp_path / "lineage").iterdir())
    assert "hunter2" not in text
    assert "bob" not in text
    assert "auth" not in text


@pytest.mark.parametrize(
    ("address", "namespace", "name"),
    [
        ("memory:payments", "memory://payments", "/"),
        ("file:///data/skab/1.csv", "file://", "/data/skab/1.csv"),
        ("file:recordings/a.csv", "file://", "recordings/a.csv"),
        ("https://mes.plant/api/jobs", "https://mes.plant", "api/jobs"),
    ],
)
def test_addresses(address: str, namespace: str, name: str) -> None:
    assert dataset(address).id == (namespace, name)


def test_statistics_say_what_was_written_so_far(tmp_path: Path) -> None:
    press(Lineage(tmp_path / "lineage", HandClock()), tmp_path / "lake")
    _, running, _, failed, complete = events(tmp_path / "lineage")
    written = running["outputs"][0]["outputFacets"]["outputStatistics"]
    assert (written["rowCount"], written["size"], written["fileCount"]) == (10, 2_000, 2)
    assert running["outputs"][0]["facets"]["version"]["datasetVersion"] == "3"
    assert running["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 30
    assert complete["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 20
    assert failed["run"]["facets"]["errorMessage"]["message"] == "B601 not enough rows"
    assert failed["run"]["facets"]["parent"]["run"]["runId"] == complete["run"]["runId"]


def test_columns_say_what_they_were_made_from(tmp_path: Path) -> None:
    press(Lineage(tmp_path / "lineage", HandClock()), tmp_path / "lake")
    columns = next(events(tmp_path / "lineage"))["outputs"][0]["facets"]["columnLineage"]["fields"]
    (source,) = columns["x_rms"]["inputFields"]
    assert (source["name"], source["field"]) == ("press/+/vibration", "samples")
    says = {"description": "r.m.s. over 1s", "masking": False}
    assert source["transformations"] == [{"type": "DIRECT", "subtype": "AGGREGATION", **says}]


def test_what_decides_on_rows_and_what_nobody_declared_is_told_as_such(
    tmp_path: Path, keeps_the_standard: Check
) -> None:
    topic = dataset("mqtt://gateway:1883/press/+/vibration")
    filtered = Dataset(
        "file:///lake",
        "gold/bad",
        made_from={
            "x": (Column(topic, "samples", "UNKNOWN", "own:Quiet"), Column(topic, "machine", "CONDITIONAL"))
        },
        rows_from=(Column(topic, "machine", "FILTER", "machine = 'press-1'"),),
    )
    Lineage(tmp_path, HandClock()).start("one", [topic], [filtered])
    (told,) = events(tmp_path)
    keeps_the_standard(told)
    lineage = told["outputs"][0]["facets"]["columnLineage"]
    unknown, decides = (one["transformations"][0] for one in lineage["fields"]["x"]["inputFields"])
    assert unknown == {"type": "DIRECT", "description": "unknown: own:Quiet"}
    assert (decides["type"], decides["subtype"]) == ("INDIRECT", "CONDITIONAL")
    (rows,) = lineage["dataset"]
    assert (rows["field"], rows["transformations"][0]["subtype"]) == ("machine", "FILTER")


def test_columns_are_told_at_the_ends_of_a_run_and_not_every_minute(tmp_path: Path) -> None:
    press(Lineage(tmp_path / "lineage", HandClock()), tmp_path / "lake")
    whole = {
        (one["job"]["name"], one["eventType"]): "columnLineage" in one["outputs"][0]["facets"]
        for one in events(tmp_path / "lineage")
        if one["outputs"]
    }
    assert whole == {
        ("press-line", "START"): True,
        ("press-line", "RUNNING"): False,
        ("press-line", "COMPLETE"): True,
    }


def test_a_loop_tells_its_columns_from_topic_to_plc(tmp_path: Path, keeps_the_standard: Check) -> None:
    from tests.loop.manual import ManualPlant

    loop = ManualPlant(tmp_path).loop
    loop.lineage.start()
    loop.lineage.end(None)
    loop.close()
    start, complete = events(tmp_path / "lineage")
    for told in (start, complete):
        keeps_the_standard(told)
    outputs = {one["name"]: one["facets"].get("columnLineage", {}) for one in start["outputs"]}

    def sources(table: str, column: str) -> set[tuple[str, str, str]]:
        return {
            (one["name"], one["field"], one["transformations"][0]["subtype"])
            for one in outputs[table]["fields"][column]["inputFields"]
        }

    assert ("press/+/vibration", "samples", "AGGREGATION") in sources("gold/maintenance_summary", "health")
    assert ("process", "value", "TRANSFORMATION") in sources("plc", "speed_setpoint")
    assert sources("raw/vibration_raw", "samples") == {("press/+/vibration", "samples", "IDENTITY")}
    grouped = {
        (one["field"], one["transformations"][0]["subtype"])
        for one in outputs["silver/vibration_events"]["dataset"]
    }
    assert grouped == {("machine", "GROUP_BY"), ("sensor", "GROUP_BY"), ("at", "WINDOW")}


def test_a_line_torn_by_a_power_cut_is_cut_off(tmp_path: Path) -> None:
    clock = HandClock()
    Lineage(tmp_path, clock).start("one")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + b'{"eventType": "RUNN')
    assert len(list(events(tmp_path))) == 1
    Lineage(tmp_path, clock).start("two")
    assert [one["job"]["name"] for one in events(tmp_path)] == ["one", "two"]
    path.write_bytes(b'{"torn')
    Lineage(tmp_path, clock).start("three")
    assert [one["job"]["name"] for one in events(tmp_path)] == ["three"]


def test_a_new_day_is_a_new_file(tmp_path: Path) -> None:
    clock = HandClock()
    lineage = Lineage(tmp_path, clock)
    run = lineage.start("loop")
    clock.sleep(86_400)
    run.complete()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2026-11-21.ndjson", "2026-11-22.ndjson"]
    assert [one["eventTime"][:10] for one in events(tmp_path)] == ["2026-11-21", "2026-11-22"]


def test_run_ids_are_version_7_and_sort_by_time() -> None:
    ids = [uuid7(NOON + step * 1_000_000) for step in range(50)]
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}
    assert {UUID(str(one)).variant for one in ids} == {"specified in RFC 4122"}
    assert len({uuid7(NOON) for _ in range(1000)}) == 1000
