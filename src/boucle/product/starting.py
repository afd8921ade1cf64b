"""The files a new product begins with: three documents that `boucle check` passes, and where they run."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from boucle.product.infer import Inferred
from boucle.product.writing import write_value

__all__ = ["new_product", "new_settings", "slug"]

_SETTINGS = """# Where the product {id} runs. What it *is* stands in product.yaml.

[run]
folder = "run/{id}"        # log, lake, journal, quarantine
web = "127.0.0.1:8000"

# [addresses]                # names for the places that product.yaml speaks of as {{name}}
# broker = "127.0.0.1:1883"
"""
_GUESSED = """# Everything called guessed… was inferred from {address} ({rows} rows) and is no promise yet:
# confirm it by writing it as one (required, unique, logicalTypeOptions, classification …), or delete it.
"""
_LOOP = """# Sources, steps, tables and actuators: see docs/how-to/own-product.md
"""


def slug(name: str) -> str:
    """A name as an id: small letters, digits and hyphens.

    >>> slug("Orders of 2026")
    'orders-of-2026'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "product"


def new_settings(product: str) -> str:
    """The first boucle.toml."""
    return _SETTINGS.format(id=product)


def new_product(product: str, inferred: Sequence[Inferred] = (), accepted: Collection[str] = ()) -> str:
    """The first product.yaml; with what was inferred from data, where there are some."""
    schema = [one.schema_object(accepted) for one in inferred]
    return written(
        product, schema, [_GUESSED.format(address=one.address, rows=f"{one.rows:,}") for one in inferred]
    )


def written(product: str, schema: Sequence[dict[str, Any]], remarks: Sequence[str] = ()) -> str:
    """A product.yaml whose contract holds these schema objects."""
    contract = f"{product}-data"
    documents: list[tuple[str, dict[str, Any]]] = [
        ("", {
            "apiVersion": "v1.0.0", "kind": "DataProduct", "id": product, "name": product, "version": "0.1.0",
            "status": "draft", "description": {"purpose": "Say here what the product is for."},
            "outputPorts": [
                {"name": str(one["name"]), "type": "tables", "version": "0.1.0",
                    "contractId": contract} for one in schema
            ],
        }),
        ("".join(remarks), {
            "apiVersion": "v3.1.0", "kind": "DataContract", "id": contract, "version": "0.1.0", "status": "draft",
            "dataProduct": product, "schema": list(schema) or _example(),
        }),
        (_LOOP, {
            "kind": "Loop", "apiVersion": "boucle/v1", "id": f"{product}-loop", "product": product,
            "contract": contract, "sources": {},
        }),
    ]  # fmt: skip
    if not schema:
        del documents[0][1]["outputPorts"]
    return "---\n".join(remark + write_value(document) for remark, document in documents)


def _example() -> list[dict[str, Any]]:
    """A first table, so that there is something to change."""
    return [
        {
            "name": "readings",
            "physicalType": "table",
            "description": "One row per machine and moment: change it to what your product promises.",
            "properties": [
                {"name": "machine", "logicalType": "string", "required": True},
                {"name": "at", "logicalType": "timestamp", "required": True},
                {"name": "value", "logicalType": "number"},
            ],
        }
    ]
