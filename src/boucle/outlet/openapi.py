"""The OpenAPI 3.1 document of a product's REST interface, made of its contract and its tables."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from boucle.outlet.notes import ColumnNote, TableNote

__all__ = ["MEDIA", "document"]

MEDIA = ("application/json", "application/x-ndjson", "text/csv", "application/vnd.apache.arrow.stream")
_PROBLEM = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "an error code of boucle"},
        "fix": {"type": "string"},
    },
    "required": ["type", "title", "status"],
}


def document(
    product: str, version: str, title: str, tables: Mapping[str, tuple[pa.Schema, TableNote]], secured: bool
) -> dict[str, Any]:
    """The document; `tables` are those the product shows, by name."""
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"problem": _PROBLEM}
    for name, (schema, note) in tables.items():
        schemas[name] = _row(schema, note)
        paths[f"/products/{product}/tables/{name}/rows"] = {"get": _rows(name, schema, note)}
    told: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": title or product, "version": version or "0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if secured:
        told["components"]["securitySchemes"] = {
            "basic": {"type": "http", "scheme": "basic"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        told["security"] = [{"basic": []}, {"bearer": []}]
    return told


def _rows(name: str, schema: pa.Schema, note: TableNote) -> dict[str, Any]:
    parameters = [
        {"name": field.name, "in": "query", "required": False, "schema": {"type": "string"},
         "description": f"a filter on {field.name}: eq. ne. gt. ge. lt. le. in.(a,b) is.null like.a*, not. before any"}
        for field in schema
    ]  # fmt: skip
    for parameter, said in (
        ("select", "columns, with commas between them"),
        ("order", "columns, each perhaps with .desc"),
        ("cursor", "the `next` of the page before"),
        ("version", "the table as it was at a version"),
    ):
        parameters.append(
            {
                "name": parameter,
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": said,
            }
        )
    limit = {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100}
    parameters.append(
        {"name": "limit", "in": "query", "required": False, "schema": limit, "description": "rows of a page"}
    )
    page = {
        "type": "object",
        "properties": {
            "version": {"type": "integer", "description": "the table's version that all pages are of"},
            "rows": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
            "next": {"type": ["string", "null"], "description": "where the next page is"},
        },
        "required": ["version", "rows", "next"],
    }
    content: dict[str, Any] = {kind: {} for kind in MEDIA}
    content["application/json"] = {"schema": page}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}}
    failures = {
        "400": "cannot be read",
        "401": "who asks?",
        "404": "not there",
        "406": "no such form",
        "410": "version gone",
    }
    return {
        "operationId": f"rows_{name}",
        "summary": note.description or f"Rows of {name}",
        "parameters": parameters,
        "responses": {
            "200": {"description": "a page of rows", "content": content},
            **{status: {"description": said, "content": problem} for status, said in failures.items()},
        },
    }


def _row(schema: pa.Schema, note: TableNote) -> dict[str, Any]:
    return {
        "type": "object",
        "description": note.description,
        "properties": {
            field.name: _column(field.type, note.columns.get(field.name, ColumnNote())) for field in schema
        },
    }


def _column(kind: pa.DataType, note: ColumnNote) -> dict[str, Any]:
    told = _kind(kind)
    words = f"{note.description} [{note.unit}]".strip() if note.unit else note.description
    return told | {"description": words} if words else told


def _kind(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_integer(kind):
        return {"type": ["integer", "null"]}
    if pa.types.is_floating(kind):
        return {"type": ["number", "null"]}
    if pa.types.is_boolean(kind):
        return {"type": ["boolean", "null"]}
    if pa.types.is_timestamp(kind):
        return {"type": ["string", "null"], "format": "date-time"}
    if pa.types.is_date(kind):
        return {"type": ["string", "null"], "format": "date"}
    if pa.types.is_list(kind):
        return {"type": ["array", "null"], "items": _kind(kind.value_type)}
    if pa.types.is_struct(kind):
        return {"type": ["object", "null"], "properties": {field.name: _kind(field.type) for field in kind}}
    return {"type": ["string", "null"]}
