"""DNS messages: a query is understood or refused; what does not fit the question is not an answer."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spriggan.pilot.inner import dns, resolver
from spriggan.pilot.inner.dns import Malformed, fitted, is_answer, labels, parse_query
from spriggan.pilot.inner.resolver import Resolver

label = st.binary(min_size=1, max_size=63)
names = st.lists(label, max_size=3).map(lambda parts: b"".join(bytes([len(p)]) + p for p in parts) + b"\0")
numbers = st.integers(0, 65535)


def asked(
    name: bytes, *, ident: int = 7, kind: int = 1, flags: int = 0x0100, edns: int | None = None
) -> bytes:
    message = struct.pack("!6H", ident, flags, 1, 0, 0, edns is not None) + name + struct.pack("!HH", kind, 1)
    if edns is not None:
        message += struct.pack("!BHHIH", 0, 41, edns, 0, 0)
    return message


def answered(query: bytes, *, ident: int, flags: int = 0x8180, body: bytes = b"") -> bytes:
    return struct.pack("!2H", ident, flags) + query[4:] + body


@given(names, numbers, numbers, st.one_of(st.none(), numbers))
def test_a_query_is_understood(name: bytes, ident: int, kind: int, edns: int | None) -> None:
    query = parse_query(asked(name, ident=ident, kind=kind, edns=edns))
    assert (query.id, query.type, query.name) == (ident, kind, name.lower())
    assert query.udp_size == max(512, edns or 0)


@given(st.binary(max_size=600))
@example(struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1")
@example(struct.pack("!6H", 1, 0, 1, 0, 0, 0) + b"\x3f" * 400)
def test_any_bytes_are_either_a_query_or_malformed(message: bytes) -> None:
    try:
        query = parse_query(message)
    except Malformed:
        return
    assert query.question == message[12 : 12 + len(query.question)]
    assert len(query.name) <= 255


@given(names, st.integers(0, 400))
def test_a_cut_query_is_malformed(name: bytes, cut: int) -> None:
    message = asked(name)
    if cut < len(message):
        with pytest.raises(Malformed):
            parse_query(message[:cut])


@given(names, numbers, numbers)
def test_an_answer_must_carry_our_id(name: bytes, ident: int, other: int) -> None:
    message = asked(name)
    query = parse_query(message)
    assert is_answer(answered(message, ident=ident), ident, query)
    assert is_answer(answered(message, ident=other), ident, query) == (other == ident)


@given(names, names, numbers)
def test_an_answer_must_repeat_the_question(name: bytes, other: bytes, kind: int) -> None:
    query = parse_query(asked(name))
    fits = is_answer(answered(asked(other, kind=kind), ident=3), 3, query)
    assert fits == (name.lower() == other.lower() and kind == 1)


@given(names)
def test_a_query_is_not_an_answer(name: bytes) -> None:
    message = asked(name)
    assert not is_answer(message, 7, parse_query(message))


@given(st.binary(max_size=100), numbers)
def test_any_bytes_can_be_held_against_a_question(message: bytes, ident: int) -> None:
    is_answer(message, ident, parse_query(asked(b"\1a\0")))


@given(names, st.integers(0, 2000), st.integers(512, 1500))
def test_an_answer_never_exceeds_what_the_client_takes(name: bytes, size: int, limit: int) -> None:
    message = asked(name, ident=99)
    query = parse_query(message)
    answer = answered(message, ident=1, body=bytes(size))
    given_back = fitted(answer, query, limit)
    assert len(given_back) <= limit
    assert given_back[:2] == (99).to_bytes(2)
    truncated = bool(int.from_bytes(given_back[2:4]) & 0x0200)
    assert truncated == (len(answer) > limit)
    assert is_answer(given_back, 99, query)


@pytest.mark.parametrize(
    ("kind", "data"), [(1, bytes([10, 0, 0, 1])), (28, bytes.fromhex("0fdf" + "00" * 13 + "01"))]
)
def test_the_own_name_has_the_sprites_addresses(kind: int, data: bytes) -> None:
    query = parse_query(asked(labels("dev"), kind=kind))
    answer = dns.own_name_answer(query)
    assert is_answer(answer, 7, query)
    assert answer.endswith(data)


def test_the_own_name_has_nothing_else() -> None:
    answer = dns.own_name_answer(parse_query(asked(labels("dev"), kind=15)))
    assert struct.unpack_from("!6H", answer)[1:] == (0x8580, 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 1.1.1.1\nnameserver 127.0.0.53\noptions edns0\n", ["1.1.1.1", "127.0.0.53"]),
        ("nameserver fe80::1%eth0\n", ["fe80::1%eth0"]),
        ("# nameserver 1.1.1.1\nnameserver nonsense\nnameserver\n", ["127.0.0.1"]),
        ("".join(f"nameserver 10.0.0.{n}\n" for n in range(5)), ["10.0.0.0", "10.0.0.1", "10.0.0.2"]),
        ("", ["127.0.0.1"]),
    ],
)
def test_upstreams_are_read_as_the_c_library_does(text: str, found: list[str]) -> None:
    assert resolver.upstreams_in(text) == found


def test_a_changed_resolv_conf_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    made = Resolver(resolv_conf=file)
    assert made._current_upstreams() == ["127.0.0.1"]
    file.write_text("nameserver 1.1.1.1\nnameserver 9.9.9.9\n")
    assert made._current_upstreams() == ["1.1.1.1", "9.9.9.9"]
    made._move_back("1.1.1.1")
    assert made._current_upstreams() == ["9.9.9.9", "1.1.1.1"]
    file.unlink()
    assert made._current_upstreams() == ["9.9.9.9", "1.1.1.1"]
