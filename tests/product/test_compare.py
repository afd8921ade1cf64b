"""Every change is judged for both sides, and so is its inverse; the table of docs/why/compatibility.md says how."""

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.cli.main import main
from boucle.product.columns import Kind
from boucle.product.compare import Verdict, compare
from boucle.product.compare.bounds import interval, kinds, ranges, values
from boucle.product.compare.changelog import entry, write_entry
from boucle.product.promise import read_promise_text
from boucle.product.version import LEVELS, Version
from boucle.product.writing import write_value

PAGE = Path("docs/why/compatibility.md").read_text(encoding="utf-8")

CONTRACT: dict[str, Any] = {
    "kind": "DataContract",
    "apiVersion": "v3.1.0",
    "id": "orders",
    "version": "1.4.2",
    "status": "active",
    "schema": [
        {
            "name": "orders",
            "properties": [
                {"name": "id", "logicalType": "integer", "physicalType": "int64", "required": True, "unique": True},
                {
                    "name": "amount",
                    "logicalType": "number",
                    "logicalTypeOptions": {"minimum": 0, "maximum": 100},
                },
                {"name": "email", "logicalType": "string", "classification": "restricted"},
                {"name": "note", "logicalType": "string"},
            ],
        },
        {"name": "lines", "properties": [{"name": "order", "logicalType": "integer"}]},
    ],
    "slaProperties": [
        {"property": "freshness", "value": 15, "unit": "min"},
        {"property": "availability", "value": 99.9, "unit": "%"},
    ],
}  # fmt: skip


def promise(value: dict[str, Any]) -> Any:
    found, problems = read_promise_text(write_value(value).encode(), "orders.odcs.yaml")
    assert problems == []
    return found


def columns(contract: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = contract["schema"][0]["properties"]
    return found


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "add optional column": lambda c: columns(c).append({"name": "city", "logicalType": "string"}),
    "add required column": lambda c: columns(c).append(
        {"name": "city", "logicalType": "string", "required": True}
    ),
    "remove column": lambda c: columns(c).pop(3),
    "rename column": lambda c: columns(c)[3].update(name="remark"),
    "change type": lambda c: columns(c)[3].update(logicalType="integer"),
    "drop table": lambda c: c["schema"].pop(1),
    "required to optional": lambda c: columns(c)[0].update(required=False),
    "optional to required": lambda c: columns(c)[1].update(required=True),
    "unique dropped": lambda c: columns(c)[0].pop("unique"),
    "range widened": lambda c: columns(c)[1]["logicalTypeOptions"].update(maximum=200),
    "range narrowed": lambda c: columns(c)[1]["logicalTypeOptions"].update(minimum=10),
    "int64 to int32": lambda c: columns(c)[0].update(physicalType="int32"),
    "freshness loosened": lambda c: c["slaProperties"][0].update(value=1, unit="h"),
    "freshness tightened": lambda c: c["slaProperties"][0].update(value=300, unit="s"),
    "availability SLA removed": lambda c: c["slaProperties"].pop(1),
    "PII class lowered": lambda c: columns(c)[2].update(classification="public"),
    "status active to retired": lambda c: c.update(status="retired"),
}


def table() -> dict[str, list[str]]:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"
    ]
    return {row[0]: row[1:] for row in rows[2 : 2 + len(CHANGES)]}


def test_the_page_lists_every_change() -> None:
    assert list(table()) == list(CHANGES)


def judged(old: dict[str, Any], new: dict[str, Any], mode: str = "full") -> Verdict:
    (verdict,) = compare(promise(old), promise(new), mode)  # type: ignore[arg-type]
    return verdict


def changed(name: str) -> dict[str, Any]:
    new = copy.deepcopy(CONTRACT)
    CHANGES[name](new)
    return new


@pytest.mark.parametrize("inverse", [False, True], ids=["as written", "inverse"])
@pytest.mark.parametrize("name", CHANGES)
def test_the_sixteen_changes_in_both_directions(name: str, inverse: bool) -> None:
    sides = (changed(name), CONTRACT) if inverse else (CONTRACT, changed(name))
    consumers, producers, level = table()[name][3:] if inverse else table()[name][:3]
    (one,) = judged(*sides).changes
    assert [party in one.breaks for party in ("consumers", "producers")] == [
        said == "breaks" for said in (consumers, producers)
    ]
    assert one.level("full") == level
    assert one.level("backward") == ("major" if consumers == "breaks" else one.least)
    assert one.level("forward") == ("major" if producers == "breaks" else one.least)
    assert bool(one.why) == bool(one.breaks), "what breaks says why"


def test_nothing_changed() -> None:
    verdict = judged(CONTRACT, CONTRACT)
    assert (verdict.changes, verdict.level, verdict.enough) == ((), "none", True)


def shifted(where: str, make: Callable[[Any], object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A pair of contracts that differ in one place; `where` puts that place into the old one first."""
    old = copy.deepcopy(CONTRACT)
    if where:
        columns(old)[3].update(json.loads(where))
    new = copy.deepcopy(old)
    make(new)
    return old, new


MORE: list[tuple[str, str, Callable[[Any], object], str, str]] = [
    ("values added", '{"quality": [{"metric": "invalidValues", "arguments": {"validValues": ["a"]}, "mustBe": 0}]}',
     lambda c: columns(c)[3]["quality"][0]["arguments"]["validValues"].append("b"), "values-widened", "consumers"),
    ("pattern changed", '{"logicalTypeOptions": {"pattern": "a+"}}',
     lambda c: columns(c)[3]["logicalTypeOptions"].update(pattern="b+"), "pattern-changed", "consumers producers"),
    ("pattern dropped", '{"logicalTypeOptions": {"pattern": "a+"}}',
     lambda c: columns(c)[3]["logicalTypeOptions"].pop("pattern"), "pattern-changed", "consumers"),
    ("text shorter", '{"logicalTypeOptions": {"maxLength": 9}}',
     lambda c: columns(c)[3]["logicalTypeOptions"].update(maxLength=8), "length-narrowed", "producers"),
    ("open end", '{"logicalType": "integer", "logicalTypeOptions": {"maximum": 9}}',
     lambda c: columns(c)[3].update(logicalTypeOptions={"exclusiveMaximum": 9}), "range-narrowed", "producers"),
    ("rule removed", '{"quality": [{"metric": "nullValues", "mustBe": 0}]}',
     lambda c: columns(c)[3].pop("quality"), "rule-removed", "consumers"),
    ("rule loosened", '{"quality": [{"metric": "nullValues", "mustBeLessThan": 5}]}',
     lambda c: columns(c)[3]["quality"][0].update(mustBeLessThan=9), "rule-loosened", "consumers"),
    ("severity lowered", '{"quality": [{"metric": "nullValues", "mustBe": 0, "severity": "error"}]}',
     lambda c: columns(c)[3]["quality"][0].update(severity="warning"), "severity-lowered", "consumers"),
    ("unit changed", '{"customProperties": [{"property": "unit", "value": "g"}]}',
     lambda c: columns(c)[3]["customProperties"][0].update(value="kg"), "unit-changed", "consumers producers"),
    ("mask removed", '{"customProperties": [{"property": "masking", "value": "hash"}]}',
     lambda c: columns(c)[3].pop("customProperties"), "mask-removed", "consumers producers"),
    ("pii said to be none", '{"customProperties": [{"property": "pii", "value": true}]}',
     lambda c: columns(c)[3]["customProperties"][0].update(value=False), "class-lowered", "consumers producers"),
    ("key dropped", '{"primaryKey": true, "required": true}',
     lambda c: columns(c)[3].pop("primaryKey"), "key-dropped", "consumers"),
    ("key widened", '{"primaryKey": true, "primaryKeyPosition": 1, "required": true}',
     lambda c: columns(c)[0].update(primaryKey=True, primaryKeyPosition=2), "key-widened", "consumers"),
    ("reference added", "{}",
     lambda c: columns(c)[3].update(relationships=[{"to": "lines.order"}]), "reference-added", "producers"),
    ("words", "{}", lambda c: columns(c)[3].update(description="said"), "description-added", ""),
    ("deprecated status", "", lambda c: c.update(status="deprecated"), "status-deprecated", ""),
    ("unknown level", "", lambda c: c["slaProperties"].append({"property": "joy", "value": 3}), "level-added",
     "producers"),
    ("rule looks back further",
     '{"quality": [{"type": "custom", "engine": "boucle", "implementation": {"check": "freshness", "within": "1h"}}]}',
     lambda c: columns(c)[3]["quality"][0]["implementation"].update(within="2h"), "rule-loosened", "consumers"),
    ("rule wants more",
     '{"quality": [{"type": "custom", "engine": "boucle", "implementation": {"check": "completeness", "atLeast": 9}}]}',
     lambda c: columns(c)[3]["quality"][0]["implementation"].update(atLeast=95), "rule-tightened", "producers"),
    ("availability lower", "", lambda c: c["slaProperties"][1].update(value=99), "level-loosened", "consumers"),
    ("server gone", "", lambda c: c.update(roles=[{"role": "reader"}]), "role-added", ""),
    ("table renamed", "", lambda c: c["schema"].insert(0, {"name": "new", "properties": []}), "table-added", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "make", "kind", "breaks"), [one[1:] for one in MORE], ids=[one[0] for one in MORE]
)
def test_other_changes(where: str, make: Callable[[Any], object], kind: str, breaks: str) -> None:
    (one,) = judged(*shifted(where, make)).changes
    assert (one.kind, " ".join(one.breaks)) == (kind, breaks)


def test_targets_beside_a_level_belong_to_it() -> None:
    def objectives(target: str) -> list[dict[str, Any]]:
        return [
            {
                "property": "serviceLevelObjectives",
                "value": {"freshness": {"target": target, "window": "28d"}},
            }
        ]

    old, new = ({**CONTRACT, "customProperties": objectives(target)} for target in ("99.9%", "99%"))
    (one,) = judged(old, new).changes
    assert (one.path, one.kind, one.breaks) == ("sla.freshness", "level-loosened", ("consumers",))
    (one,) = judged(new, old).changes
    assert (one.kind, one.breaks) == ("level-tightened", ("producers",))


PRODUCT = {
    "kind": "DataProduct", "apiVersion": "v1.0.0", "id": "shop", "version": "1.0.0", "status": "active",
    "outputPorts": [{"name": "orders", "version": "1.2.0", "contractId": "orders", "type": "sql"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("port", "kind", "breaks"),
    [
        (None, "port-removed", ("consumers",)),
        ({"version": "1.3.0"}, "port-raised", ()),
        ({"version": "2.0.0"}, "port-removed", ("consumers",)),
        ({"type": "rest"}, "port-type-changed", ("consumers",)),
        ({"contractId": "sales"}, "port-contractid-changed", ("consumers",)),
        ({"description": "all orders"}, "description-added", ()),
    ],
)
def test_ports(port: dict[str, str] | None, kind: str, breaks: tuple[str, ...]) -> None:
    new: dict[str, Any] = copy.deepcopy(PRODUCT)
    if port is None:
        del new["outputPorts"]
    else:
        new["outputPorts"][0].update(port)
    found = {one.kind: one.breaks for one in judged(PRODUCT, new).changes}
    assert found[kind] == breaks


@pytest.mark.parametrize(
    ("old", "new", "level", "enough"),
    [
        ("1.4.2", "1.4.2", "none", True),
        ("1.4.2", "1.4.1", "none", False),
        ("1.4.2", "1.4.3", "minor", False),
        ("1.4.2", "1.5.0", "minor", True),
        ("1.4.2", "2.0.0-rc.1", "major", True),
        ("1.4.2", "1.9.0", "major", False),
        ("0.4.2", "0.5.0", "major", True),
        ("0.4.2", "0.4.3", "major", False),
        ("2.0.0-rc.1", "2.0.0-rc.2", "major", True),
        ("2.0.0-rc.2", "2.0.0-rc.10", "minor", True),
        ("2.0.0", "2.0.0-rc.1", "none", False),
    ],
)
def test_versions(old: str, new: str, level: Any, enough: bool) -> None:
    before, after = Version.read(old), Version.read(new)
    assert before is not None
    assert after is not None
    assert after.follows(before, level) is enough


@given(st.lists(st.integers(0, 5), min_size=3, max_size=3), st.sampled_from(LEVELS))
def test_the_raised_version_is_enough(numbers: list[int], level: Any) -> None:
    old = Version(numbers[0], numbers[1], numbers[2])
    assert old.raised(level).follows(old, level)


MIRROR = {"same": "same", "more": "less", "less": "more", "other": "other"}
_ends = st.tuples(st.none() | st.integers(-3, 3), st.just(False)) | st.tuples(
    st.integers(-3, 3), st.booleans()
)


@given(st.tuples(_ends, _ends), st.tuples(_ends, _ends))
def test_intervals_are_compared_as_sets(old: Any, new: Any) -> None:
    """Seen from the other side it is the inverse; and it is what counting the values says."""
    assert interval(new, old) == MIRROR[interval(old, new)]
    steps = [step / 4 for step in range(-20, 21)]
    sets = [{step for step in steps if _within(step, one)} for one in (old, new)]
    if all(sets):
        said = (
            "same"
            if sets[0] == sets[1]
            else "more"
            if sets[0] < sets[1]
            else "less"
            if sets[1] < sets[0]
            else "other"
        )
        assert interval(old, new) == said


def _within(step: float, one: Any) -> bool:
    (low, low_open), (high, high_open) = one
    above = low is None or step > low or (step == low and not low_open)
    return above and (high is None or step < high or (step == high and not high_open))


@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abc")))
def test_lists_of_values_mirror(old: list[str], new: list[str]) -> None:
    assert values(new, old) == MIRROR[values(old, new)]


_kinds = st.builds(
    Kind,
    st.sampled_from(["string", "integer", "number", "decimal", "timestamp", "binary"]),
    bits=st.sampled_from([8, 32, 64]),
    signed=st.booleans(),
    precision=st.integers(5, 9),
    scale=st.integers(0, 3),
    unit=st.sampled_from(["ms", "ns"]),
    zone=st.booleans(),
    format=st.sampled_from(["", "uuid"]),
)


@given(_kinds, _kinds)
def test_types_mirror(old: Kind, new: Kind) -> None:
    assert kinds(new, old) == MIRROR[kinds(old, new)]


def test_bounds_open_and_closed() -> None:
    assert ranges({"minimum": 0}, {"minimum": 0, "exclusiveMinimum": 0}, "minimum", "maximum") == "less"
    assert ranges({"minimum": "2020-01-01"}, {"minimum": "2021-01-01"}, "minimum", "maximum") == "less"
    assert ranges({"minimum": 1}, {"minimum": "one"}, "minimum", "maximum") == "other"


def test_a_changelog_entry_is_put_on_top_and_replaced(tmp_path: Path) -> None:
    new = {**changed("drop table"), "version": "2.0.0"}
    text = entry([judged(CONTRACT, new)], "2026-11-21")
    file = tmp_path / "CHANGELOG.md"
    file.write_text("# Changes\n\nOurs.\n\n## 1.4.2 – 2026-01-01\n\n- begun\n", encoding="utf-8")
    write_entry(file, text)
    write_entry(file, text)
    written = file.read_text(encoding="utf-8")
    assert written.count("## 2.0.0 – 2026-11-21") == 1
    assert written.index("Ours.") < written.index("## 2.0.0") < written.index("## 1.4.2")
    assert "### Breaks for consumers\n\n- `lines`: table lines removed" in written


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three tagged versions of a contract in git; the middle one widened a range without a word."""

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    for version, name in (("1.0.0", ""), ("1.0.1", "range widened"), ("1.1.0", "add optional column")):
        folder = tmp_path / "products" / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        value = changed(name) if name else copy.deepcopy(CONTRACT)
        (folder / "product.yaml").write_text(write_value({**value, "version": version}), encoding="utf-8")
        git("add", ".")
        git("commit", "-q", "-m", version)
        git("tag", f"v{version}")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_versions_out_of_git(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    path = "products/shop/product.yaml"
    assert main(["diff", f"v1.0.0:{path}", f"v1.0.1:{path}", "--json", "--check"]) == 1
    said = told(capsys)
    assert (said["level"], said["ok"]) == ("major", False)
    assert said["verdicts"][0]["needed"] == "2.0.0"
    assert main(["diff", "--from", "v1.0.0", "products/shop", "--json", "--check"]) == 0
    assert told(capsys)["level"] == "minor"
    assert main(["diff", "--from", "v1.0.0", "products", "--json"]) == 0
    assert told(capsys)["level"] == "minor"
    monkeypatch.chdir(repository / "products")
    assert main(["diff", "v1.0.0:shop", "shop", "--json"]) == 0
    assert told(capsys)["level"] == "minor"


def test_transitive_looks_at_every_tag(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    assert main(["diff", "--transitive", "products/shop", "--mode", "forward", "--json", "--check"]) == 1
    verdicts = {one["against"]: one["level"] for one in told(capsys)["verdicts"]}
    assert verdicts == {"v1.0.0": "minor", "v1.0.1": "major", "v1.1.0": "none"}


def test_what_cannot_be_compared_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    for words in (["nowhere", "products"], ["v9:products", "products"], ["v1.0.0:nowhere", "products"], ["products"],
                  ["products", "products", "products"], ["--from=-x", "products"]):  # fmt: skip
        assert main(["diff", *words]) == 1
        said = capsys.readouterr().err
        assert "B251" in said
        assert "fix:" in said


def test_check_says_which_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("old", CONTRACT), ("new", changed("drop table"))):
        (tmp_path / f"{name}.odcs.yaml").write_text(write_value(value), encoding="utf-8")
    words = ["diff", str(tmp_path / "old.odcs.yaml"), str(tmp_path / "new.odcs.yaml")]
    assert main(words) == 0
    assert "breaks consumers" in capsys.readouterr().out
    assert main([*words, "--check"]) == 1
    assert "B252" in capsys.readouterr().err
    assert main([*words, "--changelog", str(tmp_path / "CHANGELOG.md")]) == 0
    assert "table lines removed" in (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")


def test_labels_that_are_no_versions_must_differ() -> None:
    assert not judged(
        {**CONTRACT, "version": "spring"}, {**changed("drop table"), "version": "spring"}
    ).enough
    assert judged({**CONTRACT, "version": "spring"}, {**changed("drop table"), "version": "summer"}).enough
