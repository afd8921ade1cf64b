"""The index over many products: renewed where files changed, forgiving, and honest about what it could not read."""

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.catalog.entry import read_entry
from boucle.catalog.graph import Node
from boucle.catalog.index import Index
from boucle.catalog.mask import MASKED, masked, personal_columns
from boucle.catalog.questions import ask, find_node
from boucle.catalog.renewal import Refreshed
from boucle.catalog.search import read_query, search
from boucle.errors import BoucleError
from boucle.loop.columns import trace_product
from boucle.product.personal import is_personal
from tests.catalog.made import CARDS, CLAIMS, bank, put


def indexed(root: Path) -> Index:
    index = Index(root, root.parent / f"{root.name}.sqlite")
    index.refresh(trace_product)
    return index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return indexed(bank(tmp_path / "products"))


def names(index: Index, query: str) -> list[str]:
    return [
        f"{one.name}.{one.column}".strip(".") or one.product for one in search(index, read_query(query)).hits
    ]


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    root = bank(tmp_path / "products")
    index = indexed(root)
    assert index.refresh(trace_product) == Refreshed(read=0, gone=0, kept=2, broken=0)
    file = root / "bank" / "cards" / "product.yaml"
    file.write_text(CARDS.replace("Card payments", "Payments by card"), encoding="utf-8")
    assert index.refresh(trace_product) == Refreshed(read=1, gone=0, kept=1, broken=0)
    cards = index.product("cards")
    assert cards is not None
    assert cards.name == "Payments by card"
    (root / "risk" / "claims" / "sql" / "per_card.sql").write_text(
        "select card as who from scored", encoding="utf-8"
    )
    assert index.refresh(trace_product).read == 1
    file.unlink()
    assert index.refresh(trace_product) == Refreshed(read=0, gone=1, kept=1, broken=0)
    assert index.product("cards") is None
    assert names(index, "fraude owner:ada") == []


def test_renewed_is_the_same_as_made_anew(tmp_path: Path) -> None:
    root = bank(tmp_path / "products")
    index = indexed(root)
    file = root / "bank" / "cards" / "product.yaml"
    for text in (
        CARDS.replace("by: card", "by: terminal"),
        "kind: [",
        CARDS.replace("spent_24h", "spent"),
        CARDS,
    ):
        file.write_text(text, encoding="utf-8")
        os.utime(file, ns=(1, len(text)))
        index.refresh(trace_product)
    fresh = Index(root, tmp_path / "fresh.sqlite")
    fresh.refresh(trace_product)

    def told(one: Index) -> list[set[tuple[object, ...]]]:
        links = (
            "SELECT a.product, a.name, a.field, b.product, b.name, b.field, how, says FROM link "
            "JOIN node a ON a.id = source JOIN node b ON b.id = target"
        )
        asked = (
            links,
            "SELECT kind, product, name, field FROM node",
            "SELECT owner, kind, name, field, class FROM hit",
        )
        return [set(one.rows.execute(query)) for query in asked]

    for renewed, anew in zip(told(index), told(fresh), strict=True):
        assert (renewed - anew, anew - renewed) == (set(), set())


def test_words_in_either_language_with_and_without_mistakes(index: Index) -> None:
    assert names(index, "carte fraude")[0] == "cards"
    assert "scored.amount" in names(index, "montant")
    assert names(index, "terminal") == names(index, "terminaux")
    found = search(index, read_query("amuont"))
    assert found.corrected == (("amuont", "amount"),)
    assert found.hits
    some = search(index, read_query("amount zzzzqqq"))
    assert some.missing == ("zzzzqqq",)
    assert some.hits
    apart = search(index, read_query("claims country"))
    assert apart.some
    assert search(index, read_query("le la du of the")).hits == ()


def test_filters(index: Index) -> None:
    assert {one.product for one in search(index, read_query("owner:ada")).hits} == {"cards"}
    assert set(names(index, "class:confidential kind:column")) == {
        "mqtt://broker.bank.example:1883/bank/payments.card",
        "scored.card",
    }
    assert {one.personal for one in search(index, read_query("pii:yes")).hits} == {True}
    assert {one.product for one in search(index, read_query("tag:fraud")).hits} == {"cards"}
    assert {one.product for one in search(index, read_query("total", [("domain", "risk")])).hits} == {
        "claims"
    }
    assert names(index, "column:TOTAL") == ["hours.total", "per_card.total"]
    with pytest.raises(BoucleError) as caught:
        read_query("x", [("colour", "red")])
    assert caught.value.code == "B562"


def test_across_products_by_contract_and_sql(index: Index) -> None:
    impact = ask(index, find_node(index, "payments.amount"), "impact")
    assert impact.asked.name == "mqtt://broker.bank.example:1883/bank/payments"
    reached = {str(one.node) for one in impact.reached}
    assert {"cards/scored.spent_24h", "cards/hours.total", "claims/per_card.total", "cards/burst"} <= reached
    assert impact.products() == ["cards", "claims"]
    total = next(one.node for one in impact.reached if str(one.node) == "claims/per_card.total")
    way = [str(one.node) for one in impact.way(total)]
    assert way[-2:] == ["claims/scored.amount", "claims/per_card.total"]
    origin = ask(index, total, "origin")
    ends = {str(one.node) for one in origin.ends() if not one.decides}
    assert ends == {"mqtt://broker.bank.example:1883/bank/payments.amount"}
    assert {str(one.node) for one in origin.reached if one.decides} >= {"claims/scored.card"}
    assert index.suppliers("claims") == ["cards"]
    assert index.consumers("cards") == ["claims"]


def test_a_filter_reaches_every_column_of_what_it_filters(index: Index) -> None:
    reached = {str(one.node) for one in ask(index, find_node(index, "payments.terminal"), "impact").reached}
    assert "cards/hours.total" in reached


def test_names_that_are_not_there_or_there_twice(index: Index, tmp_path: Path) -> None:
    with pytest.raises(BoucleError) as caught:
        find_node(index, "scored.amuont")
    assert (caught.value.code, "scored.amount" in caught.value.fix) == ("B563", True)
    put(
        tmp_path / "products",
        "other",
        CARDS.replace("id: cards\n", "id: others\n").replace("cards-contract", "oc"),
    )
    index.refresh(trace_product)
    with pytest.raises(BoucleError) as twice:
        find_node(index, "hours.total")
    assert (twice.value.code, "others/hours.total" in twice.value.fix) == ("B564", True)
    assert find_node(index, "others/hours.total").product == "others"


BROKEN = {
    "yaml": "kind: [unclosed",
    "bytes": "kind: DataProduct\nid: x\n\x00",
    "empty": "",
    "list": "- 1\n- 2\n",
    "text": "just words",
    "nobody": "kind: DataProduct\nname: no id\n",
    "numbers": "kind: 3\nid: {a: b}\n",
    "alias": "a: &a [*a]\n---\nkind: DataProduct\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_one_broken_file_is_listed_with_its_reason_and_stops_nothing(tmp_path: Path, name: str) -> None:
    root = bank(tmp_path / "products")
    put(root, "broken", BROKEN[name])
    index = indexed(root)
    assert index.counts() | {"links": 0, "columns": 0} == {
        "products": 3, "broken": 1, "tables": 3, "columns": 0, "links": 0,
    }  # fmt: skip
    broken = index.product("broken")
    assert broken is not None
    assert broken.broken
    assert names(index, "owner:ada")


def test_other_mistakes_are_told_beside_the_product(tmp_path: Path) -> None:
    root = bank(tmp_path / "products")
    text = CARDS.replace("tags: [payments, fraud]", "tags: fraud").replace(
        "status: active\ndomain", "status: [a]\ndomain"
    )
    put(root, "bank/cards", text)
    put(root, "copy", CLAIMS)
    put(root, "risk/claims", CLAIMS, sql__bad_dot_sql="select from where")
    index = indexed(root)
    assert {"tags: a text where a list was expected", "status: a list where a text was expected"} <= set(
        index.problems("cards")
    )
    (copy,) = (one for one in index.products() if one.id.startswith("claims@"))
    assert copy.file == "risk/claims/product.yaml"
    assert "the id claims stands in copy/product.yaml too" in index.problems(copy.id)
    assert any("sql/bad.sql cannot be read" in one for one in index.problems(copy.id))


def test_products_that_feed_each_other_in_a_circle_are_walked_once(tmp_path: Path) -> None:
    root = tmp_path / "products"
    for name, other in (("one", "two"), ("two", "one")):
        text = (
            CLAIMS.replace("claims", name)
            .replace("cards-contract", f"{other}-contract")
            .replace("scored", "per_card")
        )
        put(root, name, text, sql__per_card_dot_sql=f"select who, total from {other}.per_card")
    index = indexed(root)
    node = find_node(index, "one/per_card.total")
    assert {str(one.node) for one in ask(index, node, "impact").reached} >= {"two/per_card.total"}
    assert {str(one.node) for one in ask(index, node, "origin").reached} >= {"two/per_card.total"}


def test_a_product_that_says_nothing_of_its_columns_is_unsure(tmp_path: Path) -> None:
    root = bank(tmp_path / "products")
    (root / "risk" / "claims" / "sql" / "per_card.sql").unlink()
    index = indexed(root)
    reached = {
        str(one.node): one for one in ask(index, find_node(index, "cards/scored.amount"), "impact").reached
    }
    assert not reached["claims/per_card.total"].sure


def test_a_damaged_or_older_index_is_made_anew(tmp_path: Path) -> None:
    root = bank(tmp_path / "products")
    file = tmp_path / "index.sqlite"
    file.write_bytes(b"not a database" * 100)
    index = Index(root, file)
    index.refresh(trace_product)
    index.close()
    with sqlite3.connect(file) as rows:
        rows.execute("UPDATE meta SET value = '0'")
    rows.close()
    again = Index(root, file)
    assert again.counts()["products"] == 0
    again.refresh(trace_product)
    assert again.counts()["products"] == 2


def test_a_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(BoucleError) as missing:
        Index(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(BoucleError) as taken:
        Index(tmp_path, tmp_path / "file" / "index.sqlite")
    assert {missing.value.code, taken.value.code} == {"B561"}


def test_personal_columns_are_found_by_class_and_by_lineage(index: Index) -> None:
    node = Node("table", "cards", "scored")
    fields = list(next(one for one in index.things("cards") if one.node == node).fields)
    hidden = personal_columns(index, node, fields)
    assert hidden["card"] == "confidential"
    assert hidden["label"].endswith(".card")
    assert not {"amount", "country", "terminal"} & set(hidden)
    per_card = Node("table", "claims", "per_card")
    mine = list(next(one for one in index.things("claims") if one.node == per_card).fields)
    assert set(personal_columns(index, per_card, mine)) == {"who"}
    assert masked("4242 4242") == MASKED
    assert masked(None) is None
    assert is_personal("Restricted")
    assert not is_personal("internal")


@given(st.text(max_size=80))
def test_no_query_breaks_the_search(text: str) -> None:
    assert read_query(text).words == tuple(dict.fromkeys(read_query(text).words))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return indexed(bank(tmp_path_factory.mktemp("fuzz") / "products"))


@given(
    words=st.lists(
        st.sampled_from(
            [
                '"',
                "*",
                "AND",
                "OR",
                "NEAR(",
                "name:",
                ")",
                "'",
                "amount",
                "tag:",
                "owner:x",
                "^a",
                "-b",
                "\x00",
            ]
        )
        | st.text(max_size=5),
        max_size=8,
    )
)
def test_any_query_is_answered(searched: Index, words: list[str]) -> None:
    search(searched, read_query(" ".join(words)))


@given(name=st.text(alphabet="abcdefs/.cord_://mqtt ", max_size=30))
def test_any_name_is_found_or_refused(searched: Index, name: str) -> None:
    try:
        ask(searched, find_node(searched, name), "impact")
    except BoucleError:
        return


KEYS = (
    "kind id schema properties name tags team members quality items sources steps with tables rules inputPorts "
    "customProperties"
)
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS.split(" ")), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(document=YAML, kind=st.sampled_from(["DataProduct", "DataContract", "Loop"]))
def test_any_document_is_read(tmp_path_factory: pytest.TempPathFactory, document: object, kind: str) -> None:
    import yaml

    folder = tmp_path_factory.mktemp("any")
    whole = {**document, "kind": kind} if isinstance(document, dict) else document
    text = f"{CARDS}\n---\n{yaml.safe_dump(whole)}" if kind == "Loop" else yaml.safe_dump(whole)
    (folder / "product.yaml").write_text(text, encoding="utf-8")
    entry = read_entry(folder / "product.yaml", "any/product.yaml")
    assert entry.id
    trace_product(entry, folder)
