"""Writes schemas.json: the official schemas of the two kinds that we write, cut out of the package kubernetes-validate.

    run/peers/kubernetes/bin/python tests/models/kubernetes/excerpt.py

Descriptions are left out, and every definition that neither kind refers to; nothing else is changed.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

VERSION = "1.37.0"
KINDS = ("deployment-apps-v1", "service-v1")


def bare(told: Any) -> Any:
    """Without descriptions and remarks for other tools."""
    if isinstance(told, dict):
        return {
            name: bare(value)
            for name, value in told.items()
            if not (name == "description" and isinstance(value, str))
            and name not in {"$id", "$schema"}
            and not name.startswith("x-kubernetes")
        }
    return [bare(one) for one in told] if isinstance(told, list) else told


def main() -> None:
    """Follow the references, and write what is reached."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSION}-local-strict"
    known = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}

    def follow(told: Any) -> None:
        if isinstance(told, dict):
            reference = told.get("$ref")
            if isinstance(reference, str):
                name = reference.rpartition("/")[2]
                if name not in found:
                    found[name] = bare(known["$defs"][name])
                    follow(known["$defs"][name])
            for value in told.values():
                follow(value)
        elif isinstance(told, list):
            for value in told:
                follow(value)

    kinds = {}
    for kind in KINDS:
        told = json.loads((folder / f"{kind}.json").read_text(encoding="utf-8"))
        follow(told)
        kinds[kind] = bare(told)
    text = json.dumps({"version": VERSION, "kinds": kinds, "$defs": found}, separators=(",", ":"))
    text = text.replace("/api/_definitions.json#/$defs/", "#/$defs/")
    Path(__file__).with_name("schemas.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
