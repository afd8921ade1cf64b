"""A model that is not the one of its manifest is never scored."""

from pathlib import Path

import pyarrow as pa
import pytest

from boucle.errors import BoucleError
from boucle.models.file import ModelFile
from tests.models.tiny import tiny


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    tiny().save(tmp_path / "m")
    loaded = ModelFile.load(tmp_path / "m")
    assert loaded == tiny()
    assert loaded.manifest.signature() == pa.schema([("a", pa.float64()), ("b", pa.int64())])
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["manifest.json", "model.onnx"]


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    file = tmp_path / "model.onnx"
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    with pytest.raises(BoucleError, match=r"B611 .*SHA-256.*Fix: restore"):
        ModelFile.load(tmp_path)


def test_no_model_says_where(tmp_path: Path) -> None:
    with pytest.raises(BoucleError, match=r"B610 .*nowhere"):
        ModelFile.load(tmp_path / "nowhere")


@pytest.mark.parametrize("told", ["{", "{}", '{"name": 1}'])
def test_a_broken_manifest_is_refused(tmp_path: Path, told: str) -> None:
    tiny().save(tmp_path)
    (tmp_path / "manifest.json").write_text(told)
    with pytest.raises(BoucleError, match="B610"):
        ModelFile.load(tmp_path)


def test_an_unknown_column_type_is_refused(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"int64"', '"integer-ish"'))
    with pytest.raises(BoucleError, match="integer-ish"):
        ModelFile.load(tmp_path)
