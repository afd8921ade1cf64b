"""The build hook: verified, repeatable, and clear when the network says no."""

import base64
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import build_web
import pytest

LOCK = Path(build_web.__file__).parent / "package-lock.json"


def tarball(package: str) -> bytes:
    """A package with the files that are taken from it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for asset in build_web.ASSETS:
            if asset.package == package:
                content = f"{package} {asset.inside}".encode()
                member = tarfile.TarInfo(f"package/{asset.inside}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


class Registry(http.server.BaseHTTPRequestHandler):
    """An npm registry with two packages, that counts what it was asked for."""

    packages: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        content = self.packages.get(self.path.split("/")[1])
        self.send_response(200 if content else 404)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout whose lock file pins what a local registry serves."""
    Registry.packages = {"htmx.org": tarball("htmx.org"), "uplot": tarball("uplot")}
    Registry.asked = []
    packages = {
        f"node_modules/{name}": {
            "version": "9.9.9",
            "integrity": "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode(),
        }
        for name, content in Registry.packages.items()
    }
    (tmp_path / "package-lock.json").write_text(json.dumps({"packages": packages}))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield tmp_path
    server.shutdown()
    server.server_close()
    thread.join()


class Hook(build_web.CustomBuildHook):
    """The hook as hatchling would make it, with what it says kept."""

    target_name = "wheel"
    root = ""
    app: "Hook"

    def __init__(self, root: Path, target: str = "wheel") -> None:
        self.root, self.target_name, self.app = str(root), target, self
        self.warned: list[str] = []

    def display_warning(self, text: str) -> None:
        self.warned.append(text)

    def abort(self, text: str) -> None:
        raise SystemExit(text)


def test_brought_once_verified_with_licences(root: Path) -> None:
    assert build_web.bring(root)
    vendor = root / build_web.VENDOR
    assert (vendor / "htmx.min.js").read_bytes() == b"htmx.org dist/htmx.min.js"
    assert (vendor / "uPlot.LICENSE").is_file()
    assert Registry.asked == ["/htmx.org/-/htmx.org-9.9.9.tgz", "/uplot/-/uplot-9.9.9.tgz"]
    assert not build_web.bring(root)
    assert len(Registry.asked) == 2


def test_an_altered_file_or_a_new_pin_is_brought_again(root: Path) -> None:
    build_web.bring(root)
    (root / build_web.VENDOR / "uPlot.min.css").write_text("other")
    assert build_web.missing(root)
    assert build_web.bring(root)
    lock = root / "package-lock.json"
    lock.write_text(lock.read_text().replace("9.9.9", "9.9.10"))
    assert build_web.missing(root)


def test_another_tarball_than_the_pinned_one_is_refused_and_nothing_is_written(root: Path) -> None:
    Registry.packages["uplot"] = tarball("htmx.org")
    with pytest.raises(build_web.AssetsUnavailable, match=r"package-lock\.json pins"):
        build_web.bring(root)
    assert not (root / build_web.VENDOR).exists()


def test_no_registry_says_what_why_and_fix(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/")
    with pytest.raises(build_web.AssetsUnavailable) as caught:
        build_web.bring(root)
    said = str(caught.value)
    assert said.startswith("B805 ")
    assert "why: " in said
    assert "make assets" in said


def test_a_wheel_needs_them_an_editable_install_and_a_willing_builder_do_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry.packages = {}
    with pytest.raises(SystemExit, match="B805"):
        Hook(root).initialize("standard", {})
    editable = Hook(root)
    editable.initialize("editable", {})
    assert "make assets" in editable.warned[0]
    monkeypatch.setenv("BOUCLE_WITHOUT_ASSETS", "1")
    willing = Hook(root)
    willing.initialize("standard", {})
    assert willing.warned
    source = Hook(root, "sdist")
    source.initialize("standard", {})
    assert not source.warned


def test_the_lock_file_pins_only_these_two_and_names_no_registry() -> None:
    text = LOCK.read_text()
    packages = json.loads(text)["packages"]
    assert sorted(packages) == ["", "node_modules/htmx.org", "node_modules/uplot"]
    assert "resolved" not in text
    assert all(packages[name]["integrity"].startswith("sha512-") for name in packages if name)
