"""`boucle catalog`: find products, tables and columns; read a product's page in the terminal; serve the pages."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from boucle.cli.lineage import open_index, root_arguments
from boucle.errors import BoucleError

__all__ = ["arguments", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `boucle catalog`."""
    deeds = parser.add_subparsers(dest="deed", metavar="DEED", required=True)
    find = deeds.add_parser("search", help="words in English or French, misspelt or not, and filters")
    find.add_argument(
        "words", nargs="*", help="and owner:… tag:… class:… column:… kind:… domain:… status:… pii:yes"
    )
    find.add_argument("--limit", type=int, default=20, help="hits shown (default 20)")
    show = deeds.add_parser("show", help="a product: promise, tables, lineage, how to read it")
    show.add_argument("product", help="its id, or PRODUCT/TABLE for a table")
    show.add_argument(
        "--run", type=Path, action="append", default=[], help="a run's folder, or one above runs"
    )
    show.add_argument(
        "--sample", type=int, default=0, metavar="ROWS", help="rows of a table, personal columns masked"
    )
    show.add_argument(
        "--unmask", action="store_true", help="show personal columns, too: only if you may see them"
    )
    check = deeds.add_parser(
        "status", help="renew the index; how many products there are, and which are broken"
    )
    serve = deeds.add_parser("serve", help="the catalogue as a web site, without a running loop")
    serve.add_argument("root", nargs="?", type=Path, default=Path(), help="the folder above your products")
    serve.add_argument("--index", type=Path, metavar="FILE", help="where the index lies")
    serve.add_argument(
        "--at", default="127.0.0.1:8100", metavar="HOST:PORT", help="default 127.0.0.1:8100; port 0: free"
    )
    serve.add_argument(
        "--run", type=Path, action="append", default=[], help="a run's folder, or one above runs"
    )
    serve.add_argument(
        "--unmask", action="store_true", help="show personal columns in samples to every reader"
    )
    serve.add_argument(
        "--lang", choices=["en", "fr"], help="for readers who did not choose (default: the browser's)"
    )
    for one in (find, show, check):
        root_arguments(one)
        one.add_argument("--json", action="store_true", help="one JSON object")
    serve.add_argument(
        "--json", action="store_true", help="the address as one JSON object, when it is served"
    )
    parser.epilog = (
        'examples:\n  boucle catalog search "température huile" --root products\n'
        "  boucle catalog search phone pii:yes --json\n"
        "  boucle catalog show press-line/maintenance_summary --sample 5\n"
        "  boucle catalog serve products --at 127.0.0.1:8100"
    )


def run(options: argparse.Namespace) -> int:
    """Search, show or serve."""
    if options.deed == "serve":
        return _serve(options)
    index = open_index(options)
    try:
        return {"search": _search, "show": _show, "status": _status}[options.deed](options, index)
    finally:
        index.close()


def _search(options: argparse.Namespace, index: Any) -> int:
    import msgspec

    from boucle.catalog.search import read_query, search

    begun = time.perf_counter()
    found = search(index, read_query(" ".join(options.words)), options.limit)
    took = 1000 * (time.perf_counter() - begun)
    if options.json:
        print(json.dumps({**msgspec.to_builtins(found), "ms": round(took, 1)}, ensure_ascii=False))
        return 0
    for word, read in found.corrected:
        print(f"“{word}” was read as “{read}”")
    for word in found.missing:
        print(f"nothing has “{word}”")
    if found.some:
        print("no entry has all of these words; these have some:")
    for hit in found.hits:
        place = (
            hit.product
            if hit.kind == "product"
            else f"{hit.product}/{hit.name}" + (f".{hit.column}" if hit.column else "")
        )
        mark = f"  [{hit.classification or 'PII'}]" if hit.personal else ""
        print(f"{hit.kind:<8} {place}{mark}  {' '.join(hit.says.split())[:90]}".rstrip())
    if not found.hits:
        print("nothing was found")
    return 0


def _status(options: argparse.Namespace, index: Any) -> int:
    counts = index.counts()
    broken = [{"file": one.file, "why": one.broken} for one in index.products() if one.broken]
    if options.json:
        print(json.dumps({**counts, "broken_files": broken, "index": str(index.file)}, ensure_ascii=False))
        return 0
    print(", ".join(f"{count} {name}" for name, count in counts.items()) + f"  ({index.file})")
    for one in broken:
        print(f"  broken: {one['file']}: {one['why']}")
    return 0


def _show(options: argparse.Namespace, index: Any) -> int:
    from boucle.loop.showcase import find_run, held_by

    name, table = _named(index, options.product)
    entry = index.product(name)
    run = find_run(entry, index.root, options.run)
    held = held_by(run) if run else {}
    if table:
        return _show_table(options, index, entry, table, run, held)
    things = index.things(name)
    if options.json:
        import msgspec

        told = msgspec.to_builtins(entry)
        told.pop("loop")
        told |= {
            "things": msgspec.to_builtins(things),
            "problems": index.problems(name),
            "run": str(run) if run else None,
        }
        told |= {"suppliers": index.suppliers(name), "consumers": index.consumers(name)}
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print(f"{entry.name}  ({entry.id} {entry.version} {entry.status})".replace(" )", ")"))
    if entry.broken:
        print(f"  cannot be read: {entry.file}: {entry.broken}")
    lines = [
        ("domain", entry.domain),
        ("owner", entry.owner),
        ("tags", ", ".join(entry.tags)),
        ("purpose", entry.purpose),
    ]
    lines += [
        ("usage", entry.usage),
        ("limits", entry.limitations),
        ("contract", f"{entry.contract} {entry.contract_version}"),
    ]
    lines += [("reads", ", ".join(index.suppliers(name))), ("read by", ", ".join(index.consumers(name)))]
    lines += [
        ("promises", f"{one.name} {one.value} {one.unit} {one.element}".strip()) for one in entry.promises
    ]
    lines += [("run", str(run) if run else "")]
    for label, text in lines:
        if text.strip():
            print(f"  {label:<9} {text}")
    for kind, head in (
        ("topic", "sources"),
        ("table", "tables"),
        ("model", "models"),
        ("rule", "rules"),
        ("command", "commands"),
    ):
        found = [thing for thing in things if thing.kind == kind]
        if found:
            print(f"{head}:")
        for thing in found:
            rows = f"  {held[thing.name].rows} rows" if kind == "table" and thing.name in held else ""
            print(f"  {thing.name}  {thing.title}{rows}  {thing.description}".rstrip())
    for problem in index.problems(name):
        print(f"  not understood: {problem}")
    return 0


def _show_table(
    options: argparse.Namespace, index: Any, entry: Any, table: str, run: Path | None, held: dict[str, Any]
) -> int:
    from boucle.catalog.mask import personal_columns
    from boucle.catalog.snippets import snippets
    from boucle.loop.showcase import sample_of

    thing = next(
        one
        for one in index.things(entry.id)
        if one.kind in ("table", "topic") and table in (one.name, one.title)
    )
    hidden = personal_columns(index, thing.node, list(thing.fields))
    sample = None
    if options.sample and run is not None and table in held:
        known = [field.name for field in thing.fields]
        sample = sample_of(run, held[table], {} if options.unmask else hidden, known, options.sample)
    if options.json:
        import msgspec

        told = {**msgspec.to_builtins(thing), "personal": hidden, "run": str(run) if run else None}
        if sample is not None:
            told["sample"] = [dict(zip(sample.columns, row, strict=True)) for row in sample.rows]
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print(f"{entry.id}/{thing.name}  {thing.title}  {thing.description}".rstrip())
    if thing.unknown:
        print(f"  not all of it is known: {thing.unknown}")
    width = max((len(one.name) for one in thing.fields), default=0)
    for one in thing.fields:
        mark = f"[{one.classification or 'personal'}] " if one.name in hidden else ""
        says = f"{mark}{one.description} {' · '.join(one.rules)}"
        print(f"  {one.name:<{width}}  {one.type or '?':<12} {one.unit:<8} {says}".rstrip())
    if sample is not None:
        print("  ".join(sample.columns))
        for row in sample.rows:
            print("  ".join("–" if value is None else value for value in row))
    if thing.kind == "table":
        for snippet in snippets(entry, thing.name, held[table].zone if table in held else thing.title, run):
            print(f"\n{snippet.way}:" + (f"  (start first: {snippet.before})" if snippet.before else ""))
            print("\n".join(f"    {line}" for line in snippet.text.splitlines()))
    return 0


def _named(index: Any, text: str) -> tuple[str, str]:
    """Product and table; B570 with the likely names for one that is not there."""
    import difflib

    if index.product(text) is not None:
        return text, ""
    product, _, table = text.rpartition("/")
    entry = index.product(product) if product else None
    if entry is not None:
        tables = [
            name
            for one in index.things(product)
            if one.kind in ("table", "topic")
            for name in (one.name, one.title)
        ]
        if table in tables:
            return product, table
        near = difflib.get_close_matches(table, tables, n=1)
        fix = f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(set(tables)))}"
        raise BoucleError("B570", f"{product} has no table {table!r}", fix=fix)
    near = difflib.get_close_matches(text, [one.id for one in index.products()], n=3, cutoff=0.4)
    fix = f"did you mean {', '.join(near)}?" if near else "find it with `boucle catalog search`"
    raise BoucleError("B570", f"there is no product {text!r}", fix=fix)


def _serve(options: argparse.Namespace) -> int:
    from boucle.cli.session import interruptible
    from boucle.web.catalog import create_catalogue
    from boucle.web.server import serve

    index = open_index(options)
    host, _, port = options.at.rpartition(":")
    if not port.isdecimal():
        raise BoucleError(
            "B571", f"--at {options.at} is no address", fix="write HOST:PORT, as 127.0.0.1:8100"
        )
    hosts = {} if host in {"", "127.0.0.1", "localhost"} else {"hosts": ["*" if host == "0.0.0.0" else host]}  # noqa: S104
    app = create_catalogue(index, language=options.lang, runs=options.run, unmasked=options.unmask, **hosts)
    with interruptible() as stop, serve(app, host=host or "127.0.0.1", port=int(port)) as server:
        address = f"{server.url}catalogue"
        print(
            json.dumps({"url": address}) if options.json else f"the catalogue: {address}  (Ctrl-C ends it)",
            flush=True,
        )
        stop.wait()
    index.close()
    return 0
