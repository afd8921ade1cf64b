"""Which columns are shown to nobody who was not allowed to see them, and what is shown instead.

A column is personal when its contract says so (`classification`, tag or custom property), or when lineage says that it
is made from one: copied, changed, aggregated or by a step that does not tell. Its own contract has the last word: a
column classified `public` or `internal` is shown, whatever it is made from.
"""

from typing import Any

from boucle.catalog.entry import Field
from boucle.catalog.graph import Node
from boucle.catalog.index import Index
from boucle.catalog.questions import ask

__all__ = ["MASKED", "masked", "personal_columns"]

MASKED = "•••"


def personal_columns(index: Index, table: Node, fields: list[Field]) -> dict[str, str]:
    """Column → why it is masked, for those that are: its class, or the column it is made from."""
    found = {field.name: field.classification or "tag" for field in fields if field.personal}
    if index.rows.execute("SELECT 1 FROM hit WHERE personal = 1 LIMIT 1").fetchone() is None:
        return found
    for field in fields:
        if field.name in found or field.classification:
            continue
        for one in ask(index, table.of(field.name), "origin").reached:
            if not one.decides and _is_personal(index, one.node):
                found[field.name] = str(one.node)
                break
    return found


def _is_personal(index: Index, node: Node) -> bool:
    query = (
        "SELECT 1 FROM hit WHERE name = ? AND field = ? AND personal = 1 AND (owner = ? OR ? = '') LIMIT 1"
    )
    values = (node.name, node.column, node.product, node.product)
    return index.rows.execute(query, values).fetchone() is not None


def masked(value: Any) -> str | None:
    """What is shown of a personal value: that there is one, not even how long it is."""
    return None if value is None else MASKED
