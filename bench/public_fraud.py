"""Card fraud of the Fraud Detection Handbook: `boucle train` on its simulated payments, in the handbook's table.

    python -m bench.public_fraud --data DIR     # DIR holds transactions.parquet and reference_features.parquet

The features are made by the step `boucle.stream.sliding:Sliding` from the raw payments (1, 7 and 30 days of each card
and, seven days late, of each terminal) and held against the handbook's own. Then each algorithm is trained by
`boucle train` with its defaults and nothing chosen here: a week (2018-07-25 to 31), a gap of the label's delay of seven
days, a week of test (2018-08-08 to 14). As in the handbook, payments of cards known as compromised by then (seven days
late) do not count, and a card's precision is of the 100 most suspicious cards of each day, those found on earlier days
left out. `whole` is the same test after training on all payments since 2018-05-08, which the table does not do.
"""

import contextlib
import datetime as dt
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.figures import Figure, figure, publish
from bench.judged.data import beside, options
from boucle.block import Block, Position
from boucle.cli.main import main as command
from boucle.models.onnx import OnnxModel
from boucle.models.registry import registry_of
from boucle.stream.sliding import Sliding

SOURCE = "Fraud Detection Handbook, chapter 3.4, at commit 4bf8cac"
PUBLISHED = {
    "Logistic regression": (0.871, 0.606, 0.291),
    "Decision tree, depth 2": (0.763, 0.496, 0.241),
    "Decision tree": (0.788, 0.309, 0.243),
    "Random forest": (0.867, 0.658, 0.287),
    "XGBoost": (0.862, 0.639, 0.273),
}
ALGORITHMS = ("logistic", "random_forest", "gradient_boosting", "lightgbm")
DAY = 86_400
SINCE, TRAIN, TEST, END = (
    int(dt.datetime(2018, month, day, tzinfo=dt.UTC).timestamp())
    for month, day in ((5, 8), (7, 25), (8, 8), (8, 15))
)
PRODUCT = """
apiVersion: v1.0.0
kind: DataProduct
id: handbook
name: Handbook
version: 0.1.0
status: draft
domain: evaluation
---
apiVersion: v3.1.0
kind: DataContract
id: payments
name: Payments
version: 1.0.0
status: draft
schema:
  - name: payments
    physicalType: table
    properties:
      - {{name: payment, logicalType: integer, physicalType: int64, required: true}}
      - {{name: at, logicalType: timestamp, required: true}}
---
kind: Loop
apiVersion: boucle/v1
id: handbook-loop
product: handbook
contract: payments
sources: {{}}
features:
  payments: {{from: payments.parquet, entity: [payment], columns: [{columns}]}}
models:
"""
MODEL = """
  {algorithm}:
    view: payments
    label: {{from: labels.parquet, column: fraud, delay: 7d}}
    algorithm: {algorithm}
    metric: average_precision
    split: {{test: {test}}}
"""


def features(payments: pa.Table) -> pa.Table:
    """The handbook's features of every payment, in its own names, by our step."""
    told: dict[str, dict[str, str]] = {}
    for days in (1, 7, 30):
        over, card, terminal = f"{days}d", "CUSTOMER_ID", "TERMINAL_ID"
        told[f"{card}_NB_TX_{days}DAY_WINDOW"] = {"of": "count", "by": card, "over": over}
        told[f"{card}_AVG_AMOUNT_{days}DAY_WINDOW"] = {"of": "mean(TX_AMOUNT)", "by": card, "over": over}
        late = {"by": terminal, "over": over, "delay": "7d"}
        told[f"{terminal}_NB_TX_{days}DAY_WINDOW"] = {"of": "count", **late}
        told[f"{terminal}_RISK_{days}DAY_WINDOW"] = {"of": "mean(TX_FRAUD)", **late}
    step = Sliding("features", features=told, order="arrival")
    given = []
    for batch in payments.combine_chunks().to_batches(50_000):
        block = Block("payments", batch, int(batch["at"][-1].value), Position("p", 0))
        given += [out.rows for out in step.step(block) if out.stream == "features"]
    found = pa.Table.from_batches(given)
    for days in (1, 7, 30):  # no payment seven days ago is no risk
        name = f"TERMINAL_ID_RISK_{days}DAY_WINDOW"
        found = found.set_column(
            found.schema.get_field_index(name), name, pc.fill_null(found[name], 0.0).cast(pa.float64())
        )
    day = pc.day_of_week(found["at"])
    found = found.append_column("TX_DURING_WEEKEND", pc.greater_equal(day, 5).cast(pa.float64()))
    return found.append_column("TX_DURING_NIGHT", pc.less_equal(pc.hour(found["at"]), 6).cast(pa.float64()))


def read(folder: Path) -> pa.Table:
    """Payments in the order of time, with the columns the step reads."""
    rows = pq.read_table(folder / "transactions.parquet").sort_by(
        [("TX_DATETIME", "ascending"), ("TRANSACTION_ID", "ascending")]
    )
    at = rows["TX_DATETIME"].cast(pa.timestamp("ns")).cast(pa.timestamp("ns", "UTC"))
    kinds = {
        "TRANSACTION_ID": pa.int64(),
        "CUSTOMER_ID": pa.int64(),
        "TERMINAL_ID": pa.int64(),
        "TX_AMOUNT": pa.float64(),
        "TX_FRAUD": pa.float64(),
    }
    return pa.table({"at": at, **{name: rows[name].cast(kind) for name, kind in kinds.items()}})


def difference(found: pa.Table, folder: Path) -> tuple[int, int]:
    """Payments of which a feature is another than the handbook's own, and payments compared."""
    theirs = pq.read_table(folder / "reference_features.parquet").sort_by("TRANSACTION_ID")
    ours = found.filter(pc.is_in(found["TRANSACTION_ID"], theirs["TRANSACTION_ID"])).sort_by("TRANSACTION_ID")
    assert ours["TRANSACTION_ID"].to_numpy().tolist() == theirs["TRANSACTION_ID"].to_numpy().tolist()
    names = [name for name in theirs.schema.names if name.endswith("_WINDOW") or "DURING" in name]
    apart = [np.abs(ours[name].to_numpy() - theirs[name].to_numpy()) > 1e-6 for name in names]
    return int(np.any(apart, axis=0).sum()), len(ours)


def train(found: pa.Table, since: int, algorithms: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Scores of the test week by each algorithm, trained by the command on payments since a moment."""
    seconds = pc.divide(found["at"].cast(pa.int64()), 10**9).to_numpy()
    part = found.filter(pa.array((seconds >= since) & (seconds < END)))
    tested = seconds[(seconds >= since) & (seconds < END)] >= TEST
    names = [
        "TX_AMOUNT",
        *(name for name in part.schema.names if name.endswith("_WINDOW") or "DURING" in name),
    ]
    scores = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        columns = {name: part[name] for name in names}
        pq.write_table(
            pa.table({"payment": part["TRANSACTION_ID"], "at": part["at"], **columns}),
            folder / "payments.parquet",
        )
        labels = {"payment": part["TRANSACTION_ID"], "at": part["at"], "fraud": part["TX_FRAUD"]}
        pq.write_table(pa.table(labels), folder / "labels.parquet")
        share = float(tested.mean())
        models = "".join(MODEL.format(algorithm=one, test=share) for one in algorithms)
        (folder / "product.yaml").write_text(
            PRODUCT.format(columns=", ".join(names)) + models, encoding="utf-8"
        )
        matrix = np.stack([part[name].to_numpy()[tested] for name in names], axis=1).astype(np.float32)
        for one in algorithms:
            told = io.StringIO()
            cut = dt.datetime.fromtimestamp(END + 7 * DAY, dt.UTC).isoformat()
            with contextlib.redirect_stdout(told):
                status = command(["train", one, "--product", str(folder), "--cut", cut, "--json"])
            assert status == 0, told.getvalue()
            assert json.loads(told.getvalue())["rows"]["test"] == int(tested.sum())
            scores[one] = OnnxModel(registry_of(folder).load(f"{one}/1")).run(matrix)[:, 0].astype(np.float64)
    return scores


class Judge:
    """The test week as the handbook judges it."""

    def __init__(self, payments: pa.Table) -> None:
        seconds = pc.divide(payments["at"].cast(pa.int64()), 10**9).to_numpy()
        fraud, card = payments["TX_FRAUD"].to_numpy() > 0, payments["CUSTOMER_ID"].to_numpy()
        test = seconds >= TEST
        day = (seconds[test] - TEST) // DAY
        counts = np.ones(int(test.sum()), bool)
        for number in range(7):
            # Compromised since the training week began, and known: seven days late.
            told = fraud & (seconds >= TRAIN) & (seconds < TEST - 7 * DAY + number * DAY)
            counts &= ~((day == number) & np.isin(card[test], card[told]))
        self._counts = counts
        self._fraud, self._card, self._day = fraud[test][counts], card[test][counts], day[counts]

    def of(self, scores: NDArray[np.float64]) -> tuple[float, float, float]:
        """AUC, average precision, card precision at 100."""
        score = scores[self._counts]
        found: set[int] = set()
        precisions = []
        for number in range(7):
            rows = np.flatnonzero((self._day == number) & ~np.isin(self._card, list(found)))
            best: dict[int, tuple[float, bool]] = {}
            for card, said, is_fraud in zip(
                self._card[rows].tolist(), score[rows].tolist(), self._fraud[rows].tolist(), strict=True
            ):
                before = best.get(card, (-1.0, False))
                best[card] = (max(before[0], said), before[1] or is_fraud)
            top = sorted(best, key=lambda card: -best[card][0])[:100]
            hits = [card for card in top if best[card][1]]
            found |= set(hits)
            precisions.append(len(hits) / 100)
        return (
            float(roc_auc_score(self._fraud, score)),
            float(average_precision_score(self._fraud, score)),
            float(np.mean(precisions)),
        )


def main() -> None:
    folder, asked = options(__doc__, "fraud_handbook")
    payments = read(folder)
    found = features(payments)
    apart, compared = difference(found, folder)
    judge = Judge(payments.filter(pc.less(pc.divide(payments["at"].cast(pa.int64()), 10**9), END)))
    table: dict[str, tuple[float, ...]] = dict(PUBLISHED)
    figures: list[Figure] = [
        figure("fraud_features_apart", apart, "rows"),
        figure("fraud_features_compared", compared, "rows"),
    ]
    best = PUBLISHED["Random forest"]
    trained: dict[str, Any] = train(found, TRAIN, ALGORITHMS)
    if not asked.quick:
        trained |= {"lightgbm_whole": train(found, SINCE, ("lightgbm",))["lightgbm"]}
    for name, scores in trained.items():
        told = table[f"boucle, {name}"] = judge.of(scores)
        for what, value, peer in zip(
            ("auc", "average_precision", "card_precision_100"), told, best, strict=True
        ):
            figures.append(figure(f"fraud_{name}_{what}", value, "", peer="Random forest", peer_value=peer))
    if not asked.json:
        print(
            beside(
                "Fraud Detection Handbook", SOURCE, ["AUC", "average precision", "card precision@100"], table
            )
        )
    publish(figures, asked)


if __name__ == "__main__":
    main()
