"""What a contract promises of its service is compiled, or is an error with its line and its fix."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import Problem
from boucle.product.check import check_documents
from boucle.product.lines import read_documents, read_text
from boucle.product.sla import Objective, compile_sla
from tests.loop.served import PRODUCT, served

DATES = [
    {"property": "generalAvailability", "value": "2026-05-12T09:30:10-08:00"},
    {"property": "endOfSupport", "value": "2032-05-12"},
]


def checked(items: Any, beside: Any = None, **changed: str) -> tuple[list[Objective], list[Problem]]:
    documents, found = read_text(served(items, beside, **changed).encode(), "product.yaml")
    assert found == []
    by_kind, contracts, problems = check_documents(documents)
    if problems:
        return [], problems
    import msgspec

    from boucle.product.document import LoopDocument

    loop = msgspec.convert(by_kind["Loop"].value, LoopDocument)
    sla, again = compile_sla(by_kind["DataContract"], loop, contracts)
    assert again == []
    return list(sla.objectives), []


def test_every_kind_of_promise() -> None:
    items = [
        {"property": "freshness", "value": 2, "unit": "min", "element": "sums.at"},
        {"property": "latency", "value": 4, "unit": "d", "element": "readings"},
        {"property": "frequency", "value": "90s", "element": "sums"},
        {"property": "throughput", "value": 600, "unit": "rows/min", "element": "readings"},
        {"property": "availability", "value": 99.9, "unit": "%", "element": "sums", "id": "up"},
        {"property": "completeness", "value": "99.5%", "element": "readings"},
        {"property": "accuracy", "value": 95, "unit": "percent", "element": "sums.total"},
        {"property": "errorRate", "value": 0.1, "unit": "%", "driver": "regulatory"},
        *DATES,
    ]
    beside = {
        "freshness": {"target": "99.9%", "window": "7d"},
        "latency": {"errorBudget": "5%"},
        "up": {"probe": "http://127.0.0.1:1/health"},
        "accuracy": {"reference": "truth.csv", "key": ["pump"], "tolerance": "1%", "referenceTime": "at"},
    }
    told, problems = checked(items, beside)
    assert problems == []
    assert [(o.id, o.bound, o.target, o.window / 86400, o.stream, o.table) for o in told] == [
        ("freshness-sums", 120.0, 0.999, 7.0, "sums", "sums"),
        ("latency-readings", 345600.0, 0.95, 28.0, "readings", ""),
        ("frequency-sums", 90.0, 0.99, 28.0, "sums", "sums"),
        ("throughput-readings", 10.0, 0.99, 28.0, "readings", ""),
        ("up", 0.0, 0.999, 28.0, "sums", "sums"),
        ("completeness-readings", 0.0, 0.995, 28.0, "readings", ""),
        ("accuracy-sums", 0.0, 0.95, 28.0, "sums", "sums"),
        ("errorRate", 0.0, 0.999, 28.0, "", ""),
    ]
    assert told[6].reference is not None
    assert (told[6].reference.tolerance, told[6].reference.relative) == (0.01, True)
    assert told[-1].driver == "regulatory"


def test_what_the_standard_can_say_itself_since_3_2() -> None:
    item = {
        "property": "freshness", "value": 10, "unit": "s", "element": "sums, readings",
        "customProperties": [{"property": "target", "value": "99.9%"}, {"property": "window", "value": "1d"}],
    }  # fmt: skip
    told, problems = checked([item], version="v3.2.0")
    assert problems == []
    assert [(one.id, one.target, one.window) for one in told] == [
        ("freshness-sums", 0.999, 86400.0), ("freshness-readings", 0.999, 86400.0),
    ]  # fmt: skip


FRESH = {"property": "freshness", "value": 10, "unit": "s", "element": "sums"}


@pytest.mark.parametrize(
    ("item", "beside", "code", "said"),
    [
        # What datacontract-cli passes over in silence is an error where nothing measures it.
        ({"property": "retention", "value": 1, "unit": "y"}, {}, "B471", "the product is no table of the lake"),
        ({"property": "retention", "value": 1, "unit": "y", "element": "readings"}, {}, "B471", "no table of the lake"),
        ({"property": "timeToRepair", "value": 1, "unit": "h"}, {}, "B471", "timeToRepair: nothing measures it"),
        ({"property": "timeToRepair", "value": 4, "unit": "h"}, {}, "B471", "nothing measures it"),
        ({"property": "fresness", "value": 4, "unit": "h"}, {}, "B471", 'did you mean "freshness"?'),
        ({"property": "latency", "value": 4, "unit": "d"}, {}, "B471", "this loop commands nothing"),
        ({**FRESH, "element": "unfed"}, {}, "B471", "nothing in this Loop fills 'unfed'"),
        ({**FRESH, "schedule": "0 20 * * *"}, {}, "B471", "schedule cannot be kept"),
        ({**FRESH, "valueExt": 20}, {}, "B471", "valueExt cannot be kept"),
        ({"property": "freshness", "value": 10, "unit": "s"}, {}, "B470", "of what?"),
        ({**FRESH, "unit": "fortnights"}, {}, "B470", "no unit of time"),
        ({**FRESH, "value": "soon"}, {}, "B470", "no number"),
        ({**FRESH, "value": "soon", "unit": ""}, {}, "B203", "not a duration"),
        ({**FRESH, "value": -1}, {}, "B470", "more than 0"),
        ({**FRESH, "value": None}, {}, "B470", "no duration"),
        ({**FRESH, "value": True}, {}, "B470", "no duration"),
        ({**FRESH, "element": "sums.pump_name"}, {}, "B245", ""),
        (FRESH, {"freshness": {"target": 100}}, "B470", "leaves no error budget"),
        (FRESH, {"freshness": {"target": "0.999"}}, "B470", "may mean"),
        (FRESH, {"freshness": {"target": "99%", "errorBudget": "2%"}}, "B470", "several targets"),
        (FRESH, {"freshness": {"window": "5min"}}, "B470", "an hour or more"),
        (FRESH, {"freshness": {"window": "soon"}}, "B203", "not a duration"),
        (FRESH, {"freshness": {"taget": "99%"}}, "B470", "taget"),
        (FRESH, {"freshness": {"probe": "http://x"}}, "B470", "only of availability"),
        (FRESH, {"freshness": {"rate": "1/s"}}, "B470", "only of completeness"),
        (FRESH, {"freshness": 3}, "B470", "object"),
        (FRESH, {"fresh": {}}, "B470", 'did you mean "freshness"?'),
        (FRESH, 3, "B470", "no mapping"),
        ({"property": "availability", "value": 0.999, "element": "sums"}, {}, "B470", "may mean"),
        ({"property": "availability", "value": 99.9, "unit": "s", "element": "sums"}, {}, "B470", "unit"),
        ({"property": "availability", "value": 101, "unit": "%", "element": "sums"}, {}, "B470", "between"),
        ({"property": "availability", "value": "99%", "element": "sums"},
         {"availability": {"probe": "ftp://x"}}, "B470", "http"),
        ({"property": "availability", "value": "99%", "element": "elsewhere"}, {}, "B471", "not in the lake"),
        ({"property": "completeness", "value": "99%", "element": "sums"}, {}, "B470", "how many rows"),
        ({"property": "completeness", "value": "99%", "element": "sums"},
         {"completeness": {"rate": "many"}}, "B470", "no rate"),
        ({"property": "completeness", "value": "99%"}, {"completeness": {"rate": "1/s"}}, "B470", "rows of what"),
        ({"property": "errorRate", "value": "1%", "element": "sums"}, {}, "B471", "at a source"),
        ({"property": "throughput", "value": 10, "unit": "MB/s", "element": "sums"}, {}, "B470", "no rate"),
        ({"property": "accuracy", "value": "99%", "element": "sums"}, {}, "B470", "source of truth"),
        ({"property": "accuracy", "value": "99%", "element": "sums.total"},
         {"accuracy": {"reference": "truth.xlsx", "key": ["pump"]}}, "B470", ".parquet"),
        ({"property": "accuracy", "value": "99%", "element": "sums.total"},
         {"accuracy": {"reference": "t.csv", "key": ["pump"], "tolerance": "some"}}, "B470", "tolerance"),
        ({"property": "endOfLife", "value": "some day"}, {}, "B470", "no date"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_an_error(item: Any, beside: Any, code: str, said: str) -> None:
    told, problems = checked([item], beside)
    assert told == []
    assert problems, "nothing declared is passed over in silence"
    if code == "B245":
        return  # a column that is not there: told with the contract's other names
    (problem,) = problems
    assert problem.code == code
    assert said in f"{problem.what} {problem.fix}"
    assert problem.fix
    assert problem.line > 10


anything = st.none() | st.booleans() | st.integers(-9, 10**9) | st.floats() | st.text("aZ9 .%/-", max_size=6)


@given(
    st.fixed_dictionaries(
        {"property": st.sampled_from(["freshness", "latency", "availability", "throughput", "accuracy", "errorRate"]),
         "value": anything},
        optional={
             "unit": st.sampled_from(["s", "%", "d", "/s", "x"]), "element": st.sampled_from(["sums", "sums.total"]),
         },
    ),
    st.dictionaries(
        st.sampled_from(["target", "window", "rate", "tolerance", "within", "reference", "key", "probe"]),
        anything | st.lists(anything, max_size=2), max_size=4,
    ),
)  # fmt: skip
def test_whatever_is_promised_is_measured_or_refused(item: Any, beside: Any) -> None:
    told, problems = checked([item], {item["property"]: beside})
    assert bool(told) != bool(problems)
    for one in told:
        assert 0 < one.target < 1
        assert one.window >= 3600


def test_the_standards_own_examples_are_read(tmp_path: Path) -> None:
    folder = Path("../shared/standards/odcs/examples/sla")
    if not folder.exists():
        pytest.skip("the examples of ODCS are not beside the project")
    for file in folder.glob("*.yaml"):
        documents, _ = read_documents(file)
        items = documents[0].value["slaProperties"]
        assert items
        told, problems = checked(
            [{**one, "element": "readings.at"} if "element" in one else one for one in items]
        )
        assert problems == [] or all(problem.code == "B471" for problem in problems)
        assert told or problems


def test_the_product_itself_is_sound() -> None:
    assert checked([])[1] == []
    assert yaml.safe_load_all(PRODUCT)
