"""What is declared is checked before anything runs: every problem with its file and line, whatever was written."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import BoucleError, DeclarationError
from boucle.product.project import load_project
from boucle.refine.lint import lint
from boucle.refine.samples import cut, try_samples
from boucle.refine.transform import check_transforms, transforms_of
from tests.refine.payments import SHOP, shop


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHOP, tmp_path / "shop"))


def changed(product: Path, name: str, **settings: Any) -> list[str]:
    """The problems of the shop when one transformation says something else."""
    file = product / "product.yaml"
    documents = list(yaml.safe_load_all(file.read_text()))
    documents[2]["transforms"][name].update(settings)
    file.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    try:
        return [f"{one.code} {one.what}" for one in check_transforms(load_project(product))]
    except DeclarationError as error:
        return [f"{one.code} {one.what}" for one in error.problems]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"from": ["payment"]}, "B530 accepted reads 'payment', which nothing makes"),
        ({"from": ["payments", "spent"]}, "B530 a circle: "),
        ({"mode": "merge", "key": []}, "B530 accepted: mode merge without a key"),
        ({"gates": [{}]}, "B530 accepted: a gate has exactly one of schema, sql, rows and drift, not 0"),
        (
            {"gates": [{"schema": "x", "sql": "select 1"}]},
            "exactly one of schema, sql, rows and drift, not 2",
        ),
        ({"gates": [{"schema": "payment"}]}, "B530 accepted: there is no schema object 'payment'"),
        ({"gates": [{"sql": "drop table staged"}]}, "B531 accepted: one SELECT is wanted"),
        ({"gates": [{"sql": "select * from elsewhere"}]}, "B532 accepted reads 'elsewhere'"),
        ({"sql": "sql/none.sql"}, "there is no file"),
        ({"sql": "../../etc/passwd"}, "lies outside the product"),
        ({"mode": "sideways"}, "mode"),
        ({"gates": [{"rows": {"least": 1, "words": 2}}]}, "there is no such setting"),
    ],
)
def test_a_wrong_declaration_is_a_problem(product: Path, settings: dict[str, Any], says: str) -> None:
    problems = changed(product, "accepted", **settings)
    assert any(says in one for one in problems), problems


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SELECT id FROM changed.payments; DROP TABLE payments", "B531"),
        ("INSERT INTO payments VALUES (1)", "B531"),
        ("COPY payments TO 'out.csv'", "B531"),
        ("SELECT ((1", "B531"),
        ("", "B531"),
        ("SELECT * FROM read_csv('/etc/passwd')", ""),
        ("WITH elsewhere AS (SELECT 1 AS id) SELECT * FROM elsewhere", ""),
        ("SELECT * FROM silver.others", "B532"),
        ("SELECT " + "(" * 5000, "B531"),
    ],
)
def test_sql_that_is_no_select_of_what_is_declared(product: Path, text: str, code: str) -> None:
    (product / "sql" / "accepted.sql").write_text(text)
    problems = [one for one in check_transforms(shop(product)) if one.file.endswith("accepted.sql")]
    assert {one.code for one in problems} == ({code} if code else set())
    assert all(one.line == 1 for one in problems)


def test_sql_that_is_not_text_is_a_problem(product: Path) -> None:
    (product / "sql" / "accepted.sql").write_bytes(b"SELECT '\xe9\xff' FROM changed.payments")
    (problem,) = check_transforms(shop(product))
    assert "not UTF-8" in problem.what


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    product = shop()
    from boucle.refine.transform import _Check

    for problem in _Check(product).select("it", text, {"payments"}, "it.sql", 1):
        assert problem.code in {"B531", "B532"}


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_samples_are_judged(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = Path(shutil.copytree(SHOP, tmp_path_factory.mktemp("shop") / "shop"))
    (folder / "sql" / "tests" / "accepted.yaml").write_text(yaml.safe_dump(value, allow_unicode=True))
    project = shop(folder)
    one = next(each for each in transforms_of(project) if each.name == "accepted")
    try:
        try_samples(one, project)
    except BoucleError as error:
        assert error.code == "B537"  # noqa: PT017 - some samples are fine


def test_cases_pass_or_say_what_differs(product: Path) -> None:
    project = shop(product)
    transforms = {one.name: one for one in transforms_of(project)}
    assert [one.passed for name in transforms for one in try_samples(transforms[name], project)] == [
        True,
        True,
    ]
    file = product / "sql" / "tests" / "spent.yaml"
    file.write_text(file.read_text().replace("spent: 5.1", "spent: 5.2"))
    (failed,) = try_samples(transforms["spent"], project)
    assert not failed.passed
    assert "expected {card: a" in failed.says
    file = product / "sql" / "tests" / "accepted.yaml"
    file.write_text(
        "- {case: none, given: {}, expect: []}\n- {case: more, given: {}, expect: [{card: a}]}\n"
        "- {case: misspelt, given: {payments: [{card: a, amuont: 1}]}, expect: []}\n"
        "- {case: untyped, given: {payments: [{card: a, amount: many}]}, expect: []}\n"
    )
    tried = try_samples(transforms["accepted"], project)
    assert [one.passed for one in tried] == [True, False, False, False]
    assert "amuont" in tried[2].says


def test_sqlfluff_finds_what_its_settings_ask(product: Path) -> None:
    transforms = transforms_of(shop(product))
    assert lint(transforms, product) == []
    (product / "sql" / "accepted.sql").write_text("select id,amount from changed.payments\n")
    found = lint(transforms_of(shop(product)), product)
    assert {one.code for one in found} == {"B536"}
    assert all(one.line >= 1 and one.what for one in found)


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-1", "abc", "%", "nan"])
def test_a_share_that_is_none(text: str) -> None:
    with pytest.raises(BoucleError, match="B538"):
        cut(text, ["id"])


@pytest.mark.parametrize(
    "settings",
    [{"every": "soon"}, {"history": "0s"}, {"rows": "old"}, {"tables": {"payment": {"rows": "1d"}}}],
)
def test_upkeep_that_cannot_be_meant(product: Path, settings: dict[str, Any]) -> None:
    file = product / "product.yaml"
    documents = list(yaml.safe_load_all(file.read_text()))
    documents[2]["lake"] = settings
    file.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    problems = check_transforms(load_project(product))
    assert {one.code for one in problems} == {"B530"}
    assert all("lake" in one.what for one in problems)
