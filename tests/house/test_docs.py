"""The reference says everything there is, as it is."""

import importlib.util
import re
import tomllib
from types import ModuleType

import pytest

from boucle.address import SCHEMES
from tests.house.tree import ROOT, SOURCE, tracked

REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["errors.md", "addresses.md"])
def test_generated_pages_are_renewed(generate: ModuleType, page: str) -> None:
    written = (REFERENCE / page).read_text(encoding="utf-8")
    assert written == generate.PAGE_MAKERS[page](), (
        f"docs/reference/{page} is not up to date: run `make docs`"
    )


def test_every_error_code_is_documented() -> None:
    raised = {
        code
        for path in SOURCE.rglob("*.py")
        for code in re.findall(r'"(B\d{3})"', path.read_text(encoding="utf-8"))
    }
    documented = set(re.findall(r"^### (B\d{3})$", (REFERENCE / "errors.md").read_text(), re.MULTILINE))
    assert (sorted(raised - documented), sorted(documented - raised)) == ([], [])


def test_every_scheme_is_documented() -> None:
    page = (REFERENCE / "addresses.md").read_text(encoding="utf-8")
    missing = [scheme for schemes in SCHEMES.values() for scheme in schemes if f"| `{scheme}` |" not in page]
    assert missing == []


def test_every_dependency_says_why() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    declared = [re.split(r"[^a-z0-9-]", one)[0] for one in wanted]
    page = (ROOT / "docs" / "why" / "dependencies.md").read_text(encoding="utf-8")
    assert [name for name in declared if f"| {name} |" not in page] == []


def test_links_between_pages_lead_somewhere() -> None:
    pages = [
        path
        for path in tracked() or [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        if path.suffix == ".md"
    ]
    links = [
        (path, target)
        for path in pages
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:")
    ]
    broken = [
        f"{path.relative_to(ROOT)} -> {target}"
        for path, target in links
        if not (path.parent / target).exists()
    ]
    assert broken == []
