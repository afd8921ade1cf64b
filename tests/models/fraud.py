"""A small product to train in: card payments of a few cards, with their labels."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.house.tree import ROOT

FRAUD = ROOT / "examples" / "fraud"
CUT = 1_790_000_000 * 10**9


def fraud_product(folder: Path, *changed: tuple[str, str], cards: int = 30) -> Path:
    """The example with a smaller month of payments; `changed` replaces words of its product.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("product.yaml", "boucle.toml"):
        shutil.copy(FRAUD / name, folder)
    text = (folder / "product.yaml").read_text(encoding="utf-8")
    text = text.replace("n_estimators: 100", "n_estimators: 10").replace(
        "trials: 6, seconds: 30", "trials: 2"
    )
    for before, after in changed:
        assert before in text
        text = text.replace(before, after)
    (folder / "product.yaml").write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("generate", FRAUD / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    features, labels = generate.generate(cards, 60, 7)
    (folder / "data").mkdir(exist_ok=True)
    pq.write_table(features, folder / "data" / "card_features.parquet")
    pq.write_table(labels, folder / "data" / "labels.parquet")
    return folder
