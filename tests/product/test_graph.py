"""Products that feed each other: what leads nowhere, to another version, or round in a circle."""

import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.cli.main import main
from boucle.product.graph import graph_problems
from boucle.product.promise import Promise, read_promise_text

PRODUCT = """kind: DataProduct
apiVersion: v1.0.0
id: {name}
version: 1.0.0
status: active
inputPorts: [{inputs}]
outputPorts: [{{name: out, version: {version}, contractId: {name}-data}}]
---
kind: DataContract
apiVersion: v3.1.0
id: {name}-data
version: {version}
status: active
schema: [{{name: t, properties: [{{name: at, logicalType: timestamp, required: true}}]}}]
---
kind: Loop
apiVersion: boucle/v1
id: {name}-loop
product: {name}
contract: {name}-data
sources: {{}}
"""


def text(name: str, *inputs: str, version: str = "1.0.0") -> str:
    ports = []
    for number, one in enumerate(inputs):
        wanted, _, least = one.partition("@")
        ports.append(f"{{name: i{number}, version: {least or '1.0.0'}, contractId: {wanted}}}")
    return PRODUCT.format(name=name, inputs=", ".join(ports), version=version)


@cache
def promise(name: str, *inputs: str, version: str = "1.0.0") -> Promise:
    found, problems = read_promise_text(text(name, *inputs, version=version).encode(), f"{name}/product.yaml")
    assert problems == []
    return found


def test_a_chain_is_sound() -> None:
    assert (
        graph_problems([promise("a"), promise("b", "a-data"), promise("c", "a-data", "b-data", "c-data")])
        == []
    )


@pytest.mark.parametrize(("wanted", "offered", "sound"), [
    ("1.0.0", "1.0.0", True), ("1.0.0", "1.4.2", True), ("1.4.2", "1.0.0", False), ("1.0.0", "2.0.0", False),
])  # fmt: skip
def test_versions(wanted: str, offered: str, sound: bool) -> None:
    problems = graph_problems([promise("a", version=offered), promise("b", f"a-data@{wanted}")])
    assert [one.code for one in problems] == ([] if sound else ["B244"])


def test_what_leads_nowhere_is_told_with_the_likely_name() -> None:
    (problem,) = graph_problems([promise("orders"), promise("b", "order-data")])
    assert (problem.code, problem.file, problem.line) == ("B243", "b/product.yaml", 6)
    assert "orders-data" in problem.fix
    assert graph_problems([promise("b", "order-data")], complete=False) == []


def test_a_circle_is_told_in_its_order() -> None:
    (problem,) = graph_problems([promise("a", "c-data"), promise("b", "a-data"), promise("c", "b-data")])
    assert problem.code == "B246"
    circle = problem.what.partition(": ")[2].split(" → ")
    assert circle[0] == circle[-1]
    assert set(circle) == {"a", "b", "c"}
    assert all(f"{needed}" in "acb" * 2 for needed in circle)
    after = {"a": "c", "b": "a", "c": "b"}
    assert all(after[one] == other for one, other in pairwise(circle))


def test_ids_given_twice() -> None:
    assert {one.code for one in graph_problems([promise("a"), promise("a")])} == {"B245"}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8))
def test_circles_are_found_exactly_when_there_are_some(edges: list[tuple[int, int]]) -> None:
    needs: dict[int, set[int]] = {number: set() for number in range(5)}
    for one, other in edges:
        if one != other:
            needs[one].add(other)
    found = graph_problems(
        [promise(f"p{n}", *(f"p{m}-data" for m in sorted(inner))) for n, inner in needs.items()]
    )
    reached = {n: set(inner) for n, inner in needs.items()}
    for _ in needs:
        for inner in reached.values():
            inner |= {far for near in list(inner) for far in reached[near]}
    assert bool(found) is any(n in inner for n, inner in reached.items())


def test_a_folder_of_products_is_checked_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in {
        "a": text("a", "b-data"),
        "b": text("b", "a-data"),
        "c": text("c", "d-data"),
    }.items():
        (tmp_path / "shop" / name).mkdir(parents=True)
        (tmp_path / "shop" / name / "product.yaml").write_text(content, encoding="utf-8")
    assert main(["check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "products wait for each other" in said
    assert "shop/c/product.yaml:6: no contract 'd-data' is known" in said
    (tmp_path / "shop" / "c" / "product.yaml").write_text("kind: [", encoding="utf-8")
    assert main(["check", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "shop/c/product.yaml:2: this is not valid YAML" in said
    assert "products wait for each other" in said, "a broken file does not hide the others"


def test_a_hundred_products_are_checked_in_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(100):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        before = [f"p{number - 1}-data"] if number else []
        (folder / "product.yaml").write_text(text(f"p{number}", *before), encoding="utf-8")
    begun = time.perf_counter()
    assert main(["check", str(tmp_path)]) == 0
    print(f"{(time.perf_counter() - begun) * 10:.1f} ms a product")
    assert "100 files" in capsys.readouterr().out


def test_a_contract_alone_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.odcs.yaml"
    file.write_text(text("a").split("---\n")[1], encoding="utf-8")
    assert main(["check", str(file)]) == 0
    assert "a-data: sound" in capsys.readouterr().out
    file.write_text("id: a\n", encoding="utf-8")
    assert main(["check", str(file), "--json"]) == 1
