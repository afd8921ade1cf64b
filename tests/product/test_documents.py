"""YAML read and written without loss, in words when it cannot be, and never at the reader's cost."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from yaml.cyaml import CBaseLoader

from boucle.errors import DeclarationError
from boucle.product.check import official_schema, shape_problems, standard_of
from boucle.product.lines import read_documents, read_text
from boucle.product.promise import contract_of, read_promise, read_promise_text
from boucle.product.writing import write_documents, write_value

STANDARDS = Path(__file__).parents[3] / "shared" / "standards"
EXAMPLES = sorted([*STANDARDS.glob("od*/examples/**/*.yaml"), *Path("examples").glob("*/product.yaml")])

beside = pytest.mark.skipif(not STANDARDS.exists(), reason="the official examples are not beside the project")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name + "/" + file.name)
def test_examples_load_validate_and_round_trip(file: Path) -> None:
    promise, problems = read_promise(file)
    assert problems == []
    assert promise.id
    content = file.read_bytes()
    read, _ = read_text(content, file.name)
    written = write_documents(read)
    again, problems = read_text(written.encode(), file.name)
    assert problems == []
    assert [one.value for one in again] == [one.value for one in read]
    assert [json.dumps(one.value) for one in again] == [json.dumps(one.value) for one in read], (
        "the order of keys too"
    )
    assert [one.spelled for one in again] == [one.spelled for one in read]
    assert write_documents(again) == written
    # A reader that takes every word as text finds the same words.
    words = [list(yaml.load_all(one, Loader=CBaseLoader)) for one in (content, written)]
    assert words[0] == words[1]


@beside
@pytest.mark.parametrize(
    ("kind", "version"), [("DataContract", "3.1.0"), ("DataContract", "3.2.0"), ("DataProduct", "1.0.0")]
)
def test_the_schemas_are_the_official_ones(kind: str, version: str) -> None:
    name = standard_of(kind, f"v{version}")[0].lower()
    official = STANDARDS / name / "schema" / f"{name}-json-schema-v{version}.json"
    assert official_schema(kind, f"v{version}") == json.loads(official.read_text(encoding="utf-8"))


def test_the_schema_is_that_of_the_version() -> None:
    text = b"{kind: DataContract, apiVersion: %s, id: a, version: 1.0.0, status: active, schema: [%s]}"
    table = b"{name: t, deprecated: true}"
    for version, sound in ((b"v3.1.0", False), (b"v3.2.0", True)):
        (document,), _ = read_text(text % (version, table), "a.yaml")
        assert (not list(shape_problems(document, "DataContract"))) is sound
    (document,), _ = read_text(text % (b"v9.0.0", table), "a.yaml")
    assert any("apiVersion" in problem.what for problem in shape_problems(document, "DataContract"))


WORDS = {
    "1.10": 1.1, "'1.10'": "1.10", "007": "007", "no": "no", "on": "on",
        "true": True, "~": None, "": None, "null": None,
    "2026-11-21": "2026-11-21", "12:30:00": "12:30:00", "1_000": "1_000", "0o17": 15, "0x1F": 31, "1e3": 1000.0,
    "+5": 5, ".5": 0.5, "-.inf": -math.inf, "1.2.3": "1.2.3", "=": "=", "<<": "<<", "0b1": "0b1",
        "9" * 5000: "9" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word[:12])
def test_words_mean_what_they_say_and_are_spelled_again(word: str) -> None:
    text = f"a: {word}\n".encode()
    (document,), problems = read_text(text, "x.yaml")
    assert problems == []
    assert document.value == {"a": WORDS[word]}
    written = write_documents([document])
    assert yaml.load(written, Loader=CBaseLoader) == yaml.load(text, Loader=CBaseLoader)


def test_a_changed_value_is_not_spelled_as_before() -> None:
    (document,), _ = read_text(b"a: 1.10\nb: 1.20\n", "x.yaml")
    document.value["a"] = 2.5
    assert write_documents([document]) == "a: 2.5\nb: 1.20\n"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
    | st.sampled_from(["no", "1e5", "0x10", "2026-01-01", "12:00", "a: b", "- a", "# x", " lead", "tail ",
        "line\nline", "\n"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(values)
def test_any_value_is_written_and_read(value: Any) -> None:
    written = write_value(value)
    documents, problems = read_text(written.encode("utf-8", "surrogatepass"), "x.yaml")
    if problems:  # control characters and surrogates are no text
        assert any(problem.code == "B202" for problem in problems)
        return
    assert [one.value for one in documents] == [value]
    # The same by the rules of YAML 1.1, as nearly everybody else reads.
    assert _same(yaml.safe_load(written), value)


def _same(read: Any, meant: Any) -> bool:
    if isinstance(meant, dict):
        return list(read) == list(meant) and all(_same(read[key], meant[key]) for key in meant)
    if isinstance(meant, list):
        return len(read) == len(meant) and all(map(_same, read, meant))
    return bool(read == meant) and (type(read) is type(meant) or isinstance(meant, float))


@given(st.binary(max_size=200) | st.text("[]{}:,-&*!|>'\"#%@`?a1 \n\t<~", max_size=60).map(str.encode))
def test_rubbish_is_told_with_its_line(content: bytes) -> None:
    documents, problems = read_text(content, "x.yaml")
    for problem in problems:
        assert problem.code in {"B202", "B240"}
        assert 1 <= problem.line <= content.count(b"\n") + content.count(b"\r") + 2
        assert problem.what
    promise, told = read_promise_text(content, "x.yaml")
    assert told, f"{documents} promises nothing"
    assert promise.file == "x.yaml"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)

BAD: dict[str, tuple[bytes, str, int, str]] = {
    "tab": (b"a:\n\tb: 1\n", "B202", 2, "no tab"),
    "twice": (b"a: 1\nb: 2\na: 3\n", "B202", 3, '"a" is given twice'),
    "key that is a list": (b"a: 1\n[b]: 2\n", "B202", 2, "cannot be a key"),
    "bomb": (BOMB.encode(), "B240", 7, "too large"),
    "deep": (b"a: " + b"[" * 100_000, "B240", 1, "nested too deeply"),
    "deep by blocks": (b"- " * 50_000, "B240", 1, "nested too deeply"),
    "deep by anchors": (b"- &a0 [x]\n" + b"".join(b"- &a%d [*a%d]\n" % (n, n - 1) for n in range(1, 200)),
        "B240", 100, "deeply"),
    "holds itself": (b"a: 1\nb: &b [*b]\n", "B202", 2, "hold itself"),
    "unknown anchor": (b"a: *b\n", "B202", 1, "nothing above"),
    "code": (b"a: !!python/object/apply:os.system [ls]\n", "B202", 1, "tag"),
    "binary": (b"\x00\x01\x02", "B202", 1, "not text"),
    "latin-1": ("a: 1\nb: caf\xe9\n".encode("latin-1"), "B202", 2, "UTF-8"),
    "unclosed": (b'a: 1\nb: "c\n', "B202", 2, "not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_yaml_is_told_where_and_why(name: str) -> None:
    content, code, line, words = BAD[name]
    _, problems = read_text(content, "x.yaml")
    (problem,) = problems
    assert (problem.code, words in f"{problem.what} {problem.why}") == (code, True), problem
    assert abs(problem.line - line) <= 1
    assert problem.fix


def test_merges_and_repeats_are_read() -> None:
    (document,), problems = read_text(
        b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, &k key]\n*k : 1\n'<<': {z: 1}\n", "x.yaml"
    )
    assert problems == []
    assert document.value == {
        "a": {"x": 1, "y": 2}, "b": {"y": 3, "x": 1}, "c": [{"x": 1, "y": 2}, "key"], "key": 1, "<<": {"z": 1},
    }  # fmt: skip


def test_an_empty_file_promises_nothing(tmp_path: Path) -> None:
    for content in ("", "# only words\n", "---\n", "- a\n"):
        file = tmp_path / "empty.odcs.yaml"
        file.write_text(content, encoding="utf-8")
        promise, problems = read_promise(file)
        assert promise.contract is None
        assert problems
    _, problems = read_documents(tmp_path)
    assert problems[0].code == "B201"


def test_numbers_where_text_is_wanted_are_put_in_quotes() -> None:
    _, problems = read_promise_text(
        b"kind: DataContract\napiVersion: v3.1.0\nid: a\nstatus: active\nversion: 1.10\n", "x"
    )
    (problem,) = problems
    assert (problem.line, problem.fix) == (5, "put it in quotes: '1.10'")


CONTRACT = """kind: DataContract
apiVersion: v3.1.0
id: orders
version: 1.0.0
status: active
schema:
- name: orders
  relationships: [{type: foreignKey, from: orders.custmer, to: customers.id}]
  quality: [{metric: duplicateValues, arguments: {properties: [id, at]}, mustBe: 0}]
  properties:
  - {name: id, logicalType: string}
  - {name: customer, logicalType: string, relationships: [{to: customers.nr}]}
  - {name: id, logicalType: string}
- name: customers
  properties: [{name: id, logicalType: string}]
slaProperties: [{property: freshness, value: 1, unit: h, element: orders.updated}]
"""


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "orders.odcs.yaml"
    file.write_text(CONTRACT, encoding="utf-8")
    with pytest.raises(DeclarationError) as caught:
        contract_of(file)
    told = {problem.line: problem for problem in caught.value.problems}
    assert {problem.code for problem in told.values()} == {"B241"}
    assert 'did you mean "customer"' in told[8].fix
    assert "no column 'at'" in told[9].what
    assert "no column 'nr'" in told[12].what
    assert "a second column 'id'" in told[13].what
    assert "no column 'updated'" in told[16].what
