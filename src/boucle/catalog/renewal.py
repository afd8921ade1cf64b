"""One renewal of the catalogue's index: what changed among the product files is read and written anew."""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec import Struct, structs

from boucle.catalog.entry import Entry, Field, read_entry
from boucle.catalog.graph import ANY, WHOLE, Node
from boucle.catalog.things import Lineage, Thing
from boucle.catalog.words import STOP, concepts_of, grams, split, stem

__all__ = ["Refreshed", "Renewal", "Trace"]

Trace: TypeAlias = Callable[[Entry, Path, Callable[[str], tuple[Node, Sequence[str]] | None]], Lineage]
"""What reads the lineage out of a product's folder; given by a room that knows the operators."""


_WANTED = "?"
"""Before the name of a table that somebody's SQL reads and nobody has, or several do."""


class Refreshed(Struct, frozen=True):
    """What a look at the files changed: files read anew, gone and left as they were."""

    read: int
    gone: int
    kept: int
    broken: int


def _stamp(file: Path) -> str:
    """Changes when anything does that a product's entry or lineage is read from."""
    folder = file.parent
    told = hashlib.blake2b(digest_size=12)
    read = [file, folder / "boucle.toml"]
    with os.scandir(folder) as inside:
        names = {one.name: one.is_dir() for one in inside}
    read += [folder / name for name in sorted(names) if name.endswith(".py")]
    if names.get("sql"):
        read += sorted((folder / "sql").glob("**/*.sql"))
    if names.get("models"):
        read += sorted((folder / "models").glob("*/manifest.json"))
    for one in read:
        try:
            known = one.stat()
        except OSError:
            continue
        told.update(f"{one.name} {known.st_mtime_ns} {known.st_size}\n".encode())
    return told.hexdigest()


class Renewal:
    """One renewal, within its transaction."""

    def __init__(self, rows: sqlite3.Connection) -> None:
        self._rows = rows
        self._nodes: dict[Node, int] = {}
        self._words: set[str] = set()

    def renew(
        self, found: dict[str, Path], trace: Trace, progress: Callable[[int, int], None] | None
    ) -> Refreshed:
        known = {
            file: (name, stamp)
            for name, file, stamp in self._rows.execute("SELECT id, file, stamp FROM product")
        }
        stamps = {shown: _stamp(file) for shown, file in found.items()}
        gone = [file for file in known if file not in found]
        changed = [shown for shown, stamp in stamps.items() if shown not in known or known[shown][1] != stamp]
        touched = {known[file][0] for file in (*gone, *changed) if file in known}
        for name in touched:
            self._remove(name)
        entries: dict[str, Entry] = {}
        for shown in changed:
            entry = self._named(read_entry(found[shown], shown))
            self._put(entry, stamps[shown])
            entries[entry.id] = entry
        touched |= set(entries)
        folders = {shown: file.parent for shown, file in found.items()}
        self._trace_all(_suppliers_first(list(entries.values())), folders, trace, progress)
        # Whose SQL names a table that has another shape now, or that nobody had before.
        again = (self._dependents(touched) - set(entries)) | self._waiting(touched)
        self._trace_all([self._entry(name) for name in sorted(again)], folders, trace, progress)
        self._contracts(touched)
        if touched:
            self._tidy()
        broken = int(self._rows.execute("SELECT count(*) FROM product WHERE broken <> ''").fetchone()[0])
        return Refreshed(len(changed), len(gone), len(found) - len(changed), broken)

    def _trace_all(
        self,
        entries: list[Entry],
        folders: dict[str, Path],
        trace: Trace,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        for place, entry in enumerate(entries, 1):
            if progress is not None:
                progress(place, len(entries))
            self._trace(entry, folders[entry.file], trace)

    def _entry(self, name: str) -> Entry:
        row = self._rows.execute("SELECT doc FROM product WHERE id = ?", (name,)).fetchone()
        return msgspec.json.decode(row[0], type=Entry)

    def _dependents(self, touched: Iterable[str]) -> set[str]:
        """The products whose SQL names a table of one of these."""
        found: set[str] = set()
        for name in touched:
            rows = self._rows.execute("SELECT owner FROM reads WHERE product = ?", (name,))
            found |= {owner for (owner,) in rows}
        return {name for name in found if self._is_there(name)}

    def _waiting(self, touched: Iterable[str]) -> set[str]:
        """The products whose SQL reads a table that was not there, and that one of these has now."""
        found: set[str] = set()
        for name in touched:
            tables = self._rows.execute("SELECT name FROM thing WHERE owner = ? AND kind = 'table'", (name,))
            for (table,) in tables.fetchall():
                rows = self._rows.execute("SELECT owner FROM reads WHERE product = ?", (_WANTED + table,))
                found |= {owner for (owner,) in rows}
        return {name for name in found if self._is_there(name)}

    def _is_there(self, name: str) -> bool:
        return self._rows.execute("SELECT 1 FROM product WHERE id = ?", (name,)).fetchone() is not None

    def _remove(self, name: str) -> None:
        self._rows.execute("DELETE FROM product WHERE id = ?", (name,))
        self._rows.execute("DELETE FROM link WHERE owner = ? OR other = ?", (name, name))
        self._untold(name)

    def _untold(self, name: str) -> None:
        """Take out what a trace of this product had told."""
        rows = self._rows
        rows.execute("DELETE FROM link WHERE owner = ? AND other = ''", (name,))
        rows.execute("DELETE FROM thing WHERE owner = ?", (name,))
        rows.execute("DELETE FROM field WHERE owner = ?", (name,))
        rows.execute("DELETE FROM reads WHERE owner = ?", (name,))
        rows.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM hit WHERE owner = ?)", (name,))
        rows.execute("DELETE FROM hit WHERE owner = ?", (name,))

    def _named(self, entry: Entry) -> Entry:
        """The entry under an id that no other file has."""
        row = self._rows.execute("SELECT file FROM product WHERE id = ?", (entry.id,)).fetchone()
        if row is None:
            return entry
        problem = f"the id {entry.id} stands in {row[0]} too"
        return structs.replace(entry, id=f"{entry.id}@{entry.file}", problems=(*entry.problems, problem))

    def _put(self, entry: Entry, stamp: str) -> None:
        problems = msgspec.json.encode(entry.problems)
        told = (
            entry.contract,
            entry.name,
            entry.domain,
            entry.owner,
            entry.status,
            _bars(entry.tags),
            entry.broken,
        )
        values = (entry.id, entry.file, stamp, *told, problems, msgspec.json.encode(entry))
        self._rows.execute(f"INSERT INTO product VALUES ({', '.join('?' * len(values))})", values)  # noqa: S608 - question marks
        # Tables first, so that other products' SQL finds their columns whatever is traced first.
        for table in entry.tables:
            self._tell_thing(
                Thing("table", entry.id, table.name, "", table.description, table.fields), entry.id
            )

    def _trace(self, entry: Entry, folder: Path, trace: Trace) -> None:
        self._untold(entry.id)
        asked: set[str] = set()

        def foreign(name: str) -> tuple[Node, Sequence[str]] | None:
            found = self._table(name)
            if found is not None and found[0].product != entry.id:
                asked.add(found[0].product)
                return found
            if found is None:
                asked.add(_WANTED + name.rpartition(".")[2])
            return None

        told = Lineage() if entry.broken else trace(entry, folder, foreign)
        for thing in told.things:
            self._tell_thing(thing, entry.id)
        rows = (
            (self._node(link.source), self._node(link.target), link.how, link.says, link.step, entry.id, "")
            for link in told.links
        )
        self._rows.executemany("INSERT INTO link VALUES (?, ?, ?, ?, ?, ?, ?)", list(rows))
        self._rows.executemany(
            "INSERT INTO reads VALUES (?, ?)", [(entry.id, name) for name in sorted(asked)]
        )
        problems = msgspec.json.encode([*entry.problems, *told.problems])
        self._rows.execute("UPDATE product SET problems = ? WHERE id = ?", (problems, entry.id))
        self._tell_words(entry, told)

    def _table(self, name: str) -> tuple[Node, Sequence[str]] | None:
        product, _, table = name.rpartition(".")
        query = "SELECT product, doc FROM thing WHERE name = ? AND kind = 'table'"
        rows = self._rows.execute(query, (table,)).fetchall()
        mine = [row for row in rows if row[0] == product]
        chosen = mine or rows
        if len(chosen) != 1:
            return None
        thing = msgspec.json.decode(chosen[0][1], type=Thing)
        return thing.node, [field.name for field in thing.fields]

    def _node(self, node: Node) -> int:
        number = self._nodes.get(node)
        if number is None:
            values = (node.kind, node.product, node.name, node.column)
            query = "SELECT id FROM node WHERE product = ? AND name = ? AND kind = ? AND field = ?"
            row = self._rows.execute(query, (node.product, node.name, node.kind, node.column)).fetchone()
            if row is None:
                insert = "INSERT INTO node(kind, product, name, field) VALUES (?, ?, ?, ?)"
                row = (self._rows.execute(insert, values).lastrowid,)
            number = self._nodes[node] = int(row[0])
        return number

    def _tell_thing(self, thing: Thing, owner: str) -> None:
        number = self._node(thing.node)
        fields = [(self._node(thing.node.of(field.name)), owner) for field in thing.fields]
        self._rows.executemany("INSERT OR IGNORE INTO field VALUES (?, ?)", [*fields, (number, owner)])
        values = (
            number,
            owner,
            thing.kind,
            thing.product,
            thing.name,
            thing.title,
            msgspec.json.encode(thing),
        )
        self._rows.execute("INSERT OR REPLACE INTO thing VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    # ── words ─────────────────────────────────────────────────────────────────────────────────

    def _tell_words(self, entry: Entry, told: Lineage) -> None:
        around = f"{entry.id} {entry.name} {entry.domain} {entry.owner} {entry.team}"
        says = f"{entry.purpose} {entry.usage} {entry.limitations}"
        ports = " ".join(port.name for port in (*entry.inputs, *entry.outputs))
        self._tell(
            entry, "product", "", "", f"{entry.id} {entry.name}", entry.tags, says, f"{around} {ports}"
        )
        for thing in told.things:
            if thing.kind not in ("table", "topic", "model", "rule", "command"):
                continue
            promised = next((one for one in entry.tables if one.name in (thing.name, thing.title)), None)
            tags = promised.tags if promised else ()
            columns = " ".join(field.name for field in thing.fields)
            name = thing.title if thing.kind == "topic" else thing.name
            zone = f" {thing.title}" if thing.kind == "table" else ""
            within = f"{entry.id} {entry.name} {columns}{zone}"
            self._tell(
                entry, thing.kind, thing.name, "", f"{name} {thing.name}", tags, thing.description, within
            )
            if thing.kind in ("table", "topic"):
                for field in thing.fields:
                    self._tell_field(entry, thing, field, name)

    def _tell_field(self, entry: Entry, thing: Thing, field: Field, name: str) -> None:
        says = f"{field.description} {field.unit} {field.classification}"
        self._tell(
            entry, "column", thing.name, field.name, field.name, field.tags, says, f"{name} {entry.id}", field
        )

    def _tell(
        self,
        entry: Entry,
        kind: str,
        name: str,
        field: str,
        title: str,
        tags: Sequence[str],
        says: str,
        around: str,
        told: Field | None = None,
    ) -> None:
        personal = told.classification if told else ""
        values = (
            entry.id,
            kind,
            name,
            field,
            personal.lower(),
            int(bool(told and told.personal)),
            _bars(tags),
            says[:400],
        )
        columns = "owner, kind, name, field, class, personal, tags, says"
        insert = f"INSERT INTO hit({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - question marks
        number = self._rows.execute(insert, values).lastrowid
        read = [
            [one for one in split(text) if one not in STOP] for text in (title, " ".join(tags), says, around)
        ]
        self._words.update(*read)
        parts = [[stem(word) for word in words] for words in read]
        rings = concepts_of([*parts[0], *parts[1], *parts[2]])
        texts = [" ".join(part) for part in (*parts, rings)]
        self._rows.execute(
            "INSERT INTO words(rowid, name, tags, says, around, rings) VALUES (?, ?, ?, ?, ?, ?)",
            (number, *texts),
        )

    # ── between products ──────────────────────────────────────────────────────────────────────

    def _contracts(self, touched: set[str]) -> None:
        """Links from the tables of a product that holds a contract to the input ports that name it."""
        rows = self._rows
        holders: dict[str, list[str]] = {}
        for name, contract in rows.execute("SELECT id, contract FROM product WHERE contract <> ''"):
            holders.setdefault(contract, []).append(name)
        inputs = rows.execute(
            "SELECT owner, name, title FROM thing WHERE kind = 'input' AND title <> ''"
        ).fetchall()
        for owner, port, contract in inputs:
            for holder in holders.get(contract, ()):
                if holder != owner and (owner in touched or holder in touched):
                    self._supply(holder, owner, port)

    def _supply(self, holder: str, owner: str, port: str) -> None:
        rows = self._rows
        tables = [name for (name,) in rows.execute(
            "SELECT name FROM thing WHERE owner = ? AND kind = 'table'", (holder,)
        )]  # fmt: skip
        table = port if port in tables else tables[0] if len(tables) == 1 else ""
        if not table:
            return
        rows.execute("DELETE FROM link WHERE owner = ? AND other = ? AND step = ?", (owner, holder, port))
        source, target = Node("table", holder, table), Node("input", owner, port)
        query = "SELECT doc FROM thing WHERE owner = ? AND name = ? AND kind = 'table'"
        (doc,) = rows.execute(query, (holder, table)).fetchone()
        fields = {field.name for field in msgspec.json.decode(doc, type=Thing).fields} | {WHOLE}
        told = [
            (
                self._node(source.of(field)),
                self._node(target.of(field)),
                "IDENTITY",
                "delivered under contract",
                port,
                owner,
                holder,
            )
            for field in sorted(fields)
        ]
        query = (
            "SELECT 1 FROM node JOIN link ON source = id "
            "WHERE product = ? AND name = ? AND kind = 'input' AND field = ?"
        )
        if rows.execute(query, (owner, port, ANY)).fetchone() is not None:
            why, star = "its columns are not declared", self._node(target.of(ANY))
            told += [
                (self._node(target.of(field)), star, "UNKNOWN", why, port, owner, holder)
                for field in sorted(fields - {WHOLE, ANY})
            ]
        rows.executemany("INSERT INTO link VALUES (?, ?, ?, ?, ?, ?, ?)", told)

    def _tidy(self) -> None:
        """Forget nodes that nothing tells of any more; learn the letters of new words."""
        rows = self._rows
        rows.execute(
            "DELETE FROM node WHERE id NOT IN (SELECT source FROM link) AND id NOT IN (SELECT target FROM link) "
            "AND id NOT IN (SELECT node FROM field)"
        )
        known = {word for (word,) in rows.execute("SELECT word FROM word")}
        new = sorted(word for word in self._words - known if len(word) >= 4 and word.isalpha())
        rows.executemany("INSERT INTO word VALUES (?)", [(word,) for word in new])
        rows.executemany(
            "INSERT INTO gram VALUES (?, ?)", [(gram, word) for word in new for gram in set(grams(word))]
        )


def _suppliers_first(entries: list[Entry]) -> list[Entry]:
    """Products after those whose contracts they read by; in a circle, as they come."""
    holders = {entry.contract: entry.id for entry in entries if entry.contract}
    needs = {
        entry.id: {holders[port.contract] for port in entry.inputs if port.contract in holders}
        for entry in entries
    }
    for name, suppliers in needs.items():
        suppliers.discard(name)
    try:
        order = {name: place for place, name in enumerate(TopologicalSorter(needs).static_order())}
    except CycleError:
        return entries
    return sorted(entries, key=lambda entry: order[entry.id])


def _bars(tags: Iterable[str]) -> str:
    """Tags as `|one|two|`, to be looked for as a whole."""
    told = "|".join(tag.lower().replace("|", " ") for tag in tags)
    return f"|{told}|" if told else ""
