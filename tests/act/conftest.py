"""The plant of each test, closed at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.act.plant import Plant


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    made = Plant(tmp_path)
    yield made
    made.close()
