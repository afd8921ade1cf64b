"""The wire: whatever bytes come, a message is decoded or refused; texts, numbers and statements survive the way."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import BoucleError
from boucle.outlet import wire
from boucle.outlet.columns import numeric, values_of
from boucle.outlet.commands import command
from boucle.outlet.dialect import Names, parameters_cast, rewrite, split, without_any, words
from boucle.outlet.endpoint import SqlEndpoint
from boucle.outlet.flight_messages import pack, unpack
from boucle.outlet.parameters import parameter
from boucle.outlet.pgtype import TYPES
from boucle.outlet.scram import Exchange, make_verifier, read_verifier
from boucle.outlet.settings import startup_settings
from tests.outlet.served import connected, endpoint, make_lake

NAMES = Names(frozenset({"pg_class"}), frozenset({"format_type"}), frozenset({"tables"}), "home", "inform")
GOOD = [
    ("Q", b"select 1\0"),
    ("P", b"name\0select $1\0" + struct.pack(">HI", 1, 23)),
    ("B", b"\0name\0" + struct.pack(">HHHi", 1, 1, 1, 4) + b"\0\0\0\1" + struct.pack(">HH", 1, 1)),
    ("D", b"Sname\0"),
    ("E", b"\0" + struct.pack(">i", 10)),
    ("C", b"P\0"),
    ("S", b""),
    ("p", b"anything"),
]


@contextmanager
def perhaps_refused() -> Iterator[None]:
    """Within: it works, or it is refused in our own words."""
    try:
        yield
    except BoucleError as error:
        if not error.code.startswith("B8"):
            raise


@given(st.characters(max_codepoint=255), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(kind: str, data: bytes) -> None:
    with perhaps_refused():
        wire.decode(kind, data)


@given(st.sampled_from(GOOD), st.data())
def test_broken_messages_are_refused(good: tuple[str, bytes], data: st.DataObject) -> None:
    kind, body = good
    wire.decode(kind, body)
    broken = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        if broken:
            broken[data.draw(st.integers(0, len(broken) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    for candidate in (bytes(broken), cut, bytes(broken) + b"x"):
        with perhaps_refused():
            wire.decode(kind, candidate)


@given(st.binary(max_size=100))
def test_any_first_message_is_one_or_refused(data: bytes) -> None:
    with perhaps_refused():
        wire.decode_startup(data)


@given(st.binary(max_size=64), st.sampled_from([*sorted(TYPES), 99_999]), st.booleans())
def test_any_parameter_is_a_value_or_refused(data: bytes, oid: int, binary: bool) -> None:
    with perhaps_refused():
        parameter(data, oid, binary)


@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=5),
        min_size=1,
    )
)
def test_numerics_are_what_they_were_in_both_ways_of_writing(numbers: list[Decimal]) -> None:
    told = values_of(pa.array(numbers, pa.decimal128(18, 5)), "DECIMAL(18,5)", True)
    for index, number in enumerate(numbers):
        start = int(told.starts[index])
        raw = told.data[start : start + int(told.lengths[index])].tobytes()
        assert Decimal(parameter(raw, 1700, True)) == number
        assert Decimal(parameter(numeric(number), 1700, True)) == number


@given(st.text(alphabet="'\"$;-/*aB1 .:()\n_é\\", max_size=40))
def test_any_text_is_cut_without_losing_a_character(text: str) -> None:
    for statement in split(text):
        assert statement in text
    assert "".join(parameters_cast(text, {})) == text
    rewrite(text, NAMES, "ana")
    without_any(text)
    if words(text):
        with perhaps_refused():
            command(text)


def test_texts_and_comments_are_left_alone() -> None:
    assert split("select ';' ; -- ;\n select $$a;b$$ /* ; */; ; select $q$;$q$") == [
        "select ';'", "-- ;\n select $$a;b$$ /* ; */", "select $q$;$q$",
    ]  # fmt: skip
    assert (
        rewrite("select 'pg_class', \"pg_catalog\", /* pg_class */ x -- pg_class", NAMES, "ana").count("home")
        == 0
    )
    assert rewrite("select c.oid::regclass, 'a'::regclass from pg_catalog.pg_class c", NAMES, "ana") == (
        "select home.regclass_out(c.oid), home.regclass_in('a') from home.pg_class c"
    )
    assert rewrite("select cast(cast(f(x) as regclass) as oid), current_user", NAMES, "o'ana") == (
        "select cast(home.regclass_out(f(x)  ) as uinteger), 'o''ana'"
    )
    assert rewrite(
        "select '{a,b}'::name[] from t where a operator(pg_catalog.~) 'x' collate pg_catalog.default",
        NAMES,
        "",
    ) == ("select '[a,b]'::varchar[] from t where a  ~  'x'  ")


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_bytes_are_scram_or_not(first: bytes, last: bytes) -> None:
    exchange = Exchange(make_verifier("secret", 1))
    try:
        exchange.first(first)
        assert exchange.last(last) is None
    except (ValueError, KeyError):
        pass


def test_scram_as_in_rfc_7677() -> None:
    stored, server = (
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    )
    text = f"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${stored}:{server}"
    exchange = Exchange(read_verifier(text), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    first = exchange.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert first == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    proof = exchange.last(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert proof == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert read_verifier(text).accepts("pencil")
    for broken in ("", "md5abc", text[:-3], text.replace("4096", "0"), text.replace("$W", "$!")):
        with pytest.raises(BoucleError, match="B840"):
            read_verifier(broken)


@given(st.text(max_size=60))
def test_any_options_are_settings_or_none(text: str) -> None:
    startup_settings({"options": text})


@given(st.binary(max_size=80))
def test_any_bytes_are_flight_sql_or_refused(data: bytes) -> None:
    with perhaps_refused():
        unpack(data)
    name, fields = unpack(pack("CommandStatementQuery", {1: data}))
    assert (name, fields) == ("CommandStatementQuery", {1: [data]})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlEndpoint]:
    with endpoint(make_lake(tmp_path_factory.mktemp("lake"))) as running:
        yield running


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([bytes([ord(k)]) + struct.pack(">I", len(b) + 4) + b for k, b in GOOD]),
        ),
        max_size=6,
    )
)
def test_no_bytes_end_the_server(served: SqlEndpoint, parts: list[bytes]) -> None:
    hello = struct.pack(">I", 196608) + b"user\0ana\0database\0boucle\0\0"
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.settimeout(10)
        raw.sendall(struct.pack(">I", len(hello) + 4) + hello + b"".join(parts))
        raw.shutdown(socket.SHUT_WR)
        try:
            while raw.recv(65_536):
                pass
        except ConnectionResetError:
            pass
    with connected(served) as client:
        assert client.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "head",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x08\xff\xff\xff\xff"],
)
def test_huge_and_tiny_lengths_are_refused_at_once(served: SqlEndpoint, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as raw:
        raw.settimeout(10)
        raw.sendall(head + b"x" * 64)
        assert b"B830" in raw.recv(65_536)
