"""`boucle models`: what is registered, whether it is sound, and what leaves the registry."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs, to_builtins

from boucle.cli.answer import print_rows
from boucle.errors import BoucleError

if TYPE_CHECKING:
    from boucle.models.registry import Registry

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle models`."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--product", type=Path, default=Path(), help="the product's folder (default: here)")
    shared.add_argument("--env", help="an environment of boucle.toml")
    shared.add_argument("--json", action="store_true", help="one JSON value on standard output")
    todo = parser.add_subparsers(dest="what", metavar="WHAT", required=True)

    def word(name: str, says: str, asks: str = "") -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = todo.add_parser(name, help=says, description=says, parents=[shared])
        if asks:
            sub.add_argument("model", help=asks)
        return sub

    word("list", "every model, its versions and who plays which role")
    word("show", "the card of a version and the history of its name", "NAME, NAME/3 or NAME@champion")
    word("verify", "signatures, digests and ONNX of every version", "NAME")
    again = word("reproduce", "train a version again from its record and compare the ONNX bytes", "NAME/3")
    again.add_argument("--folder", type=Path, help="the run whose lake is read (default: `run.folder`)")
    pack = word(
        "package", "one file with model, signature, features and card; Dockerfile and manifests", "NAME/3"
    )
    pack.add_argument("--to", type=Path, default=Path("dist"), help="where to (default: dist)")
    pack.add_argument("--image", default="", help="the image that the manifests name")
    add = word("add", "register a model folder as the next version: ours, or one that MLflow logged")
    add.add_argument("model", metavar="FOLDER", help="a folder with manifest.json, or with MLmodel")
    add.add_argument("--name", default="", help="what it is called (default: as its manifest, or its folder)")
    add.add_argument("--note", default="", help="kept with the version")
    sign = word(
        "sign", "show the roles that a file names, whoever wrote it, and sign them with --yes", "NAME"
    )
    sign.add_argument("--yes", action="store_true", help="I have looked at them: sign them as they stand")
    parser.epilog = (
        "examples:\n  boucle models list --product examples/fraud --json\n  boucle models reproduce fraud/1\n"
        "  boucle models package fraud@champion --to dist\n  boucle models sign fraud --yes\n"
        "  boucle models add mlruns/churn --name churn"
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked; 1 when a version is not sound, not reproduced, or roles are shown and not signed."""
    from boucle.models.registry import registry_of

    registry = registry_of(options.product, options.env)
    todo = {
        "list": _list, "show": _show, "verify": _verify, "reproduce": _reproduce, "package": _package,
        "add": _add, "sign": _sign,
    }  # fmt: skip
    return todo[options.what](registry, options)


def _list(registry: "Registry", options: argparse.Namespace) -> int:
    rows = []
    for name in registry.names():
        roles = registry.roles(name).roles
        for one in registry.versions(name):
            played = [role for role, number in roles.items() if number == one.number]
            told = {"model": name, "version": one.number, "role": ", ".join(played), "created": one.created}
            rows.append({**told, "by": one.by, "sha256": one.sha256[:12], "note": one.note})
    print_rows(rows, as_json=options.json)
    return 0


def _show(registry: "Registry", options: argparse.Namespace) -> int:
    version = registry.resolve(_reference(registry, options.model))
    files, roles = registry.files(str(version)), registry.roles(version.name)
    if options.json:
        told = {"version": structs.asdict(version), "roles": to_builtins(roles)}
        print(json.dumps({**told, "card": json.loads(files.get("card.json", b"null"))}))
        return 0
    print(files.get("card.md", f"# {version}\n\nIt has no card.\n".encode()).decode())
    print("## History\n")
    for one in roles.history:
        print(
            f"- {one.at} {one.verb} {one.role}: {one.before} → {one.version}, by {one.by}. {one.why}".rstrip()
        )
    return 0


def _reference(registry: "Registry", text: str) -> str:
    """A bare name means its newest version: there may be no champion yet."""
    if "/" in text or "@" in text or not (known := registry.versions(text)):
        return text
    return str(known[-1])


def _verify(registry: "Registry", options: argparse.Namespace) -> int:
    from boucle.models.onnx import OnnxModel

    rows = []
    for one in registry.versions(options.model):
        why = ""
        try:
            registry.files(str(one))
            model = registry.load(str(one))
            if model.manifest.flavour == "onnx":  # a pyfunc is only known by running what came with it
                OnnxModel(model)
        except BoucleError as error:
            why = str(error)
        rows.append({"version": one.number, "sound": not why, "key": one.key[:12] or "unsigned", "why": why})
    print_rows(rows, as_json=options.json)
    return 0 if rows and all(row["sound"] for row in rows) else 1


def _reproduce(registry: "Registry", options: argparse.Namespace) -> int:
    from boucle.cli.train import source_of
    from boucle.models.reproduce import reproduce

    found = reproduce(registry, options.model, source_of(options))
    if options.json:
        print(json.dumps(structs.asdict(found)))
    elif found.same:
        print(f"{found.version}: the same {found.bytes} bytes, SHA-256 {found.sha256[:12]}…")
    else:
        print(f"{found.version}: not the same bytes. {found.differs}")
    return 0 if found.same else 1


def _package(registry: "Registry", options: argparse.Namespace) -> int:
    from boucle.models.package import package

    written = [str(file) for file in package(registry, options.model, options.to, image=options.image)]
    print(json.dumps(written) if options.json else "\n".join(written))
    return 0


def _add(registry: "Registry", options: argparse.Namespace) -> int:
    from boucle.models.file import ModelFile
    from boucle.models.foreign import model_folder

    folder = Path(options.model)
    model = model_folder(folder)
    name = options.name or ("" if (folder / "manifest.json").exists() else folder.resolve().name)
    if name:
        model = ModelFile(structs.replace(model.manifest, name=name), model.content)
    version = registry.add(model, note=options.note)
    told = {"version": str(version), "flavour": version.flavour, "sha256": version.sha256}
    print(json.dumps(told) if options.json else f"{version} is registered ({version.flavour})")
    return 0


def _sign(registry: "Registry", options: argparse.Namespace) -> int:
    from boucle.models.folder import FolderRegistry

    if not isinstance(registry, FolderRegistry):
        what, fix = "this registry keeps its roles itself", "sign roles in a registry that is a folder"
        raise BoucleError("B648", what, where=registry.address, fix=fix)
    roles = registry.unverified_roles(options.model)
    if options.yes:
        roles = registry.sign_roles(options.model)
    if options.json:
        print(json.dumps({"model": options.model, "signed": options.yes, "roles": to_builtins(roles)}))
        return 0 if options.yes else 1
    for role, number in roles.roles.items():
        print(f"{role}: version {number}")
    says = "signed" if options.yes else "not signed: add --yes when this is what it should be"
    print(f"{options.model}: {says}")
    return 0 if options.yes else 1
