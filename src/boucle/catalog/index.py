"""The catalogue's index: what all products of a root tell, in one SQLite file that is renewed where files changed.

A product is read again when its product.yaml, or what its lineage is read from (boucle.toml, modules, SQL, model
manifests), has another time or size; one whose SQL names a table of a product that changed is traced again, too.
Links between products are made by contract: an input port leads to the table of its name in the product that holds
the contract. The words stand in an FTS5 table without accents and endings (`boucle.catalog.words`).
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from boucle.catalog.entry import Entry
from boucle.catalog.graph import Link, Node
from boucle.catalog.renewal import Refreshed, Renewal, Trace
from boucle.catalog.things import Thing
from boucle.errors import BoucleError

__all__ = ["Index", "index_file"]

_VERSION = "4"
_PASSED = {"node_modules", "__pycache__", "build", "dist", "venv"}
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE product(
  id TEXT PRIMARY KEY, file TEXT UNIQUE, stamp TEXT, contract TEXT, name TEXT, domain TEXT, owner TEXT, status TEXT,
  tags TEXT, broken TEXT, problems BLOB, doc BLOB);
CREATE INDEX product_contract ON product(contract);
CREATE TABLE node(
  id INTEGER PRIMARY KEY, kind TEXT, product TEXT, name TEXT, field TEXT, UNIQUE(product, name, kind, field));
CREATE INDEX node_name ON node(name, field);
CREATE TABLE thing(node INTEGER, owner TEXT, kind TEXT, product TEXT, name TEXT, title TEXT, doc BLOB,
  PRIMARY KEY(node, owner)) WITHOUT ROWID;
CREATE INDEX thing_owner ON thing(owner);
CREATE INDEX thing_name ON thing(name, kind);
CREATE TABLE field(node INTEGER, owner TEXT, PRIMARY KEY(node, owner)) WITHOUT ROWID;
CREATE INDEX field_owner ON field(owner);
CREATE TABLE link(source INTEGER, target INTEGER, how TEXT, says TEXT, step TEXT, owner TEXT, other TEXT);
CREATE INDEX link_source ON link(source);
CREATE INDEX link_target ON link(target);
CREATE INDEX link_owner ON link(owner);
CREATE TABLE reads(owner TEXT, product TEXT, PRIMARY KEY(owner, product)) WITHOUT ROWID;
CREATE INDEX reads_product ON reads(product);
CREATE TABLE hit(id INTEGER PRIMARY KEY, owner TEXT, kind TEXT, name TEXT, field TEXT, class TEXT, personal INTEGER,
  tags TEXT, says TEXT);
CREATE INDEX hit_owner ON hit(owner);
CREATE INDEX hit_class ON hit(class) WHERE class <> '';
CREATE VIRTUAL TABLE words USING fts5(name, tags, says, around, rings, tokenize = 'ascii', prefix = '3');
CREATE TABLE word(word TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE VIRTUAL TABLE vocabulary USING fts5vocab(words, 'row');
CREATE TABLE gram(gram TEXT, word TEXT, PRIMARY KEY(gram, word)) WITHOUT ROWID;
"""


def index_file(root: Path) -> Path:
    """Where the index of a root lies: beside the products, in a folder that listings leave out."""
    return root / ".boucle" / "catalogue.sqlite"


class Index:
    """The index of one root. Thread-safe; several processes may read it while one renews it.

    B561 when its file cannot be made or read. It holds nothing that the products' files do not tell: an index of
    another version, or a damaged one, is made anew.
    """

    def __init__(self, root: Path, file: Path | None = None) -> None:
        self.root, self.file = root.absolute(), (file or index_file(root)).absolute()
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if not self.root.is_dir():
            raise BoucleError("B561", f"there is no folder {root}", fix="name the folder above your products")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if not self._usable():
                self._anew()
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> BoucleError:
        fix = "give a place that can be written: --index FILE"
        return BoucleError(
            "B561", "the catalogue's index cannot be used", where=str(self.file), why=str(error), fix=fix
        )

    def _usable(self) -> bool:
        if not self.file.exists():
            return False
        try:
            with closing(sqlite3.connect(self.file)) as one:
                found = one.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
                return found is not None and found[0] == _VERSION
        except sqlite3.DatabaseError:
            return False

    def _anew(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        with closing(sqlite3.connect(self.file, isolation_level=None)) as one:
            one.execute("PRAGMA journal_mode = WAL")
            one.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
            one.execute("INSERT INTO meta VALUES ('version', ?)", (_VERSION,))

    @property
    def rows(self) -> sqlite3.Connection:
        """This thread's connection, for reading."""
        one: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if one is None:
            one = self._connect()
            self._local.connection = one
        return one

    def _connect(self) -> sqlite3.Connection:
        # Closed by whoever closes the index, from its own thread.
        one = sqlite3.connect(self.file, isolation_level=None, check_same_thread=False, timeout=30)
        one.execute("PRAGMA synchronous = NORMAL")
        one.execute("PRAGMA mmap_size = 268435456")
        one.execute("PRAGMA cache_size = -65536")
        with self._lock:
            self._open.append(one)
        return one

    def close(self) -> None:
        """Give back the files. Safe to call twice."""
        with self._lock:
            for one in self._open:
                one.close()
            self._open.clear()
        self._local = threading.local()

    # ── what is there ─────────────────────────────────────────────────────────────────────────

    def products(self) -> list[Entry]:
        """Every product, by id; the broken ones among them."""
        rows = self.rows.execute("SELECT doc FROM product ORDER BY id")
        return [msgspec.json.decode(doc, type=Entry) for (doc,) in rows]

    def product(self, name: str) -> Entry | None:
        """One product by its id."""
        row = self.rows.execute("SELECT doc FROM product WHERE id = ?", (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Entry)

    def problems(self, product: str) -> list[str]:
        """What could not be understood of a product, its lineage included."""
        row = self.rows.execute("SELECT problems FROM product WHERE id = ?", (product,)).fetchone()
        return [] if row is None else msgspec.json.decode(row[0], type=list[str])

    def things(self, product: str) -> list[Thing]:
        """The topics, tables, streams, models, rules and commands that a product tells of."""
        rows = self.rows.execute("SELECT doc FROM thing WHERE owner = ? ORDER BY kind, name", (product,))
        return [msgspec.json.decode(doc, type=Thing) for (doc,) in rows]

    def links(self, product: str) -> list[Link]:
        """The links that a product tells of, and those by contract that lead into it."""
        query = (
            "SELECT a.kind, a.product, a.name, a.field, b.kind, b.product, b.name, b.field, how, says, step FROM link "
            "JOIN node a ON a.id = source JOIN node b ON b.id = target WHERE link.owner = ? OR link.other = ?"
        )
        rows = self.rows.execute(query, (product, product))
        return [Link(Node(*row[:4]), Node(*row[4:8]), *row[8:]) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many products, broken ones, tables, columns and links there are."""
        one = self.rows
        asked = {
            "products": "SELECT count(*) FROM product",
            "broken": "SELECT count(*) FROM product WHERE broken <> ''",
            "tables": "SELECT count(*) FROM thing WHERE kind = 'table'",
            "columns": "SELECT count(*) FROM hit WHERE kind = 'column'",
            "links": "SELECT count(*) FROM link",
        }
        return {name: int(one.execute(query).fetchone()[0]) for name, query in asked.items()}

    def suppliers(self, product: str) -> list[str]:
        """The products whose contracts a product reads by."""
        rows = self.rows.execute(
            "SELECT DISTINCT other FROM link WHERE owner = ? AND other <> ''", (product,)
        )
        return sorted(name for (name,) in rows)

    def consumers(self, product: str) -> list[str]:
        """The products that read by this product's contract, or name its tables in their SQL."""
        query = "SELECT owner FROM link WHERE other = ? UNION SELECT owner FROM reads WHERE product = ?"
        return sorted(name for (name,) in self.rows.execute(query, (product, product)) if name != product)

    # ── renewing ──────────────────────────────────────────────────────────────────────────────

    def refresh(self, trace: Trace, progress: Callable[[int, int], None] | None = None) -> Refreshed:
        """Read what changed since the last time; everything at once becomes visible, or nothing does."""
        found = {file.relative_to(self.root).as_posix(): file for file in _product_files(self.root)}
        try:
            with self._writing() as writer:
                return writer.renew(found, trace, progress)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    @contextmanager
    def _writing(self) -> Iterator[Renewal]:
        with closing(sqlite3.connect(self.file, isolation_level=None, timeout=60)) as one:
            one.execute("PRAGMA synchronous = NORMAL")
            one.execute("PRAGMA cache_size = -131072")
            one.execute("BEGIN IMMEDIATE")
            try:
                yield Renewal(one)
            except BaseException:
                one.execute("ROLLBACK")
                raise
            one.execute("COMMIT")


def _product_files(root: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith(".") and name not in _PASSED)
        if "product.yaml" in files:
            yield Path(folder) / "product.yaml"
