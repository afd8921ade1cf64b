"""A contract held against 10 million rows of 20 columns, beside DuckDB by hand and two contract tools.

The job: not null, unique, ranges, a pattern, allowed values, a foreign key, freshness, duplicates of two columns, over
one Parquet file of orders and one of customers. Everybody runs in a process of its own and says its counts, which must
be the same. `boucle` is the whole-table check; its peer is SQL as an engineer writes it for this file: one pass, and
one grouping for each uniqueness. `block` is the incremental check of 10 000 rows by the same rules (2 million rows
went before). A quick run has a million rows and makes no environments.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from bench.figures import ROOT, Figure, figure, options, percentile, publish
from bench.peers import Unusable, environment
from boucle.cli.quality import contract_rules
from boucle.quality.relation import file_relation
from boucle.quality.state import TableState
from boucle.quality.table_check import check_table

BLOCK = 10_000
CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: orders
name: Orders
version: 1.0.0
status: active
servers:
  - {{server: files, type: local, path: "{folder}/{{model}}.parquet", format: parquet}}
schema:
  - name: orders
    physicalType: file
    properties:
      - {{name: order_id, logicalType: integer, required: true, unique: true}}
      - {{name: customer_id, logicalType: integer, relationships: [{{to: customers.customer_id}}]}}
      - {{name: sku, logicalType: string, logicalTypeOptions: {{pattern: "^SKU-[0-9]{{6}}$"}}}}
      - name: country
        logicalType: string
        quality: [{{metric: invalidValues, arguments: {{validValues: [FR, DE, ES, IT, BE]}}, mustBe: 0}}]
      - name: currency
        logicalType: string
        quality: [{{metric: invalidValues, arguments: {{validValues: [EUR, USD, GBP]}}, mustBe: 0}}]
      - name: status
        logicalType: string
        quality: [{{metric: invalidValues, arguments: {{validValues: [open, paid, shipped, closed]}}, mustBe: 0}}]
      - {{name: quantity, logicalType: integer, logicalTypeOptions: {{maximum: 98}}}}
      - {{name: price, logicalType: number, logicalTypeOptions: {{maximum: 999}}}}
      - {{name: email, logicalType: string, required: true}}
      - {{name: created, logicalType: timestamp}}
      - {{name: basket, logicalType: integer}}
      - {{name: line, logicalType: integer}}
      - {{name: weight, logicalType: number, logicalTypeOptions: {{minimum: 0}}}}
      - {{name: volume, logicalType: number}}
      - {{name: priority, logicalType: integer}}
      - {{name: express, logicalType: boolean}}
      - {{name: longitude, logicalType: number, logicalTypeOptions: {{minimum: -180}}}}
      - {{name: latitude, logicalType: number, logicalTypeOptions: {{maximum: 90}}}}
      - {{name: discount, logicalType: integer}}
      - {{name: note, logicalType: string}}
    quality:
      - {{metric: duplicateValues, mustBe: 0, arguments: {{properties: [basket, line]}}}}
{fresh}  - name: customers
    physicalType: file
    properties:
      - {{name: customer_id, logicalType: integer}}
{sla}"""
_FRESH = "      - {type: custom, engine: boucle, implementation: {check: freshness, column: created, within: 36500d}}\n"
_SLA = "slaProperties:\n  - {property: freshness, value: 36500, unit: d, element: orders.created}\n"
COUNTS = ("null", "unique", "pattern", "country", "quantity", "price", "foreign", "duplicate")
"""What everybody who checks it must count alike."""


def _quiet() -> Any:
    """DuckDB without its progress bar, which goes to standard output."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    return connection


def generate(rows: int, folder: Path) -> None:
    """Orders with faults in known places: the same at every run."""
    orders = f"""
        SELECT CASE WHEN i % 100000 = 7 THEN i - 1 ELSE i END AS order_id,
          CAST(hash(i) % 100000 AS INTEGER) AS customer_id,
          'SKU-' || lpad(CAST(hash(i + 1) % 50000 AS VARCHAR), 6 - (i % 50000 = 3)::INTEGER, '0') AS sku,
          ['FR', 'DE', 'ES', 'IT', 'BE', 'NL'][
            CASE WHEN i % 10000 = 9 THEN 6 ELSE 1 + CAST(hash(i + 2) % 5 AS INTEGER) END] AS country,
          ['EUR', 'USD', 'GBP'][1 + CAST(hash(i + 3) % 3 AS INTEGER)] AS currency,
          ['open', 'paid', 'shipped', 'closed'][1 + CAST(hash(i + 4) % 4 AS INTEGER)] AS status,
          CAST(1 + hash(i + 5) % 99 AS INTEGER) AS quantity, (hash(i + 6) % 100000) / 100.0::DOUBLE AS price,
          CASE WHEN hash(i + 7) % 1000 > 0 THEN 'user' || (hash(i + 7) % 1000000) || '@a.example' END AS email,
          TIMESTAMPTZ '2026-01-01' + INTERVAL 1 SECOND * i AS created,
          CASE WHEN i % 200000 = 5 THEN i // 4 - 1 ELSE i // 4 END AS basket, CAST(i % 4 AS INTEGER) AS line,
          (hash(i + 8) % 1000) / 10.0::DOUBLE AS weight, (hash(i + 9) % 500) / 10.0::DOUBLE AS volume,
          CAST(hash(i + 10) % 5 AS SMALLINT) AS priority, hash(i + 11) % 2 = 0 AS express,
          (hash(i + 12) % 36000) / 100.0::DOUBLE - 180 AS longitude,
          (hash(i + 13) % 18000) / 100.0::DOUBLE - 90 AS latitude,
          CAST(hash(i + 14) % 100 AS INTEGER) AS discount, 'note ' || (hash(i + 15) % 1000) AS note
        FROM range({rows}) t(i)"""
    with _quiet() as made:
        made.execute(f"COPY ({orders}) TO '{folder}/orders.parquet' (FORMAT parquet)")
        customers = "SELECT CAST(i AS INTEGER) AS customer_id FROM range(99990) t(i)"
        made.execute(f"COPY ({customers}) TO '{folder}/customers.parquet' (FORMAT parquet)")
    (folder / "ours.yaml").write_text(CONTRACT.format(folder=folder, fresh=_FRESH, sla=""), encoding="utf-8")
    (folder / "theirs.yaml").write_text(CONTRACT.format(folder=folder, fresh="", sla=_SLA), encoding="utf-8")


def by_hand(folder: Path) -> dict[str, int]:
    """What a good engineer writes for this file."""
    orders = f"'{folder}/orders.parquet'"
    with _quiet() as asked:
        row = asked.execute(f"""
            SELECT count(*) FILTER (WHERE order_id IS NULL) + count(*) FILTER (WHERE email IS NULL),
              count(*) FILTER (WHERE NOT regexp_matches(sku, '^SKU-[0-9]{{6}}$')),
              count(*) FILTER (WHERE country NOT IN ('FR', 'DE', 'ES', 'IT', 'BE')),
              count(*) FILTER (WHERE currency NOT IN ('EUR', 'USD', 'GBP')),
              count(*) FILTER (WHERE status NOT IN ('open', 'paid', 'shipped', 'closed')),
              count(*) FILTER (WHERE quantity > 98), count(*) FILTER (WHERE price > 999),
              count(*) FILTER (WHERE weight < 0), count(*) FILTER (WHERE longitude < -180),
              count(*) FILTER (WHERE latitude > 90),
              count(*) FILTER (WHERE o.customer_id IS NOT NULL AND c.customer_id IS NULL), max(created)
            FROM {orders} o LEFT JOIN '{folder}/customers.parquet' c ON o.customer_id = c.customer_id
            """).fetchall()[0]
        unique = asked.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {orders} GROUP BY order_id HAVING count(*) > 1)"
        ).fetchall()[0][0]
        duplicate = asked.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {orders} GROUP BY basket, line HAVING count(*) > 1)"
        ).fetchall()[0][0]
    return {"null": row[0], "unique": unique, "pattern": row[1], "country": row[2], "quantity": row[5],
            "price": row[6], "foreign": row[10], "duplicate": duplicate}  # fmt: skip


def by_contract(folder: Path) -> dict[str, int]:
    """The same by `boucle quality`'s own check, contract read included."""
    rules = contract_rules(folder / "ours.yaml")["orders"]
    report = check_table(
        "orders", rules, file_relation(folder / "orders.parquet"), now=time.time_ns(), show=0,
        others={"customers": file_relation(folder / "customers.parquet")},
    )  # fmt: skip
    assert all(one.state != "unknown" for one in report.outcomes), report.outcomes
    failed = {one.rule: one.failed for one in report.outcomes}
    return {
        "null": failed["order_id.required"] + failed["email.required"], "unique": failed["order_id.unique"],
        "pattern": failed["sku.pattern"], "country": failed["country.invalidValues"],
        "quantity": failed["quantity.range"], "price": failed["price.range"],
        "foreign": failed["customer_id.foreignKey"], "duplicate": failed["basket+line.duplicateValues"],
    }  # fmt: skip


def alone(job: Callable[[Path], dict[str, int]], folder: Path) -> dict[str, Any]:
    """A job in a process of its own: seconds, peak memory in MB, counts."""
    code = (
        "import json, resource, sys, time; from pathlib import Path\n"
        f"from bench.contract_check import {job.__name__} as job\n"
        "begun = time.perf_counter(); counts = job(Path(sys.argv[1])); took = time.perf_counter() - begun\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps({'seconds': took, 'peak_mb': peak, 'counts': counts}))"
    )
    return _run([sys.executable, "-c", code, str(folder)])


def peer(name: str, folder: Path, *, make: bool) -> dict[str, Any]:
    """A peer in its environment; Unusable when there is none."""
    python = environment(name, make=make)
    return _run([str(python), str(ROOT / "bench" / "peers" / name / "check.py"), str(folder)])


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise Unusable(lines[-1] if lines else f"exit code {done.returncode}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def blocks(folder: Path, count: int) -> list[float]:
    """Milliseconds of each Block of 10 000 rows, every rule counted in."""
    state = TableState(contract_rules(folder / "ours.yaml")["orders"], folder / "state")
    took = []
    for batch in pq.ParquetFile(folder / "orders.parquet").iter_batches(BLOCK):
        begun = time.perf_counter()
        state.update(batch)
        took.append(1000 * (time.perf_counter() - begun))
        if len(took) == count:
            break
    return took[len(took) // 2 :]


def measure(folder: Path, *, quick: bool) -> list[Figure]:
    repeat = 2 if quick else 3
    hand = min((alone(by_hand, folder) for _ in range(repeat)), key=lambda one: float(one["seconds"]))
    ours = min((alone(by_contract, folder) for _ in range(repeat)), key=lambda one: float(one["seconds"]))
    assert ours["counts"] == hand["counts"], (ours["counts"], hand["counts"])
    figures = [
        figure("boucle", ours["seconds"], "s", peer="DuckDB by hand", peer_value=hand["seconds"]),
        figure("over_duckdb_by_hand", ours["seconds"] / hand["seconds"], "×", goal="<= 1.2"),
        figure(
            "peak_mb",
            ours["peak_mb"],
            "MB",
            goal="<= 1000",
            peer="DuckDB by hand",
            peer_value=hand["peak_mb"],
        ),
    ]
    for name, goal in (("datacontract", ">= 3"), ("greatexpectations", ">= 8")):
        try:
            its = peer(name, folder, make=not quick)
        except Unusable as why:
            print(f"{name}: {why}", file=sys.stderr)
            continue
        differ = {
            key: (count, ours["counts"][key])
            for key, count in its["counts"].items()
            if count != ours["counts"][key]
        }
        print(f"{name}: {len(its['counts'])} counts, differing: {differ or 'none'}", file=sys.stderr)
        assert not differ, differ
        figures.append(figure(f"faster_than_{name}", its["seconds"] / ours["seconds"], "×", goal=goal))
        figures.append(figure(f"{name}_seconds", its["seconds"], "s"))
        figures.append(figure(f"{name}_peak_mb", its["peak_mb"], "MB"))
    took = blocks(folder, 100 if quick else 400)
    figures.append(figure("block_p50_ms", percentile(took, 0.5), "ms", goal="<= 5"))
    figures.append(figure("block_p99_ms", percentile(took, 0.99), "ms"))
    return figures


def main() -> None:
    asked = options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        generate(1_000_000 if asked.quick else 10_000_000, Path(folder))
        publish(measure(Path(folder), quick=asked.quick), asked)


if __name__ == "__main__":
    main()
