"""NEXMark's auction events (Tucker et al., "NEXMark: a benchmark for queries over data streams", 2002): of 50
events 1 person, 3 auctions and 46 bids, as in Apache Beam's generator; seeded, every event at its own time.
"""

import numpy as np
import pyarrow as pa

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
STATES = ("AZ", "CA", "ID", "OR", "WA", "WY")
CHANNELS = ("Google", "Facebook", "Baidu", "Apple", "channel-1", "channel-2")
_TIME = pa.timestamp("ns", tz="UTC")


def nexmark(size: int, seed: int = 1) -> dict[str, pa.RecordBatch]:
    """`size` events as three streams, in the order of their time: persons, auctions, bids."""
    rng = np.random.default_rng(seed)
    at = START + np.cumsum(rng.integers(1_000_000, 19_000_000, size))
    kind = np.arange(size) % 50
    person_at, auction_at, bid_at = at[kind == 0], at[(kind > 0) & (kind < 4)], at[kind >= 4]
    persons, auctions, bids = len(person_at), len(auction_at), len(bid_at)
    known_persons = np.searchsorted(person_at, auction_at)
    known_auctions = np.maximum(np.searchsorted(auction_at, bid_at), 1)
    hot = rng.random(bids) < 0.5
    auction = np.where(hot, known_auctions - 1, known_auctions - 1 - rng.integers(0, 30, bids))
    person = pa.record_batch(
        {
            "at": pa.array(person_at, _TIME),
            "id": pa.array(np.arange(persons)),
            "name": pa.array([f"Person {n % 13}" for n in range(persons)]),
            "city": pa.array([f"City {n % 7}" for n in range(persons)]),
            "state": pa.array([STATES[n] for n in rng.integers(0, len(STATES), persons)]),
        }
    )
    expires = auction_at + rng.integers(1, 20, auctions) * SECOND
    auction_rows = pa.record_batch(
        {
            "at": pa.array(auction_at, _TIME),
            "id": pa.array(np.arange(auctions)),
            "seller": pa.array(np.maximum(known_persons - 1 - rng.integers(0, 4, auctions), 0)),
            "category": pa.array(rng.integers(10, 15, auctions)),
            "expires": pa.array(expires),
        }
    )
    bid = pa.record_batch(
        {
            "at": pa.array(bid_at, _TIME),
            "auction": pa.array(np.maximum(auction, 0)),
            "bidder": pa.array(rng.integers(0, 40, bids)),
            "price": pa.array(np.round(np.exp(rng.normal(9, 3, bids))).astype(np.int64) + 1),
            "channel": pa.array([CHANNELS[n] for n in rng.integers(0, len(CHANNELS), bids)]),
            "extra": pa.array(["".join(rng.choice(list("abcd"), 12)) for _ in range(bids)]),
        }
    )
    return {"persons": person, "auctions": auction_rows, "bids": bid}
