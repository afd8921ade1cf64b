"""A registry in a folder: versions, roles, signatures, and what is refused."""

import base64
import json
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.cli.main import main
from boucle.errors import BoucleError
from boucle.models.folder import FolderRegistry
from boucle.models.registry import Reference, Registry, open_model
from boucle.models.signing import Keys
from tests.models.tiny import tiny


@pytest.fixture
def registry(tmp_path: Path) -> FolderRegistry:
    made = Registry.at(tmp_path / "registry")
    assert isinstance(made, FolderRegistry)
    return made


def refused(code: str) -> "pytest.RaisesExc[BoucleError]":
    return pytest.RaisesExc(BoucleError, check=lambda error: error.code == code)


def test_a_version_is_loaded_as_it_was_added(registry: FolderRegistry) -> None:
    one = registry.add(tiny(), by="ada", note="first", files={"record.json": b"{}"})
    two = registry.add(tiny(3))
    assert (one.number, two.number, registry.names()) == (1, 2, ["tiny"])
    assert registry.load("tiny/1") == tiny()
    assert registry.load("models:tiny/2") == tiny(3)
    assert registry.files("tiny/1")["record.json"] == b"{}"
    assert registry.versions("tiny")[0].by == "ada"
    assert all(found.key for found in registry.versions("tiny"))


def test_the_same_content_lies_once(registry: FolderRegistry) -> None:
    assert registry.add(tiny()).object == registry.add(tiny()).object
    assert len(list((registry.folder / "objects").iterdir())) == 1


def test_roles_move_and_are_remembered(registry: FolderRegistry) -> None:
    for width in (2, 3, 4):
        registry.add(tiny(width))
    registry.promote("tiny", 1, by="ada", why="the first")
    registry.promote("tiny", 2, "challenger")
    assert registry.load("tiny@challenger") == tiny(3)
    after = registry.promote("tiny", 2, evidence={"auc": 0.9})
    assert after.roles == {"champion": 2, "previous": 1}
    assert (after.generation, len(after.history)) == (3, 3)
    assert after.history[-1].evidence == {"auc": 0.9}
    back = registry.rollback("tiny", by="eve", why="too slow")
    assert back.roles == {"champion": 1, "previous": 2}
    assert registry.load("tiny") == tiny()
    assert (back.history[-1].verb, back.history[-1].by) == ("rollback", "eve")


def test_another_process_sees_the_new_generation(registry: FolderRegistry) -> None:
    other = FolderRegistry(registry.folder)
    assert other.generation("tiny") == 0
    registry.add(tiny())
    for expected in (1, 2, 3):
        registry.promote("tiny", 1)
        assert other.generation("tiny") == expected


def test_what_does_not_exist_is_told_with_what_does(registry: FolderRegistry) -> None:
    registry.add(tiny())
    with refused("B619") as caught:
        registry.load("huge@champion")
    assert "tiny" in caught.value.why
    for missing in ("tiny@champion", "tiny/7"):
        with refused("B619"):
            registry.load(missing)
    with refused("B619"):
        registry.promote("tiny", 9)
    with refused("B623"):
        registry.rollback("tiny")
    with refused("B619"):
        registry.rollback("huge")


def test_a_changed_model_is_refused(registry: FolderRegistry) -> None:
    version = registry.add(tiny(), files={"card.md": b"# card"})
    folder = registry.folder / "objects" / version.object
    (folder / "card.md").write_bytes(b"# better card")
    assert registry.load("tiny/1") == tiny()
    with refused("B622"):
        registry.files("tiny/1")
    tiny(3).save(folder)  # model and manifest agree with each other, but are not what was signed
    with refused("B622"):
        registry.load("tiny/1")
    sums = folder / "SHA256SUMS"
    sums.write_text(sums.read_text().replace("card", "kard"))
    with refused("B622"):
        registry.load("tiny/1")


def test_a_version_of_another_key_is_refused_unless_allowed(registry: FolderRegistry, tmp_path: Path) -> None:
    stranger = FolderRegistry(registry.folder, keys=tmp_path / "elsewhere")
    stranger.add(tiny())
    with refused("B614"):
        registry.load("tiny/1")
    lax = Registry.at(registry.folder, unsigned="allow")
    assert lax.load("tiny/1") == tiny()
    assert lax.versions("tiny")[0].key == ""


def test_a_version_that_was_changed_or_moved_is_refused(registry: FolderRegistry) -> None:
    registry.add(tiny())
    file = registry.folder / "tiny" / "versions" / "1.json"
    other = file.with_name("2.json")
    other.write_bytes(file.read_bytes())
    with refused("B615"):
        registry.load("tiny/2")
    other.unlink()
    told = json.loads(file.read_text())
    told["signatures"][0]["sig"] = "AAAA" + told["signatures"][0]["sig"][4:]
    file.write_text(json.dumps(told))
    with refused("B615"):
        Registry.at(registry.folder, unsigned="allow").load("tiny/1")


def test_the_private_key_is_its_owners_only(registry: FolderRegistry) -> None:
    registry.add(tiny())
    assert stat.S_IMODE((registry.keys.folder / "signing.pem").stat().st_mode) == 0o600
    (registry.keys.folder / "trusted" / "x.pem").write_text("no key")
    with refused("B616"):
        registry.load("tiny/1")


def test_old_versions_are_forgotten_but_not_those_with_a_role(registry: FolderRegistry) -> None:
    for width in (2, 3, 4, 5):
        registry.add(tiny(width))
    registry.promote("tiny", 1)
    assert registry.keep("tiny", 1) == [2, 3]
    assert [one.number for one in registry.versions("tiny")] == [1, 4]
    assert len([*(registry.folder / "objects").iterdir()]) == 2
    assert registry.add(tiny(6)).number == 5


def test_a_product_names_a_model_of_its_registry(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "registry")
    registry.add(tiny())
    registry.promote("tiny", 1)
    assert open_model("models:tiny@champion", tmp_path) == tiny()
    tiny(3).save(tmp_path / "models" / "tiny")
    assert open_model("models/tiny", tmp_path) == tiny(3)
    (tmp_path / "boucle.toml").write_text('[models]\nunsigned = "maybe"\n')
    with refused("B618"):
        open_model("models:tiny@champion", tmp_path)
    with refused("B618"):
        Registry.at("ftp://somewhere")


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        meant = Reference.parse(text)
    except BoucleError:
        return
    assert Reference.parse(str(meant)) == meant
    assert "/" not in meant.name


@given(st.binary(max_size=200))
def test_any_bytes_are_a_version_or_refused(told: bytes) -> None:
    with pytest.raises(BoucleError):
        Keys(Path("nowhere")).open(told, "here")


def test_roles_are_signed_and_refused_when_they_were_changed(registry: FolderRegistry) -> None:
    for width in (2, 3):
        registry.add(tiny(width))
    registry.promote("tiny", 1)
    file = registry.folder / "tiny" / "roles.json"
    sound = file.read_bytes()
    told = json.loads(sound)
    payload = base64.b64decode(told["payload"])
    swapped = payload.replace(b'"champion":1', b'"champion":2')
    assert swapped != payload
    told["payload"] = base64.b64encode(swapped).decode()
    file.write_text(json.dumps(told))
    with refused("B615") as caught:
        registry.load("tiny@champion")
    assert "roles.json" in caught.value.where
    with refused("B615"):  # nor is anything built on it
        registry.promote("tiny", 2)
    with refused("B615"):  # not even where unsigned is allowed
        FolderRegistry(registry.folder, unsigned="allow").roles("tiny")
    file.write_bytes(sound)
    assert registry.load("tiny@champion") == tiny()


def test_roles_of_another_model_or_another_paper_are_refused(registry: FolderRegistry) -> None:
    registry.add(tiny())
    registry.promote("tiny", 1)
    other = registry.folder / "other"
    other.mkdir()
    (other / "roles.json").write_bytes((registry.folder / "tiny" / "roles.json").read_bytes())
    with refused("B647"):
        registry.roles("other")
    # A version is signed by the same key, and is no roles for all that.
    (other / "roles.json").write_bytes((registry.folder / "tiny" / "versions" / "1.json").read_bytes())
    with refused("B615"):
        registry.roles("other")


def test_roles_of_a_key_we_do_not_trust_are_refused(registry: FolderRegistry, tmp_path: Path) -> None:
    registry.add(tiny())
    FolderRegistry(registry.folder, unsigned="allow", keys=tmp_path / "elsewhere").promote("tiny", 1)
    with refused("B614"):
        registry.roles("tiny")
    assert FolderRegistry(registry.folder, unsigned="allow").roles("tiny").roles == {"champion": 1}


def test_roles_from_before_they_were_signed_are_explained_and_can_be_signed(
    registry: FolderRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add(tiny())
    file = registry.folder / "tiny" / "roles.json"
    file.write_text('{"generation": 3, "roles": {"champion": 1}, "history": []}')
    with refused("B646") as caught:
        registry.roles("tiny")
    assert "boucle models sign tiny" in caught.value.fix
    assert FolderRegistry(registry.folder, unsigned="allow").roles("tiny").generation == 3
    there = ["models", "sign", "tiny", "--product", str(tmp_path)]
    assert main(there) == 1
    assert "champion: version 1" in capsys.readouterr().out
    with refused("B646"):
        registry.roles("tiny")
    assert main([*there, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] is True
    roles = registry.roles("tiny")
    assert (roles.generation, roles.roles, roles.history[-1].verb) == (4, {"champion": 1}, "sign")
    file.write_text("[]")
    with refused("B621"):
        registry.unverified_roles("tiny")


@given(st.binary(max_size=200))
def test_any_bytes_are_roles_or_refused(told: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = FolderRegistry(Path(folder) / "registry", unsigned="allow")
        (registry.folder / "tiny").mkdir(parents=True)
        (registry.folder / "tiny" / "roles.json").write_bytes(told)
        with pytest.raises(BoucleError):
            registry.roles("tiny")


@pytest.mark.parametrize("name", ["../up", "", "a/b", ".hidden", "x" * 101])
def test_a_name_never_leaves_the_registry(registry: FolderRegistry, name: str) -> None:
    with refused("B617"):
        registry.versions(name)
    with refused("B620"):
        registry.add(tiny(), files={"../x": b""})
