"""Search over the catalogue: words in English or French, misspelt or not, with filters.

A query is words and filters: `température presse owner:reliability class:confidential kind:column`. Every word must be
found, as it is written or as its stem begins; one that nobody wrote is taken for the nearest that somebody did, and
words that mean the same (`boucle.catalog.words.RINGS`) count for less. When no entry has all of the words, those that
have some are given. Ranked by BM25 with the name before tags, description and surroundings (FTS5).
"""

import re
import sqlite3
from collections.abc import Mapping, Sequence

from msgspec import Struct

from boucle.catalog.index import Index
from boucle.catalog.words import STOP, concepts_of, distance, grams, split, stem
from boucle.errors import BoucleError

__all__ = ["FILTERS", "Asked", "Found", "Hit", "read_query", "search"]

FILTERS: Mapping[str, str] = {
    "class": "hit.class = ?",
    "domain": "product.domain = ? COLLATE NOCASE",
    "kind": "hit.kind = ?",
    "owner": "(product.owner LIKE ? OR product.owner LIKE ? || '@%')",
    "pii": "hit.personal = ?",
    "product": "hit.owner = ?",
    "status": "product.status = ? COLLATE NOCASE",
    "tag": "(hit.tags LIKE ? OR product.tags LIKE ?)",
    "column": "(hit.field = ? COLLATE NOCASE AND hit.kind = 'column')",
}
"""Filter → its condition."""

_FILTER = re.compile(rf"(?<!\S)({'|'.join(FILTERS)}):(\"[^\"]*\"|\S+)", re.IGNORECASE)
_WEIGHTS = "12.0, 8.0, 3.0, 1.0, 0.6"
"""Of name, tags, description, surroundings and rings."""
_KINDS = {
    "product": 1.6,
    "table": 1.3,
    "topic": 1.1,
    "model": 1.1,
    "rule": 1.0,
    "command": 1.0,
    "column": 1.0,
}
_LONGEST = 400
_WORDS = 12
_YES = {"yes", "true", "1", "oui"}


class Asked(Struct, frozen=True):
    """A query taken apart. `filters`: (name, value), all of which must hold."""

    words: tuple[str, ...]
    filters: tuple[tuple[str, str], ...] = ()


class Hit(Struct, frozen=True):
    """One thing or column that was found."""

    kind: str
    product: str
    name: str
    """Of the thing; the product's own is empty."""
    column: str
    title: str
    says: str
    classification: str
    personal: bool
    score: float
    """Larger is better; comparable within one answer."""


class Found(Struct, frozen=True):
    """What a query found, the best first. `corrected`: (as written, as read)."""

    hits: tuple[Hit, ...]
    corrected: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    """Words that nothing has, alike or not."""
    some: bool = False
    """No entry has all of the words: these have some."""


def read_query(text: str, filters: Sequence[tuple[str, str]] = ()) -> Asked:
    """Words and filters of a query. B562 for a filter that does not exist.

    >>> read_query("huile owner:reliability")
    Asked(words=('huile',), filters=(('owner', 'reliability'),))
    """
    text = text[:_LONGEST]
    told = [(name.lower(), value.strip('"')) for name, value in _FILTER.findall(text)]
    for name, _ in filters:
        if name not in FILTERS:
            raise BoucleError(
                "B562", f"there is no filter {name!r}", fix=f"one of: {', '.join(sorted(FILTERS))}"
            )
    words = tuple(one for one in dict.fromkeys(split(_FILTER.sub(" ", text))) if one not in STOP)
    return Asked(words[:_WORDS], tuple(dict.fromkeys((*told, *filters))))


def search(index: Index, asked: Asked, limit: int = 30) -> Found:
    """The best hits; with filters and no words, all that keep them, by name."""
    rows = index.rows
    condition, values = _conditions(asked.filters)
    if not asked.words:
        if not asked.filters:
            return Found(())
        return Found(tuple(_listed(rows, condition, values, limit)))
    terms, corrected, missing = _terms(rows, asked.words)
    if not terms:
        return Found((), corrected, missing)
    hits = _ranked(rows, " AND ".join(terms), condition, values, limit)
    some = False
    if not hits and len(terms) > 1:
        hits, some = _ranked(rows, " OR ".join(terms), condition, values, limit), True
    return Found(tuple(hits), corrected, missing, some)


def _terms(
    rows: sqlite3.Connection, words: Sequence[str]
) -> tuple[list[str], tuple[tuple[str, str], ...], tuple[str, ...]]:
    terms, corrected, missing = [], [], []
    for word in words:
        found = stem(word)
        rings = concepts_of([found])
        read = _alike(rows, found)
        if not read and not rings:
            near = _near(rows, word)
            if not near:
                missing.append(word)
                continue
            corrected.append((word, near[0]))
            read = [f'"{stem(one)}"' for one in near]
            rings = concepts_of(stem(one) for one in near[:1])
        parts = [f"{{name tags says around}} : {one}" for one in read]
        parts += [f"rings : {ring}" for ring in rings]
        terms.append(f"({' OR '.join(parts)})")
    return terms, tuple(corrected), tuple(missing)


def _alike(rows: sqlite3.Connection, word: str) -> list[str]:
    """The word itself where somebody wrote it, else all words that begin so: `press` is not `pressure`."""
    query = "SELECT term FROM vocabulary WHERE term >= ? AND term < ? LIMIT 1"
    first = rows.execute(query, (word, word + "\U0010ffff")).fetchone()
    if first is None:
        return []
    return [f'"{word}"'] if first[0] == word else [f'"{word}"*']


def _near(rows: sqlite3.Connection, word: str) -> list[str]:
    """Words that differ from this one in a letter, or in two when it is long."""
    if len(word) < 4:
        return []
    asked = grams(word)
    query = (
        f"SELECT word, count(*) AS alike FROM gram WHERE gram IN ({', '.join('?' * len(asked))}) "  # noqa: S608 - question marks
        "GROUP BY word HAVING abs(length(word) - ?) <= 2 ORDER BY alike DESC LIMIT 60"
    )
    most = 1 if len(word) < 6 else 2
    told = [
        (distance(word, other, most), -alike, other)
        for other, alike in rows.execute(query, (*asked, len(word)))
    ]
    near = sorted(one for one in told if one[0] <= most)
    return [other for far, _, other in near if far == near[0][0]][:3]


def _conditions(filters: Sequence[tuple[str, str]]) -> tuple[str, list[str | int]]:
    parts, values = [], list[str | int]()
    for name, value in filters:
        condition = FILTERS[name]
        parts.append(condition)
        if name == "pii":
            values.append(int(value.lower() in _YES))
        elif name == "class":
            values.append(value.lower())
        else:
            told = f"%|{value.lower()}|%" if name == "tag" else value
            values += [told] * condition.count("?")
    return "".join(f" AND {part}" for part in parts), values


def _ranked(
    rows: sqlite3.Connection, match: str, condition: str, values: Sequence[str | int], limit: int
) -> list[Hit]:
    weight = "".join(f"WHEN '{kind}' THEN {factor} " for kind, factor in _KINDS.items())
    # Sorted by what they are worth alone: the texts of thousands of hits would be carried along for thirty.
    products = " JOIN product ON product.id = hit.owner" if condition else ""
    query = (
        "SELECT hit.kind, hit.owner, hit.name, hit.field, product.name, hit.says, hit.class, hit.personal, best.score "  # noqa: S608 - our own conditions
        f"FROM (SELECT found.id AS id, -found.rank * CASE hit.kind {weight}ELSE 1.0 END AS score FROM "
        f"(SELECT rowid AS id, rank FROM words WHERE words MATCH ? AND rank MATCH 'bm25({_WEIGHTS})') AS found "
        f"JOIN hit ON hit.id = found.id{products} WHERE 1{condition} ORDER BY score DESC LIMIT ?) AS best "
        "JOIN hit ON hit.id = best.id JOIN product ON product.id = hit.owner ORDER BY best.score DESC"
    )
    return [_hit(row) for row in rows.execute(query, (match, *values, limit))]


def _listed(rows: sqlite3.Connection, condition: str, values: Sequence[str | int], limit: int) -> list[Hit]:
    query = (
        "SELECT hit.kind, hit.owner, hit.name, hit.field, product.name, hit.says, hit.class, hit.personal, 0.0 "  # noqa: S608 - our own conditions
        f"FROM hit JOIN product ON product.id = hit.owner WHERE 1{condition} "
        "ORDER BY hit.kind <> 'product', hit.owner, hit.name, hit.id LIMIT ?"
    )
    return [_hit(row) for row in rows.execute(query, (*values, limit))]


def _hit(row: tuple[str, str, str, str, str, str, str, int, float]) -> Hit:
    kind, product, name, field, title, says, classification, personal, score = row
    return Hit(kind, product, name, field, title, says, classification, bool(personal), round(score, 3))
