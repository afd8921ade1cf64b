"""Search and lineage over a catalogue of 1 000 products and 50 000 columns: time to answer, to build, to renew.

The products are made for it: chains of ten, each reading the one before by its contract, with a step of sliding
features, one of expressions, a table, some SQL, and descriptions in English or French. `search_ms` are queries of one
to three words, some misspelt, some in the other language, some with filters; beside them stands a LIKE scan over the
same texts in the same SQLite file, which forgives nothing. `impact_ms` starts at columns of the first product of a
chain; beside it networkx's `descendants` over the same links, already in memory, and a recursive query in DuckDB.

`search_right_*` say how many of the first ten hits are about the noun that was meant, when it is asked for by its
French word, misspelt (two letters swapped), or in the plural. Beside: FTS5 as it comes (`unicode61`, BM25), and latent
semantic analysis (TF-IDF of words and letters, SVD of 100) over the same texts. The made words are of the kind that the
rings of `boucle.catalog.words` were written for: it is a test of the machinery, not of a stranger's vocabulary.
"""

import random
import sqlite3
import tempfile
import time
from pathlib import Path

import duckdb
import networkx as nx  # type: ignore[import-untyped]

from bench.figures import Figure, figure, options, percentile, publish
from boucle.catalog.graph import Node
from boucle.catalog.index import Index
from boucle.catalog.questions import ask
from boucle.catalog.search import read_query, search
from boucle.loop.columns import trace_product

CHAIN = 10
NOUNS = (
    ("temperature", "température"), ("pressure", "pression"), ("speed", "vitesse"), ("amount", "montant"),
    ("customer", "client"), ("order", "commande"), ("delivery", "livraison"), ("energy", "énergie"),
    ("invoice", "facture"), ("sensor", "capteur"), ("vibration", "vibration"), ("stock", "stock"),
    ("supplier", "fournisseur"), ("salary", "salaire"), ("quality", "qualité"), ("health", "santé"),
    ("risk", "risque"), ("budget", "budget"), ("card", "carte"), ("machine", "machine"), ("oil", "huile"),
    ("voltage", "tension"), ("flow", "débit"), ("batch", "lot"), ("country", "pays"), ("phone", "téléphone"),
)  # fmt: skip
ENDS = ("mean", "max", "min", "total", "rate", "count", "level", "code", "name", "date", "score", "ratio")
QUERIES = (
    "temperature", "température moyenne", "customer phone", "client téléphone", "vibraton machine", "fournisser",
    "energy total kind:column", "salaire pii:yes", "invoice delivery", "owner:team7 order", "risk score domain:domain3",
    "huile pression", "card amount rate", "budgte", "quality", "capteur vitesse max", "health score", "stock batch",
)  # fmt: skip


def columns(rng: random.Random, number: int) -> list[tuple[str, str, str]]:
    """Name, description and class of some columns."""
    found: dict[str, tuple[str, str, str]] = {}
    while len(found) < number:
        (en, fr), end = rng.choice(NOUNS), rng.choice(ENDS)
        (other, autre) = rng.choice(NOUNS)
        name = f"{en}_{end}" if rng.random() < 0.7 else f"{en}_{other}_{end}"
        says = f"{end} of the {en} per {other}" if rng.random() < 0.5 else f"{end} de {fr} par {autre}"
        found[name] = (name, says, "confidential" if en in ("phone", "salary", "customer") else "")
    return list(found.values())


def product(root: Path, place: int, rng: random.Random, width: int) -> None:
    """One product of a chain: its folder with product.yaml and SQL."""
    name, before = f"product-{place:04}", f"product-{place - 1:04}"
    own = columns(random.Random(place // CHAIN), width)  # a chain hands its columns on
    first = place % CHAIN == 0
    (en, fr) = rng.choice(NOUNS)
    properties = "\n".join(
        f'      - {{name: {one}, logicalType: number, description: "{says}"'
        + (f", classification: {kind}" if kind else "")
        + "}"
        for one, says, kind in own
    )
    head = "\n".join(
        f"      - {{name: {one}, logicalType: {kind}}}"
        for one, kind in (("at", "timestamp"), ("key", "string"))
    )
    port = (
        ""
        if first
        else f"inputPorts: [{{name: facts_{place - 1:04}, version: 1.0.0, contractId: {before}}}]\n"
    )
    source = f"memory:{name}" if first else f"mqtt://broker/{before}"
    stream = "readings" if first else f"facts_{place - 1:04}"
    schema = f"  - name: {stream}\n    physicalType: topic\n    properties:\n{head}\n{properties}\n"
    features = f"{own[0][0]}_day: {{of: sum({own[0][0]}), by: key, over: 24h}}"
    text = f"""kind: DataProduct
apiVersion: v1.0.0
id: {name}
name: {en} of line {place % 37}
status: active
domain: domain{place % 9}
tags: [{en}, tag{place % 11}]
description: {{purpose: "Le {fr} de la ligne {place % 37}, par heure."}}
{port}outputPorts: [{{name: facts_{place:04}, version: 1.0.0, contractId: {name}}}]
team: {{name: team{place % 20}}}
---
kind: DataContract
apiVersion: v3.1.0
id: {name}
version: 1.0.0
status: active
schema:
{schema}---
kind: Loop
apiVersion: boucle/v1
id: loop-{name}
product: {name}
contract: {name}
sources:
  {stream}: {{from: "{source}", schema: {stream}}}
steps:
  - {{id: day, use: "boucle.stream.sliding:Sliding", from: [{stream}], with: {{features: {{{features}}}}}}}
  - id: scaled
    use: boucle.stream.rows:Map
    from: [day]
    with: {{columns: {{{own[1][0]}: "{own[1][0]} * 2 + {own[2][0]}"}}}}
tables:
  facts_{place:04}: {{from: scaled, zone: gold}}
"""
    folder = root / f"domain{place % 9}" / name
    (folder / "sql").mkdir(parents=True)
    (folder / "product.yaml").write_text(text, encoding="utf-8")
    query = (
        f"select key, sum({own[0][0]}) as total, max({own[3][0]}) as top from facts_{place:04} group by key"
    )
    (folder / "sql" / f"per_key_{place:04}.sql").write_text(query, encoding="utf-8")


def timed(index: Index, nodes: list[Node], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each search, LIKE scan, impact, and of the peers' walks, in turns."""
    took: dict[str, list[float]] = {"search": [], "like": [], "impact": [], "networkx": [], "duckdb": []}
    rows = index.rows
    links = rows.execute("SELECT source, target FROM link").fetchall()
    wide = rows.execute(
        "SELECT w.id, c.id FROM node w JOIN node c ON c.product = w.product AND c.name = w.name AND c.kind = w.kind "
        "WHERE w.field = '' AND c.field <> ''"
    ).fetchall()
    graph = nx.DiGraph([*links, *wide])
    with duckdb.connect(":memory:") as duck:
        duck.execute("CREATE TABLE link(source INTEGER, target INTEGER)")
        duck.execute("SET threads = 2")
        for first in range(0, len(links) + len(wide), 50_000):
            some = [*links, *wide][first : first + 50_000]
            sources, targets = (list(side) for side in zip(*some, strict=True))
            duck.execute("INSERT INTO link SELECT unnest(?), unnest(?)", [sources, targets])
        walk = (
            "WITH RECURSIVE reached(id) AS (SELECT ? UNION SELECT link.target FROM link JOIN reached ON "
            "link.source = reached.id) SELECT count(*) FROM reached"
        )
        for number in range(rounds):
            asked = QUERIES[number % len(QUERIES)]
            took["search"].append(_milliseconds(lambda asked=asked: search(index, read_query(asked))))
            words = [one for one in asked.split() if ":" not in one]
            like = " AND ".join("(h.field || h.name || h.says LIKE ?)" for _ in words)
            query = f"SELECT h.id FROM hit h WHERE {like} LIMIT 30"
            values = [f"%{one}%" for one in words]
            took["like"].append(_milliseconds(lambda q=query, v=values: rows.execute(q, v).fetchall()))
            node = nodes[number % len(nodes)]
            took["impact"].append(_milliseconds(lambda node=node: ask(index, node, "impact")))
            query = "SELECT id FROM node WHERE product = ? AND name = ? AND kind = ? AND field = ?"
            start = rows.execute(query, (node.product, node.name, node.kind, node.column)).fetchone()[0]
            took["networkx"].append(_milliseconds(lambda start=start: nx.descendants(graph, start)))
            took["duckdb"].append(_milliseconds(lambda start=start: duck.execute(walk, [start]).fetchall()))
    return took


def asked_nouns() -> dict[str, list[tuple[str, str]]]:
    """Way of asking → (query, the English noun that is meant)."""
    plain = [(en, fr) for en, fr in NOUNS if en != fr]
    return {
        "french": [(fr, en) for en, fr in plain],
        "misspelt": [(en[:2] + en[3] + en[2] + en[4:], en) for en, _ in NOUNS if len(en) > 5],
        "plural": [(f"{en}s", en) for en, _ in NOUNS],
    }


def relevance(index: Index) -> list[Figure]:
    """Right hits among the first ten, here, in FTS5 as it comes, and in an LSA space."""
    import numpy as np
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    texts = [
        (f"{field} {says}".replace("_", " "), field)
        for field, says in index.rows.execute("SELECT DISTINCT field, says FROM hit WHERE kind = 'column'")
    ]
    with sqlite3.connect(":memory:") as plain:
        plain.execute(
            "CREATE VIRTUAL TABLE w USING fts5(t, field UNINDEXED, tokenize = 'unicode61 remove_diacritics 2')"
        )
        plain.executemany("INSERT INTO w VALUES (?, ?)", texts)
        letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2)
        weighed = make_union(TfidfVectorizer(strip_accents="unicode"), letters)
        matrix = weighed.fit_transform([text for text, _ in texts])
        space = TruncatedSVD(100, random_state=4).fit(matrix)
        placed = space.transform(matrix)
        placed /= np.linalg.norm(placed, axis=1, keepdims=True) + 1e-12
        told = []
        for way, asked in asked_nouns().items():
            right = {"here": 0, "FTS5 as it comes": 0, "LSA": 0}
            for query, meant in asked:
                # A column of the noun, or one that is told to be per noun.
                about = {meant, dict(NOUNS)[meant]}
                hits = search(index, read_query(f"{query} kind:column")).hits[:10]
                right["here"] += sum(
                    bool(about & set(f"{h.column} {h.says}".replace("_", " ").split())) for h in hits
                )
                rows = plain.execute(
                    "SELECT t FROM w WHERE w MATCH ? ORDER BY rank LIMIT 10", (f'"{query}"',)
                )
                right["FTS5 as it comes"] += sum(bool(about & set(text.split())) for (text,) in rows)
                vector = space.transform(weighed.transform([query]))[0]
                best = np.argsort(-(placed @ vector))[:10]
                right["LSA"] += sum(bool(about & set(texts[place][0].split())) for place in best)
            share = {name: count / (10 * len(asked)) for name, count in right.items()}
            told += [
                figure(
                    f"search_right_{way}", share["here"], "of 1", peer=peer, peer_value=share[peer] or None
                )
                for peer in ("FTS5 as it comes", "LSA")
            ]
    plain.close()
    return told


def _milliseconds(work: object) -> float:
    begun = time.perf_counter()
    work()  # type: ignore[operator]
    return 1000 * (time.perf_counter() - begun)


def figures(number: int, width: int, rounds: int, root: Path) -> list[Figure]:
    """Everything that is measured, on one made catalogue."""
    rng = random.Random(4)
    for place in range(number):
        product(root / "products", place, rng, width)
    index = Index(root / "products", root / "catalogue.sqlite")
    begun = time.perf_counter()
    index.refresh(trace_product)
    built = time.perf_counter() - begun
    counted = index.counts()
    begun = time.perf_counter()
    index.refresh(trace_product)
    looked = time.perf_counter() - begun
    (root / "products" / "domain0" / "product-0000" / "product.yaml").open("a").write("# changed\n")
    begun = time.perf_counter()
    index.refresh(trace_product)
    renewed = time.perf_counter() - begun
    nodes = [
        Node("table", *row)
        for row in index.rows.execute(
            "SELECT product, name, field FROM node WHERE kind = 'table' AND field <> '' AND name LIKE 'facts_%0'"
        )
    ]
    rng.shuffle(nodes)
    widest = max((len(ask(index, node, "impact").reached) for node in nodes[:50]), default=0)
    took = timed(index, nodes, rounds)
    goals = {"search": "<= 50", "impact": "<= 100"}
    peers = {"search": ("LIKE scan", "like"), "impact": ("DuckDB recursive query", "duckdb")}
    told = [
        figure(
            f"{name}_ms_{share}", percentile(took[name], part), "ms", goal=goals[name],
            peer=peers[name][0], peer_value=percentile(took[peers[name][1]], part),
        )
        for name in goals
        for share, part in (("p50", 0.5), ("p99", 0.99))
    ]  # fmt: skip
    told.append(
        figure(
            "impact_against_networkx_ms_p50", percentile(took["impact"], 0.5), "ms", peer="networkx in memory",
            peer_value=percentile(took["networkx"], 0.5),
        )
    )  # fmt: skip
    told += [
        figure("impact_widest", widest, "nodes"),
        figure("catalog_products", counted["products"], ""),
        figure("catalog_columns", counted["columns"], ""),
        figure("catalog_links", counted["links"], ""),
        figure("catalog_build_s", built, "s"),
        figure("catalog_unchanged_ms", 1000 * looked, "ms"),
        figure("catalog_one_changed_ms", 1000 * renewed, "ms"),
        figure("catalog_size", index.file.stat().st_size / 1e6, "MB"),
    ]
    told += relevance(index)
    index.close()
    return told


def main() -> None:
    asked = options(__doc__)
    number, width, rounds = (200, 25, 60) if asked.quick else (1000, 25, 400)
    with tempfile.TemporaryDirectory() as folder:
        publish(figures(number, width, rounds, Path(folder)), asked)


if __name__ == "__main__":
    main()
