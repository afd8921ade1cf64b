"""`boucle features`: a store is filled from a table, and serves what training would join."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from boucle.cli.main import main
from boucle.features import FeatureView, as_of
from tests.features.redis_server import redis_server
from tests.models.fraud import fraud_product


def test_a_table_is_served_as_training_joins_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    product = fraud_product(tmp_path / "fraud", cards=5)
    there = ["--product", str(product), "--json"]
    assert main(["features", "fill", "card_features", *there]) == 1
    assert "B698" in capsys.readouterr().out
    with redis_server(tmp_path) as server:
        (product / "boucle.toml").write_text(f'[features]\nstore = "{server.address}"\n')
        assert main(["features", "fill", "card_features", *there]) == 0
        told = json.loads(capsys.readouterr().out)
        rows = pq.read_table(product / "data" / "card_features.parquet")
        assert (told["rows"], told["keys"]) == (len(rows), len(rows))
        last = rows.sort_by("at").slice(len(rows) - 1)
        payment = last["payment"][0].as_py()
        asked = ["features", "get", "card_features", "--key", payment, "--key", "nobody"]
        assert main([*asked, "--at", "2100-01-01T00:00:00Z", *there]) == 0
        found, nobody = json.loads(capsys.readouterr().out)
        assert (found["state"], nobody["state"]) == ("stale", "missing")  # true for an hour only
        at = last["at"].cast(pa.timestamp("us"))[0].as_py().isoformat() + "Z"
        assert main([*asked, "--at", at, *there]) == 0
        found = json.loads(capsys.readouterr().out)[0]
        view = FeatureView(
            name="v", table="t", entity=("payment",), columns=("amount", "count_1h"), ttl=3_600 * 10**9
        )
        moment = last["at"].cast(pa.timestamp("ns")).cast(pa.int64())
        spine = pa.table({"payment": last["payment"], "_at": pc.add(moment, 999)})
        (joined,) = as_of(spine, [(view, rows)], 2**62).to_pylist()
        assert (found["amount"], found["count_1h"]) == (joined["amount"], joined["count_1h"])
        assert main(["features", "get", "nothing", "--key", "1", *there]) == 1
        assert "B696" in capsys.readouterr().out
