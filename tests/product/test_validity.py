"""The quick look at a document's shape says what the official schema says, of sound and of broken ones."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.product.check import official_schema
from boucle.product.validity import Validity

CONTRACT = yaml.safe_load("""
kind: DataContract
apiVersion: v3.1.0
id: orders
version: 1.0.0
status: active
servers:
  - {server: files, type: local, path: orders.parquet, format: parquet}
schema:
  - name: orders
    properties:
      - {name: id, logicalType: integer, primaryKey: true, logicalTypeOptions: {minimum: 0}}
      - {name: customer, logicalType: string, relationships: [{to: customers.id}]}
      - {name: tags, logicalType: array, items: {logicalType: string}}
      - name: state
        logicalType: string
        description: how far it is
        quality: [{metric: invalidValues, arguments: {validValues: [open, paid]}, mustBe: 0}]
    quality:
      - {type: sql, query: "SELECT count(*) FROM ${table}", mustBeGreaterThan: 0}
      - {type: custom, engine: boucle, implementation: {check: volume}}
  - name: customers
    properties: [{name: id, logicalType: integer}, {name: born, logicalType: date}]
    relationships: [{from: customers.id, to: orders.customer}]
slaProperties: [{property: freshness, value: 1, unit: h}]
team: {name: sales, members: [{username: ada, role: owner}]}
customProperties: [{property: gates, value: {a: 1}}]
""")
PRODUCT = yaml.safe_load("""
kind: DataProduct
apiVersion: v1.0.0
id: orders
name: Orders
status: active
outputPorts: [{name: orders, version: 1.0.0, contractId: orders}]
team: {name: sales, members: [{username: ada}]}
""")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def mended(document: Any, path: tuple[Any, ...], how: str, value: Any) -> Any:
    told = copy.deepcopy(document)
    at = told
    for key in path[:-1]:
        at = at[key]
    if how == "drop":
        del at[path[-1]]
    elif how == "replace":
        at[path[-1]] = value
    elif isinstance(at[path[-1]], dict):
        at[path[-1]][str(value)] = value
    return told


VALIDITIES = {
    "contract": (Validity(official_schema("DataContract", "v3.1.0")), CONTRACT),
    "product": (Validity(official_schema("DataProduct", "v1.0.0")), PRODUCT),
}


@settings(max_examples=40)
@given(st.sampled_from(sorted(VALIDITIES)), st.data())
def test_a_document_with_mistakes_is_found_by_the_quick_look_too(kind: str, data: st.DataObject) -> None:
    validity, told = VALIDITIES[kind]
    values: st.SearchStrategy[Any] = st.sampled_from(
        [0, -1, "x", "type", "metric", "logicalType", [], {}, {"x": 1}, True, None]
    )
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from([one for one in places(told) if one]))
        told = mended(told, path, data.draw(st.sampled_from(["drop", "replace", "add"])), data.draw(values))
    assert validity(told) == validity.whole.is_valid(told)


@pytest.mark.parametrize(
    "column",
    [
        {"name": "id", "logicalType": "integer", "logicalTypeOption": {}},
        {"name": 7, "logicalType": "integer"},
        {"logicalType": "integer"},
        {"name": "id", "logicalType": "integer", "logicalTypeOptions": {"pattern": "x"}},
        "id",
    ],
)
def test_a_column_is_looked_at_though_its_like_was_seen(column: Any) -> None:
    validity = Validity(official_schema("DataContract", "v3.1.0"))
    assert validity(CONTRACT)
    told = copy.deepcopy(CONTRACT)
    told["schema"][0]["properties"].append(column)
    assert not validity(told)
    assert validity(CONTRACT)
