"""What a run of MLflow is told, and a history that no tag is too short for."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from boucle.models.mlflow_run import history_of, next_page, run_of
from boucle.models.registry import Change, change_of
from tests.models.tiny import tiny

RECORD: dict[str, Any] = {
    "spec": {"algorithm": "lightgbm", "task": "classification", "owner": "risk"},
    "views": [{"name": "card"}, {"name": "terminal"}],
    "cut": 7,
    "seed": 1,
    "data": {"data/labels.parquet": {"table": "l", "version": -1, "digest": "d" * 64, "rows": 10}},
    "parameters": {"leaves": 31},
    "searched": {
        "metric": "auc",
        "trials": [{"parameters": {}, "score": 0.7}, {"score": None}, {"score": 0.8}],
    },
    "rows": {"train": 8, "test": 2},
    "metrics": {"auc": 0.9, "nothing": None},
    "baselines": {"mean": {"auc": 0.5}},
    "slices": {"region": {"nord/süd": {"auc": 0.8}}},
    "drift": {"amount": 0.01},
    "code": {"commit": "abc", "changed": False},
    "environment": {"python": "3.11"},
    "seconds": 2.5,
}


def test_a_run_is_told_everything_of_a_training() -> None:
    told = run_of(tiny().manifest, json.dumps(RECORD).encode())
    metrics = {(one["key"], one["step"]): one["value"] for one in told.metrics}
    assert metrics["auc", 0] == 0.9
    assert (metrics["search_auc", 0], metrics["search_auc", 2]) == (0.7, 0.8)
    assert metrics["baseline/mean/auc", 0] == 0.5
    assert metrics["slice/region/nord/süd/auc", 0] == 0.8
    assert metrics["psi/amount", 0] == 0.01
    assert metrics["rows/train", 0] == 8.0
    assert not [key for key, _ in metrics if key == "nothing"]
    params = {one["key"]: one["value"] for one in told.params}
    assert params == {"algorithm": "lightgbm", "task": "classification", "seed": "1", "cut": "7",
                      "views": "card, terminal", "leaves": "31"}  # fmt: skip
    tags = {one["key"]: one["value"] for one in told.tags}
    assert tags["mlflow.source.git.commit"] == "abc"
    assert tags["boucle.environment.python"] == "3.11"
    assert (len(told.datasets), len(told.datasets[0]["dataset"]["digest"])) == (1, 36)


def test_a_call_stays_within_the_limits_of_the_server() -> None:
    many = {**RECORD, "drift": {f"f{number}": 0.1 for number in range(2_500)},
            "parameters": {f"p{number}": 1 for number in range(150)}}  # fmt: skip
    calls = list(run_of(tiny().manifest, json.dumps(many).encode()).batches())
    assert max(len(one.get("metrics", ())) for one in calls) == 1_000
    assert max(len(one.get("params", ())) for one in calls) == 100


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RECORD, "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*RECORD]), json_values))
def test_any_record_gives_a_run(record: Any) -> None:
    list(run_of(tiny().manifest, json.dumps(record).encode()).batches())


@given(st.binary(max_size=50))
@example(b'"\x80"')
def test_any_bytes_give_a_run(record: bytes) -> None:
    told = run_of(tiny().manifest, record)
    assert (len(told.metrics), told.datasets) == (1, [])


def test_a_history_is_kept_whole_however_long() -> None:
    tags: dict[str, str] = {"boucle.history.junk": "x", "other": "y"}
    made: list[Change] = []
    for number in range(120):
        change = change_of("promote", "champion", {}, {"champion": number}, by="ada", why="x" * (number % 90))
        made.append(change)
        key, text = next_page(_listed(tags), change)
        assert len(text) <= 4_500
        tags[key] = text
    assert history_of(_listed(tags)) == tuple(made)
    assert len(tags) > 4


def test_evidence_that_fills_more_than_a_tag_is_left_out_and_a_foreign_tag_passed_over() -> None:
    change = change_of("promote", "champion", {}, {"champion": 1}, by="ada", evidence={"much": "x" * 9_000})
    tags = {"boucle.history": "not ours"}
    key, text = next_page(_listed(tags), change)
    assert (key, len(text) < 4_500) == ("boucle.history.1", True)
    (kept,) = history_of(_listed({**tags, key: text}))
    assert kept == structs.replace(change, evidence={"left_out": kept.evidence["left_out"]})


def _listed(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
