"""DNS messages, as far as a forwarder needs to understand them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from spriggan.pilot.inner import router

_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
OPCODE, RCODE = 0x7800, 0x000F
NOERROR, FORMERR, SERVFAIL, NOTIMP, REFUSED = 0, 1, 2, 4, 5
_A, _AAAA, _OPT, IXFR, AXFR, _ANY = 1, 28, 41, 251, 252, 255
IN = 1
_HEADER = struct.Struct("!HHHHHH")
_PLAIN_UDP = 512  # what a client takes that says nothing else
_LOCAL_TTL = 60


class Malformed(ValueError):
    """Not a DNS message that can be answered."""


@dataclass(frozen=True)
class Query:
    """One question, as far as a forwarder needs to understand it."""

    id: int
    flags: int
    question: bytes  # as it was asked: name, type, class
    name: bytes  # lower case, in labels
    type: int
    cls: int
    udp_size: int  # the biggest answer that the client takes over UDP


def parse_query(message: bytes) -> Query:
    """Understand a client's message. Raises ``Malformed``."""
    if len(message) < _HEADER.size:
        raise Malformed("shorter than a header")
    ident, flags, questions, _, _, additional = _HEADER.unpack_from(message)
    if flags & _QR:
        raise Malformed("an answer, not a query")
    if questions != 1:
        raise Malformed(f"{questions} questions")
    name, end = _name(message, _HEADER.size)
    if len(message) < end + 4:
        raise Malformed("the question is cut off")
    kind, cls = struct.unpack_from("!HH", message, end)
    end += 4
    size = _PLAIN_UDP
    # In a query the OPT record (EDNS) follows at once: root name, type, size in place of the class.
    if additional and message[end : end + 3] == struct.pack("!BH", 0, _OPT) and len(message) >= end + 5:
        size = max(size, int.from_bytes(message[end + 3 : end + 5]))
    return Query(ident, flags, message[_HEADER.size : end], name, kind, cls, size)


def is_answer(message: bytes, ident: int, query: Query) -> bool:
    """Whether ``message`` answers ``query``, which was sent with ``ident``."""
    if len(message) < _HEADER.size:
        return False
    got, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if got != ident or not flags & _QR or flags & OPCODE:
        return False
    if questions == 0:  # some servers refuse without repeating the question
        return bool(flags & RCODE) and not answers
    if questions != 1:
        return False
    try:
        name, end = _name(message, _HEADER.size)
    except Malformed:
        return False
    return name == query.name and message[end : end + 4] == struct.pack("!HH", query.type, query.cls)


def fitted(answer: bytes, query: Query, limit: int) -> bytes:
    """The answer under the client's id; cut down to "ask again over TCP" if above ``limit``."""
    if len(answer) <= limit:
        return query.id.to_bytes(2) + answer[2:]
    flags = int.from_bytes(answer[2:4]) | _TC
    return _HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.question


def addresses(message: bytes) -> list[tuple[IPv4Address | IPv6Address, int]]:
    """The addresses in the answer ``message``, each with the seconds it may be kept. Raises ``Malformed``."""
    return [
        (ip_address(data), ttl)
        for kind, cls, ttl, data in _answers(message)
        if cls == IN and (kind, len(data)) in ((_A, 4), (_AAAA, 16))
    ]


def text(name: bytes) -> str:
    """A name in labels as people write it; what is no ASCII, or a dot within a label, is escaped."""
    parts = []
    position = 0
    while name[position]:
        label = name[position + 1 : position + 1 + name[position]]
        parts.append("".join(chr(b) if 32 < b < 127 and b not in b".\\" else f"\\{b:03}" for b in label))
        position += 1 + name[position]
    return ".".join(parts)


def failure(query: Query, code: int) -> bytes:
    """An answer that carries nothing but ``code``."""
    flags = _QR | _RA | (query.flags & (OPCODE | _RD)) | code
    return _HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.question


def own_name_answer(query: Query) -> bytes:
    """The answer to a question for the sprite's own host name."""
    records = []
    for kind, address in ((_A, router.INNER4), (_AAAA, router.INNER6)):
        if query.type in (kind, _ANY):
            data = ip_address(address).packed
            # 0xC00C points to the name in the question.
            records.append(struct.pack("!HHHIH", 0xC00C, kind, IN, _LOCAL_TTL, len(data)) + data)
    flags = _QR | _AA | _RA | (query.flags & _RD)
    header = _HEADER.pack(query.id, flags, 1, len(records), 0, 0)
    return header + query.question + b"".join(records)


def labels(host_name: str) -> bytes:
    """``host_name`` as it stands in a message, in lower case."""
    parts = [part.encode("idna") if not part.isascii() else part.encode() for part in host_name.split(".")]
    return b"".join(bytes([len(part)]) + part for part in parts if part).lower() + b"\0"


def _name(message: bytes, start: int) -> tuple[bytes, int]:
    """The name at ``start`` in lower case, and where it ends. A question has no compression."""
    position = start
    while True:
        if position >= len(message):
            raise Malformed("the name is cut off")
        length = message[position]
        if length > 63:
            raise Malformed("a compressed name in a question")
        position += 1 + length
        if position - start > 255:
            raise Malformed("the name is too long")
        if length == 0:
            return message[start:position].lower(), position


def _answers(message: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, class, time to live and data of each record in the answer section."""
    if len(message) < _HEADER.size:
        raise Malformed("shorter than a header")
    _, _, questions, answers, _, _ = _HEADER.unpack_from(message)
    position = _HEADER.size
    for _ in range(questions):
        position = _after_name(message, position) + 4
    for _ in range(answers):
        position = _after_name(message, position)
        if len(message) < position + 10:
            raise Malformed("a record is cut off")
        kind, cls, ttl, length = struct.unpack_from("!HHIH", message, position)
        position += 10 + length
        if len(message) < position:
            raise Malformed("a record's data is cut off")
        yield kind, cls, ttl, message[position - length : position]


def _after_name(message: bytes, position: int) -> int:
    """Where the name at ``position``, compressed or not, ends."""
    while position < len(message):
        length = message[position]
        if length >= 0xC0:
            return position + 2
        if length > 63:
            raise Malformed("a label of an unknown kind")
        position += 1 + length
        if length == 0:
            return position
    raise Malformed("the name is cut off")


def complaint(message: bytes) -> bytes | None:
    """FORMERR for a query that cannot be read; nothing for what is not even a query."""
    if len(message) < _HEADER.size or message[2] & 0x80:
        return None
    ident, flags = struct.unpack_from("!HH", message)
    return _HEADER.pack(ident, _QR | _RA | (flags & (OPCODE | _RD)) | FORMERR, 0, 0, 0, 0)
