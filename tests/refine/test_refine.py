"""Write, audit, publish: what passes is there once, in one commit; what does not is kept apart, unseen."""

import shutil
from pathlib import Path

import pytest

from boucle.errors import BoucleError
from boucle.lake.history import restore, versions
from boucle.lake.span import backfill
from boucle.lake.upkeep import compact
from boucle.lake.whole import Lake
from boucle.refine.run import Outcome, held, refine, waits
from boucle.refine.transform import Transform, transforms_of
from tests.refine.payments import DAY, SHOP, START, arrived, ask, payments, shop


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def all_of(lake: Lake, folder: Path) -> dict[str, Outcome]:
    return {one.name: refine(one, lake, folder) for one in transforms_of(shop())}


def named(name: str) -> Transform:
    return transforms_of(shop(), (name,))[0]


def test_each_comes_after_what_it_reads() -> None:
    assert [one.name for one in transforms_of(shop())] == ["accepted", "spent"]


def test_raw_becomes_gold_and_again_only_what_is_new(lake: Lake, tmp_path: Path) -> None:
    arrived(lake, (1, 0, "a", 5.0), (2, 0, "b", -1.0), (3, 0, "a", 2.0))
    first = all_of(lake, tmp_path / "work")
    assert {name: one.state for name, one in first.items()} == {"accepted": "published", "spent": "published"}
    assert ask(lake, "spent", ["card", "payments", "spent"]) == [("a", 2, 7.0)]
    arrived(lake, (4, 0, "a", 1.0), (5, 1, "b", 3.0))
    second = all_of(lake, tmp_path / "work")
    assert second["accepted"].rows == 2, "only the rows that are new"
    assert ask(lake, "accepted", ["id"]) == [(1,), (3,), (4,), (5,)]
    assert ask(lake, "spent", ["card", "payments", "spent"]) == [("a", 3, 8.0), ("b", 1, 3.0)]
    third = all_of(lake, tmp_path / "work")
    assert {one.state for one in third.values()} == {"unchanged"}
    assert third["spent"].version == second["spent"].version


def test_a_batch_that_fails_is_never_seen(lake: Lake, tmp_path: Path) -> None:
    work = tmp_path / "work"
    arrived(lake, (1, 0, "a", 5.0))
    all_of(lake, work)
    before = lake.find("accepted").version
    arrived(lake, (2, 0, "", 5.0), (3, 0, "b", 4.0))
    one = refine(named("accepted"), lake, work)
    assert (one.state, one.version, lake.find("accepted").version) == ("held", before, before)
    verdict = one.verdicts[0]
    assert (verdict.gate, verdict.holds, verdict.failed) == ("no card without a name", False, 1)
    assert verdict.sample[0]["id"] == 2
    (kept,) = held(work)
    assert (kept.rows, kept.verdicts, kept.inputs) == (2, one.verdicts, one.inputs)
    assert (Path(kept.folder) / "rows.parquet").exists()
    assert not waits(named("accepted"), lake, work), "the same inputs are not tried over and over"
    assert refine(named("accepted"), lake, work, again=False).state == "unchanged"
    table = lake.find("payments")
    backfill(table, [payments((2, 0, "c", 5.0), (3, 0, "b", 4.0))], START, START + DAY)
    assert waits(named("accepted"), lake, work)
    with pytest.raises(BoucleError, match="B534"):
        refine(named("accepted"), lake, work)
    assert refine(named("accepted"), lake, work, full=True).state == "published"
    assert ask(lake, "accepted", ["id", "card"]) == [(2, "c"), (3, "b")]


def test_a_warning_holds_nothing_back(lake: Lake, tmp_path: Path) -> None:
    arrived(lake, *((number, 0, "a", 1.0 + number / 10) for number in range(10)))
    all_of(lake, tmp_path)
    arrived(lake, (99, 0, "a", 1e6))
    one = refine(named("accepted"), lake, tmp_path)
    assert one.state == "published"
    (verdict,) = [each for each in one.verdicts if each.gate == "usual amounts"]
    assert not verdict.holds
    assert "spreads" in verdict.says


def promising(folder: Path, table: str, rules: str) -> list[Transform]:
    """The shop with more promised of one of its tables, and that asked for by its gate."""
    text = (SHOP / "product.yaml").read_text(encoding="utf-8")
    names = (("id", "integer"), ("at", "timestamp"), ("card", "string"), ("amount", "number"))
    columns = "".join(f"      - {{name: {one}, logicalType: {kind}}}\n" for one, kind in names)
    text = text.replace(
        "  - name: spent\n", f"  - name: accepted\n    properties:\n{columns}  - name: spent\n", 1
    )
    text = text.replace(f"  - name: {table}\n", f"  - name: {table}\n    {rules}\n")
    text = text.replace(
        "      - {name: no card without", "      - {schema: accepted}\n      - {name: no card without"
    )
    changed = folder / "shop"
    shutil.copytree(SHOP, changed)
    (changed / "product.yaml").write_text(text, encoding="utf-8")
    return transforms_of(shop(changed))


def broken(outcome: Outcome) -> list[str]:
    return [one.gate.partition(": ")[2] for one in outcome.verdicts if not one.holds and ": " in one.gate]


@pytest.mark.parametrize(("severity", "state"), [("error", "held"), ("warning", "published")])
def test_a_merge_is_judged_by_the_table_as_it_will_be(
    lake: Lake, tmp_path: Path, severity: str, state: str
) -> None:
    rule = f"quality: [{{id: two-cards, metric: rowCount, mustBeGreaterThan: 1, severity: {severity}}}]"
    transforms = promising(tmp_path, "spent", rule)
    arrived(lake, (1, 0, "a", 5.0))
    made = {one.name: refine(one, lake, tmp_path) for one in transforms}
    assert (made["spent"].state, broken(made["spent"])) == (state, ["two-cards"])
    arrived(lake, (2, 0, "b", 5.0))
    made = {one.name: refine(one, lake, tmp_path) for one in transforms}
    assert (made["spent"].state, broken(made["spent"])) == ("published", [])


MANY = """quality:
      - {id: once, metric: duplicateValues, mustBe: 0, arguments: {properties: [id]}}
      - {id: cheap, type: sql, query: 'SELECT sum(amount) FROM ${table}', mustBeLessThan: 100}
      - {id: steady, type: custom, engine: boucle, implementation: {check: volume, deviations: 4, atLeast: 2}}"""


@pytest.mark.parametrize(("rows", "rule"), [
    ([(3, 0, "c", 95.0)], "cheap"), ([(2, 0, "b", 1.0)], "once"),
    ([(number, 0, "d", 0.1) for number in range(10, 60)], "steady"),
])  # fmt: skip
def test_what_is_appended_is_judged_with_what_is_there(
    lake: Lake, tmp_path: Path, rows: list[tuple[int, int, str, float]], rule: str
) -> None:
    one = promising(tmp_path, "accepted", MANY)[0]
    for number in (1, 2):
        arrived(lake, (number, 0, "a", 5.0))
        published = refine(one, lake, tmp_path)
        assert (published.state, broken(published)) == ("published", []), "nothing to compare with yet"
    arrived(lake, *rows)
    held_back = refine(one, lake, tmp_path)
    assert (held_back.state, broken(held_back)) == ("held", [rule])
    if rule == "once":
        assert {row["id"] for verdict in held_back.verdicts for row in verdict.sample} == {2}


def test_foreign_keys_are_judged_once_the_lake_has_where_they_lead(lake: Lake, tmp_path: Path) -> None:
    rule = "relationships: [{from: accepted.id, to: spent.payments}]"
    accepted, spent = promising(tmp_path, "accepted", rule)
    arrived(lake, (1, 0, "a", 5.0))
    first = refine(accepted, lake, tmp_path)
    assert (first.state, broken(first)) == ("published", [])
    assert (first.verdicts[1].severity, "cannot be judged" in first.verdicts[1].says) == ("warning", True)
    refine(spent, lake, tmp_path)
    arrived(lake, (2, 0, "a", 5.0))
    second = refine(accepted, lake, tmp_path)
    assert (second.state, broken(second)) == ("held", ["id.foreignKey"])
    assert second.verdicts[1].failed == 1, "a card has one payment, none has two"


def test_joined_files_are_nothing_new(lake: Lake, tmp_path: Path) -> None:
    for number in range(4):
        arrived(lake, (number, 0, "a", 1.0))
    all_of(lake, tmp_path)
    compact(lake.find("payments"))
    before = lake.find("accepted").version
    assert waits(named("accepted"), lake, tmp_path)
    assert {one.state for one in all_of(lake, tmp_path).values()} == {"unchanged"}
    assert lake.find("accepted").version == before + 1, "noted once"
    assert not waits(named("accepted"), lake, tmp_path)
    assert lake.find("spent").version == before + 1
    assert ask(lake, "spent", ["payments", "spent"]) == [(4, 4.0)]


def test_rolled_back_consumers_see_the_version_before(lake: Lake, tmp_path: Path) -> None:
    arrived(lake, (1, 0, "a", 5.0))
    first = all_of(lake, tmp_path)["spent"].version
    arrived(lake, (2, 0, "a", 5.0))
    all_of(lake, tmp_path)
    table = lake.find("spent")
    restore(table, first, "wrong prices")
    assert ask(lake, "spent", ["spent"]) == [(5.0,)]
    assert versions(table, 1)[0].because == {"did": "restore", "version": first, "why": "wrong prices"}


def test_other_sql_makes_the_table_anew(lake: Lake, tmp_path: Path) -> None:
    arrived(lake, (1, 0, "a", 5.0), (2, 0, "b", -1.0))
    all_of(lake, tmp_path / "work")
    product = tmp_path / "shop"
    shutil.copytree(SHOP, product)
    file = product / "sql" / "accepted.sql"
    file.write_text(file.read_text().replace("amount >= 0", "amount >= -10"))
    (changed, _) = transforms_of(shop(product))
    assert refine(changed, lake, tmp_path / "work").state == "published"
    assert ask(lake, "accepted", ["id"]) == [(1,), (2,)]


def test_what_was_applied_stands_in_the_commit(lake: Lake, tmp_path: Path) -> None:
    version = arrived(lake, (1, 0, "a", 5.0))
    all_of(lake, tmp_path)
    because = versions(lake.find("accepted"), 1)[0].because
    assert because["inputs"] == {"raw.payments": version}
    assert [one["holds"] for one in because["gates"]] == [True, True]
    assert lake.find("accepted").transaction("refine/payments") == version
