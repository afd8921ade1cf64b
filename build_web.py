"""Bring the pinned browser libraries into `src/boucle/web/static/vendor/`, verified, without npm.

`package-lock.json` says which versions and their sha512; the tarballs come from the registry in
NPM_CONFIG_REGISTRY (or registry.npmjs.org) through plain urllib, so a fresh Debian with Python is
enough. hatchling calls this for wheels and editable installs; `python build_web.py` does it alone.
Present and right (the stamp agrees with the lock file): nothing is fetched.
"""

import base64
import hashlib
import io
import json
import os
import ssl
import sys
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # `python build_web.py` needs nothing but Python
    BuildHookInterface = object

__all__ = ["ASSETS", "AssetsUnavailable", "CustomBuildHook", "bring", "main", "missing"]

ROOT = Path(__file__).resolve().parent
VENDOR = Path("src/boucle/web/static/vendor")
STAMP = "stamp.json"
REGISTRY = "https://registry.npmjs.org/"
LARGEST = 20_000_000
TIMEOUT_S = 30


class Asset(NamedTuple):
    """One file taken out of one package: `package/<inside>` becomes `vendor/<name>`."""

    package: str
    inside: str
    name: str


ASSETS = (
    Asset("htmx.org", "dist/htmx.min.js", "htmx.min.js"),
    Asset("htmx.org", "LICENSE", "htmx.LICENSE"),
    Asset("uplot", "dist/uPlot.iife.min.js", "uPlot.iife.min.js"),
    Asset("uplot", "dist/uPlot.min.css", "uPlot.min.css"),
    Asset("uplot", "LICENSE", "uPlot.LICENSE"),
)


class AssetsUnavailable(Exception):
    """The browser libraries could not be brought in: what, why and how to fix it."""


def pins(root: Path) -> dict[str, tuple[str, str]]:
    """Package → (version, integrity), as `package-lock.json` pins them."""
    locked = json.loads((root / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    return {
        package: (
            locked[f"node_modules/{package}"]["version"],
            locked[f"node_modules/{package}"]["integrity"],
        )
        for package in sorted({asset.package for asset in ASSETS})
    }


def missing(root: Path = ROOT) -> bool:
    """Whether anything is absent, altered, or of another version than the lock file's."""
    vendor = root / VENDOR
    try:
        stamp = json.loads((vendor / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    if stamp.get("pins") != {package: list(pin) for package, pin in pins(root).items()}:
        return True
    files = stamp.get("files", {})
    return any(
        not (vendor / asset.name).is_file()
        or files.get(asset.name) != digest((vendor / asset.name).read_bytes())
        for asset in ASSETS
    )


def digest(content: bytes) -> str:
    """sha256, as the stamp keeps it."""
    return hashlib.sha256(content).hexdigest()


def bring(root: Path = ROOT) -> bool:
    """Fetch, verify and unpack what is missing; True when something was written.

    Raises AssetsUnavailable when the registry cannot be reached or a tarball is not the pinned one;
    the vendor folder is then left as it was.
    """
    if not missing(root):
        return False
    pinned = pins(root)
    tarballs = {package: fetch(package, *pin) for package, pin in pinned.items()}
    contents = {asset.name: extract(tarballs[asset.package], asset) for asset in ASSETS}
    vendor = root / VENDOR
    vendor.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (vendor / name).write_bytes(content)
    stamp = {"pins": pinned, "files": {name: digest(content) for name, content in contents.items()}}
    (vendor / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    return True


def registry() -> str:
    """The registry the environment names, else the public one; always with a final slash."""
    named = os.environ.get("NPM_CONFIG_REGISTRY")
    named = named or os.environ.get("npm_config_registry")  # noqa: SIM112 - npm's own spelling
    named = named or REGISTRY
    return named.rstrip("/") + "/"


def trust() -> ssl.SSLContext:
    """The system's certificates, and the private ones a company names in the usual variables."""
    context = ssl.create_default_context()
    for variable in ("NODE_EXTRA_CA_CERTS", "npm_config_cafile", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        bundle = os.environ.get(variable, "")
        if bundle and Path(bundle).is_file():
            context.load_verify_locations(cafile=bundle)
    return context


def fetch(package: str, version: str, integrity: str) -> bytes:
    """The tarball of one package, proven to be the pinned one."""
    url = f"{registry()}{package}/-/{package.rpartition('/')[2]}-{version}.tgz"
    if not url.startswith(("https://", "http://")):
        raise AssetsUnavailable(sentence(url, "the registry address is not http or https"))
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S, context=trust()) as answer:
            content = bytes(answer.read(LARGEST + 1))
    except (urllib.error.URLError, OSError) as error:
        raise AssetsUnavailable(sentence(url, str(getattr(error, "reason", error)))) from error
    algorithm, _, expected = integrity.partition("-")
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if algorithm != "sha512" or found != expected:
        why = f"its sha512 is {found[:16]}…, package-lock.json pins {expected[:16]}…"
        raise AssetsUnavailable(sentence(url, why))
    return content


def extract(tarball: bytes, asset: Asset) -> bytes:
    """One file of a verified tarball."""
    with tarfile.open(fileobj=io.BytesIO(tarball), mode="r:gz") as archive:
        try:
            member = archive.extractfile(f"package/{asset.inside}")
        except KeyError:
            member = None
        if member is None:
            raise AssetsUnavailable(sentence(asset.package, f"the tarball has no file {asset.inside}"))
        return member.read()


def sentence(what: str, why: str) -> str:
    """What, why, fix: the same three lines wherever this fails."""
    return (
        f"B805 the page's browser libraries could not be brought in: {what}\n"
        f"    why: {why}\n"
        "    fix: check the network, or set NPM_CONFIG_REGISTRY to a mirror (HTTPS_PROXY and SSL_CERT_FILE "
        "are honoured), then run `make assets`; BOUCLE_WITHOUT_ASSETS=1 builds without charts"
    )


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """Fetch the pinned browser libraries before a wheel or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """A wheel without them is refused (unless BOUCLE_WITHOUT_ASSETS=1); an editable install is not."""
        if self.target_name == "sdist":
            return
        try:
            bring(Path(self.root))
        except AssetsUnavailable as error:
            if version == "editable" or os.environ.get("BOUCLE_WITHOUT_ASSETS") == "1":
                self.app.display_warning(str(error))
            else:
                self.app.abort(str(error))


def main() -> int:
    """Bring the libraries in, say what was done; 1 when that was not possible."""
    try:
        fresh = bring()
    except AssetsUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    names = ", ".join(f"{package} {version}" for package, (version, _) in pins(ROOT).items())
    print(f"{names}: {'brought into' if fresh else 'already in'} {VENDOR}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
