"""Makes card payments, their features and their labels: nothing is taken from a real bank.

    python examples/fraud/generate.py               # two months of 120 cards, a second
    python examples/fraud/generate.py --cards 2000

A stolen card spends much, fast, at terminals it has never used; the bank hears of it days later.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
_DAY = 86_400
_BEGIN = 1_780_000_000  # seconds since 1970: 28 May 2026


def generate(cards: int, days: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Features and labels of every payment."""
    chance = np.random.default_rng(seed)
    per_card = chance.poisson(4 * days, cards)
    card = np.repeat(np.arange(cards), per_card)
    at = chance.uniform(0, days * _DAY, len(card))
    usual = np.exp(chance.normal(3.2, 0.5, cards))[card]
    amount = usual * np.exp(chance.normal(0, 0.5, len(card)))
    stolen = chance.uniform(0, days * _DAY, cards)
    hit = chance.random(cards) < 0.25
    fraud = (
        hit[card] & (at > stolen[card]) & (at < stolen[card] + 2 * _DAY) & (chance.random(len(card)) < 0.8)
    )
    amount = np.where(fraud, amount * chance.uniform(1.5, 6, len(card)), amount)
    order = np.lexsort((card, at))
    card, at, amount, fraud = (column[order] for column in (card, at, amount, fraud))
    told = at + np.where(fraud, chance.uniform(1, 5, len(at)), 7) * _DAY
    moments = (_BEGIN * 10**9 + (at * 1e9).astype(np.int64)).astype("datetime64[ns]")
    payment = pa.array([f"p{index:07d}" for index in range(len(at))])
    region = pa.array(np.array(["north", "south", "east"])[card % 3])
    features = pa.table(
        {
            "payment": payment,
            "at": pa.array(moments, pa.timestamp("us", "UTC"), safe=False),
            "amount": amount,
            **_history(card, at, amount),
        }
    )
    labels = pa.table(
        {
            "payment": payment,
            "at": features["at"],
            "known_at": pa.array(
                (_BEGIN * 10**9 + (told * 1e9).astype(np.int64)).astype("datetime64[ns]"),
                pa.timestamp("us", "UTC"),
                safe=False,
            ),
            "fraud": pa.array(fraud),
            "region": region,
        }
    )
    return features, labels


def _history(card: "np.ndarray", at: "np.ndarray", amount: "np.ndarray") -> dict[str, "np.ndarray"]:
    """Of each payment's card, before and with it: count and sum of an hour and a day, ratio to its usual amount."""
    names = ("count_1h", "count_24h", "sum_24h", "ratio")
    made = {name: np.zeros(len(at)) for name in names}
    for one in range(int(card.max()) + 1):
        rows = np.flatnonzero(card == one)
        if not len(rows):
            continue
        times, spent = at[rows], np.cumsum(amount[rows])
        here = np.arange(len(rows))
        day = np.searchsorted(times, times - _DAY, side="right")
        made["count_1h"][rows] = here + 1 - np.searchsorted(times, times - 3600, side="right")
        made["count_24h"][rows] = here + 1 - day
        made["sum_24h"][rows] = spent - np.where(day > 0, spent[day - 1], 0)
        before = np.where(here > 0, (spent - amount[rows]) / np.maximum(1, here), amount[rows])
        made["ratio"][rows] = amount[rows] / before
    return made


def main() -> None:
    """Write both files below data/."""
    parser = argparse.ArgumentParser(description="Make card payments to learn from.")
    parser.add_argument("--cards", type=int, default=120)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--to", type=Path, default=HERE / "data")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    features, labels = generate(given.cards, given.days, given.seed)
    pq.write_table(features, given.to / "card_features.parquet")
    pq.write_table(labels, given.to / "labels.parquet")
    share = np.asarray(labels["fraud"]).mean()
    sys.stdout.write(f"{len(labels)} payments, {share:.2%} of them fraud, in {given.to}\n")


if __name__ == "__main__":
    main()
