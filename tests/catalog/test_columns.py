"""Column lineage of declarations: every operator's signature, and a whole product from its topic to its commands."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from boucle.catalog.entry import read_entry
from boucle.catalog.graph import Graph, Node
from boucle.catalog.things import Lineage
from boucle.drift import Attribute
from boucle.edge import Orders, Reduce, Resample, Waveform
from boucle.edge.outlier import Outlier
from boucle.loop.columns import trace_product
from boucle.ports import Traced, Traces
from boucle.serve.score import Score
from boucle.stream.join import AsOfJoin, Enrich, IntervalJoin
from boucle.stream.origin import traced_windows
from boucle.stream.pattern import Pattern
from boucle.stream.rows import Filter, FlatMap, Map, Select, Union
from boucle.stream.sliding import Sliding
from boucle.stream.stateful import Stateful
from tests.catalog.made import CARDS, bank, put

PRESS = Path("examples/press")
ROWS = {"p": ["at", "card", "amount"]}
TWO = {"p": ["at", "card", "amount"], "q": ["at", "card", "rate"]}
WAVES = {"v": ["machine", "sensor", "at", "samples"], "s": ["machine", "sensor", "at", "value", "status"]}


def made(told: Traced, column: str) -> set[tuple[str, str, str]]:
    return {(one.stream, one.column, one.how) for one in told.columns[column]}


def test_every_operator_with_a_trace_answers_the_protocol() -> None:
    for kind in (Map, Filter, Select, FlatMap, Union, Sliding, IntervalJoin, AsOfJoin, Enrich, Pattern, Stateful,
                 Reduce, Waveform, Orders, Resample, Outlier, Score, Attribute):  # fmt: skip
        assert isinstance(kind, Traces)


def test_rows() -> None:
    told = Map.trace(
        ROWS, columns={"twice": "amount * 2", "same": "card", "some": "amount if card == 1 else 0.0"}
    )
    assert made(told, "twice") == {("p", "amount", "TRANSFORMATION")}
    assert made(told, "same") == {("p", "card", "IDENTITY")}
    assert made(told, "some") == {("p", "amount", "TRANSFORMATION"), ("p", "card", "CONDITIONAL")}
    assert made(Map.trace(ROWS, columns={"f": lambda rows: rows.column(0)}), "f") == {
        ("p", name, "UNKNOWN") for name in ROWS["p"]
    }
    kept = Filter.trace(ROWS, where="amount > 3")
    assert [(one.column, one.how) for one in kept.rows] == [("amount", "FILTER")]
    assert made(Select.trace(ROWS, columns={"who": "card"}), "who") == {("p", "card", "IDENTITY")}
    assert made(FlatMap.trace(ROWS, explode="amount"), "amount") == {("p", "amount", "TRANSFORMATION")}
    assert made(Union.trace(TWO), "card") == {("p", "card", "IDENTITY"), ("q", "card", "IDENTITY")}


def test_windows_features_and_joins() -> None:
    features = {"s": {"of": "sum(amount)", "by": "card", "over": "24h"}}
    assert made(Sliding.trace(ROWS, features=features), "s") == {
        ("p", "amount", "AGGREGATION"), ("p", "card", "GROUP_BY"), ("p", "at", "WINDOW"),
    }  # fmt: skip
    windows = traced_windows(ROWS, by="card", size="1min", values={"n": "count", "t": "sum(amount)"})
    assert list(windows.columns) == ["card", "at", "window_start", "window_end", "n", "t", "revision"]
    assert made(windows, "t") == {("p", "amount", "AGGREGATION")}
    assert {one.how for one in windows.rows} == {"GROUP_BY", "WINDOW"}
    joined = AsOfJoin.trace(TWO, left="p", right="q", by="card")
    assert list(joined.columns) == ["at", "right_at", "card", "amount", "rate"]
    assert {(one.stream, one.column) for one in joined.rows} == {
        ("p", "card"),
        ("p", "at"),
        ("q", "card"),
        ("q", "at"),
    }
    near = IntervalJoin.trace(TWO, left="p", right="q", by="card", lower="-1s", upper="1s")
    assert "left_at" in near.columns
    table = [{"card": "1", "owner": "ada"}]
    assert made(Enrich.trace(ROWS, by="card", table=table), "owner") >= {("table", "owner", "IDENTITY")}


def test_what_a_trace_lists_is_what_the_operator_gives() -> None:
    from boucle.block import Block, Position

    rows = pa.record_batch(
        {"at": pa.array([0, 1], pa.timestamp("ns", "UTC")), "card": ["1", "2"], "amount": [1.0, 2.0]}
    )
    block = Block("p", rows, 10**10, Position("p", 2))
    declared: list[tuple[Any, dict[str, Any]]] = [
        (Map, {"columns": {"twice": "amount * 2"}}),
        (Select, {"columns": ["amount", "at"]}),
        (Sliding, {"features": {"n": {"of": "count", "by": "card", "over": "1h"}}}),
        (Outlier, {"columns": ["amount"], "by": ["card"], "carry": ["amount"]}),
        (
            Pattern,
            {"by": "card", "steps": [{"name": "a", "where": "amount > 0"}], "measures": {"m": "a.amount"}},
        ),
    ]
    for kind, settings in declared:
        told = kind.trace(ROWS, **settings)
        given = kind("out", **settings).step(block)
        names = next(one.rows.schema.names for one in given if one.stream == "out")
        assert list(told.columns) == names, kind


def test_patterns_and_functions() -> None:
    steps = [{"name": "a", "where": "amount > 3"}, {"name": "b", "where": "amount < a.amount"}]
    told = Pattern.trace(
        ROWS, by="card", steps=steps, measures={"m": "avg(a.amount)", "l": "b.amount"}, within="1h"
    )
    assert made(told, "m") == {("p", "amount", "AGGREGATION")}
    assert made(told, "l") == {("p", "amount", "IDENTITY")}
    assert ("amount", "FILTER") in {(one.column, one.how) for one in told.rows}
    output = pa.schema([("x", pa.float64())])
    own = Stateful.trace(ROWS, by="card", output=output)
    assert own.unknown
    assert {one.how for one in own.columns["x"]} == {"UNKNOWN"}


def test_edge_and_drift() -> None:
    reduced = Reduce.trace(WAVES)
    assert made(reduced, "rms") == {("v", "samples", "AGGREGATION")}
    assert ("s", "value", "TRANSFORMATION") in made(reduced, "env_bpfo")
    assert made(Waveform.trace(WAVES, size="1s", by=["machine"], values={"level": "rms"}), "level") == {
        ("v", "samples", "AGGREGATION")
    }
    assert list(Resample.trace(WAVES, rate_hz=48000, to_hz=10000, by=["machine"]).columns) == [
        "machine", "at", "complete", "rate_hz", "samples",
    ]  # fmt: skip
    orders = Orders.trace(
        {**WAVES, "t": ["machine", "at", "rpm"]},
        size="1s",
        by="machine",
        speed="rpm",
        values={"u": "order(1)"},
    )
    assert ("v", "samples", "AGGREGATION") in made(orders, "u")
    assert ("t", "rpm", "TRANSFORMATION") in made(orders, "u")
    scored = Score.trace({"f": ["machine", "at"]}, model="models/press_health", folder=PRESS)
    assert len(made(scored, "health")) == 37
    assert len(Attribute.trace({"h": ["machine"]}).columns["cause"]) == 42


def press() -> Lineage:
    return trace_product(read_entry(PRESS / "product.yaml", "press/product.yaml"), PRESS)


def test_the_press_from_its_topics_to_its_plc() -> None:
    told = press()
    assert told.problems == ()
    assert [thing.name for thing in told.things if thing.unknown] == []
    graph = Graph(told.links)
    setpoint = graph.sources(Node("command", "press-line", "plc/{machine}/speed_setpoint"))
    found = {(node.name.rpartition("/")[2], node.column, one.how) for node, one in setpoint}
    # The set-point itself is scaled; whether it is written at all, the vibration decides.
    assert ("process", "value", "TRANSFORMATION") in found
    assert ("vibration", "samples", "CONDITIONAL") in found
    remaining = graph.sources(Node("table", "press-line", "maintenance_summary", "rul_h"))
    assert {(node.column, one.how) for node, one in remaining} >= {
        ("samples", "AGGREGATION"),
        ("value", "TRANSFORMATION"),
    }
    says = next(one.says for node, one in remaining if node.column == "samples")
    assert says.endswith("scored by the model press_health")


def test_tables_rules_models_and_sql_of_the_bank(tmp_path: Path) -> None:
    folder = bank(tmp_path) / "bank" / "cards"
    told = trace_product(read_entry(folder / "product.yaml", "cards/product.yaml"), folder)
    assert told.problems == ()
    graph = Graph(told.links)

    def sources(table: str, column: str) -> set[tuple[str, str]]:
        return {(node.column, one.how) for node, one in graph.sources(Node("table", "cards", table, column))}

    assert sources("scored", "spent_24h") == {
        ("amount", "AGGREGATION"),
        ("card", "GROUP_BY"),
        ("at", "WINDOW"),
    }
    assert sources("scored", "label") == {("card", "TRANSFORMATION"), ("country", "TRANSFORMATION")}
    assert ("amount", "CONDITIONAL") in sources("scored", "large")
    assert sources("hours", "total") == {("amount", "AGGREGATION")}
    chosen = {(node.column, one.how) for node, one in graph.sources(Node("table", "cards", "hours"))}
    assert {("amount", "FILTER"), ("terminal", "FILTER"), ("country", "GROUP_BY")} <= chosen
    topic = next(thing for thing in told.things if thing.kind == "topic")
    assert topic.name == "mqtt://broker.bank.example:1883/bank/payments"


def test_an_operator_that_does_not_tell_is_marked(tmp_path: Path) -> None:
    text = CARDS.replace("boucle.stream.rows:Filter", "own:Quiet").replace(
        '    with: {where: "amount > 0 and terminal is not None"}\n', ""
    )
    folder = put(tmp_path, "cards", text, own_dot_py="class Quiet:\n    def __init__(self, stream): pass\n")
    told = trace_product(read_entry(folder / "product.yaml", "p"), folder)
    known = next(thing for thing in told.things if thing.name == "known")
    assert known.unknown == "own:Quiet does not declare its columns"
    found = Graph(told.links).sources(Node("table", "cards", "scored", "spent_24h"))
    assert {node.column for node, _ in found} >= {"at", "card", "terminal", "amount", "country"}
    assert any("its columns are not declared" in one.says for _, one in found)


@pytest.mark.parametrize(
    "module",
    [
        "raise RuntimeError('no')",
        "import nosuchmodule",
        "def (",
        "class Quiet:\n    @classmethod\n    def trace(cls, inputs): return 3",
        "class Quiet:\n    @classmethod\n    def trace(cls, inputs): return inputs['nothing']",
        "class Other: pass",
        "x = 1 / 0",
    ],
)
def test_a_strangers_module_stops_nothing(tmp_path: Path, module: str) -> None:
    text = CARDS.replace("boucle.stream.rows:Filter", "own:Quiet").replace(
        '    with: {where: "amount > 0 and terminal is not None"}\n', ""
    )
    folder = put(tmp_path, "cards", text, own_dot_py=module)
    told = trace_product(read_entry(folder / "product.yaml", "p"), folder)
    assert next(thing for thing in told.things if thing.name == "known").unknown
    assert any(thing.name == "hours" for thing in told.things)


def test_mistakes_of_a_declaration_are_told_and_the_rest_is_traced(tmp_path: Path) -> None:
    text = CARDS.replace("by: terminal", "by: nosuch").replace("from: hours, zone", "from: nothing, zone")
    folder = put(tmp_path, "cards", text.replace("sum(amount)}}", "sum(}}"))
    told = trace_product(read_entry(folder / "product.yaml", "p"), folder)
    assert any("reads known.nosuch, which is not there" in one for one in told.problems)
    assert any("table hours is fed by nothing" in one for one in told.problems)
    assert any(thing.name == "scored" and thing.fields for thing in told.things)
