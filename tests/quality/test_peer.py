"""datacontract-cli reads a contract of ours and counts the same, where its environment is there."""

from pathlib import Path

import pytest
from bench.contract_check import by_contract, by_hand, generate, peer
from bench.peers import Unusable


def test_by_hand_and_by_contract_count_the_same(tmp_path: Path) -> None:
    generate(20_000, tmp_path)
    counts = by_contract(tmp_path)
    assert counts == by_hand(tmp_path)
    assert min(counts["null"], counts["pattern"], counts["country"], counts["price"]) > 0


@pytest.mark.real
@pytest.mark.parametrize("name", ["datacontract", "greatexpectations"])
def test_a_peer_counts_the_same(tmp_path: Path, name: str) -> None:
    generate(400_000, tmp_path)
    try:
        told = peer(name, tmp_path, make=False)
    except Unusable as why:
        pytest.skip(f"{name}: {why}; python -m bench.contract_check makes it")
    assert told["counts"] == by_contract(tmp_path)
