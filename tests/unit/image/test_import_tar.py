"""Reading tar archives: what other programs write is understood, and what nobody should write is refused."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archives
from spriggan.errors import InvalidValue
from spriggan.image.importing.limits import Budget, Limits
from spriggan.image.importing.tar import Entry, Kind, Tar


def read(data: bytes, limits: Limits | None = None) -> list[tuple[Entry, bytes]]:
    tar = Tar(archives.Bytes(data), Budget(limits or Limits()))
    return [(entry, b"".join(tar.chunks())) for entry in tar]


def only(*entries: bytes) -> Entry:
    [(entry, _)] = read(archives.archive(*entries))
    return entry


def refused(*entries: bytes, match: str) -> None:
    with pytest.raises(InvalidValue, match=match):
        read(archives.archive(*entries))


def test_what_an_entry_says() -> None:
    entry = only(archives.file("a/b", b"content", mode=0o4755, uid=12, gid=34, mtime=56))
    assert entry == Entry(b"a/b", Kind.FILE, 0o4755, 12, 34, 56 * 10**9, 7, b"")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_the_standard_library_writes(form: int) -> None:
    names = ["a" * 90, "d/" * 60 + "x" * 60, "ünïcode"]
    if form != tarfile.USTAR_FORMAT:
        names += ["b" * 300, "c/" * 700 + "end"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 3, 1_700_000_000
            tar.addfile(info, io.BytesIO(b"abc"))
            link = tarfile.TarInfo(f"{name}.link")
            link.type, link.linkname = tarfile.SYMTYPE, name[:150] if form != tarfile.USTAR_FORMAT else "x"
            if len(name) < 95 or form != tarfile.USTAR_FORMAT:
                tar.addfile(link)
    found = {entry.name.decode(): (entry, content) for entry, content in read(buffer.getvalue())}
    for name in names:
        assert found[name][1] == b"abc"
        assert found[name][0].mtime_ns == 1_700_000_000 * 10**9


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_writes(tmp_path: Path, form: str) -> None:
    deep = "/".join(["directory"] * (12 if form in ("gnu", "oldgnu", "posix") else 6))
    (tmp_path / deep).mkdir(parents=True)
    (tmp_path / deep / "file").write_bytes(b"1" * 1000)
    (tmp_path / "link").symlink_to("directory")
    (tmp_path / "hard").hardlink_to(tmp_path / deep / "file")
    made = subprocess.run(
        ["tar", f"--format={form}", "-C", tmp_path, "-c", "."], capture_output=True, check=True
    )
    found = {entry.name.decode().rstrip("/"): (entry, content) for entry, content in read(made.stdout)}
    kinds = {name: entry.kind for name, (entry, _) in found.items()}
    assert kinds["."] is Kind.DIRECTORY
    assert kinds["./link"] is Kind.SYMLINK
    assert {kinds["./hard"], kinds[f"./{deep}/file"]} == {Kind.FILE, Kind.HARDLINK}
    assert sum(len(content) for _, content in found.values()) == 1000


def test_gnu_times_are_not_taken_for_a_part_of_the_name() -> None:
    times = b"%011o\0%011o\0" % (1_700_000_000, 1_700_000_000)
    assert only(archives.header(b"name", magic=b"ustar  \0", prefix=times)).name == b"name"
    assert only(archives.header(b"name", prefix=b"dir")).name == b"dir/name"
    star = archives.header(b"name", prefix=b"d" * 131 + times, tail=b"\0" * 8 + b"tar\0")
    assert only(star).name == b"d" * 131 + b"/name"


def test_extended_headers() -> None:
    entry = only(
        archives.pax(
            path="p" * 3000,
            size="4",
            uid="7",
            gid="8",
            mtime="12.5",
            SCHILY__xattr__user__a=b"\0\xff",
            comment="whatever",
        ),
        archives.header(b"short", size=0) + archives.padded(b"data"),
    )
    assert entry.name == b"p" * 3000
    assert (entry.size, entry.uid, entry.gid, entry.mtime_ns) == (4, 7, 8, 12_500_000_000)
    assert entry.xattrs == {"user.a": b"\0\xff"}
    link = only(archives.long(b"n" * 200), archives.long(b"t" * 200, b"K"), archives.symlink("x", "y"))
    assert (link.name, link.target) == (b"n" * 200, b"t" * 200)
    both = only(archives.long(b"gnu"), archives.pax(path="pax"), archives.file("x"))
    assert both.name == b"pax"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1.25", 1_250_000_000),
        ("0", 0),
        ("-5.5", 0),
        ("3.0000000019999999999", 3_000_000_001),
        ("99999999999999999", (2**33 - 1) * 10**9),
    ],
)
def test_times(text: str, nanoseconds: int) -> None:
    assert only(archives.pax(mtime=text), archives.file("x")).mtime_ns == nanoseconds


def test_large_and_negative_numbers() -> None:
    assert only(archives.header(b"x", uid=archives.base256(70_000, 8))).uid == 70_000
    assert only(archives.header(b"x", mtime=archives.base256(-1, 12))).mtime_ns == 0
    refused(archives.header(b"evil", uid=archives.base256(-1, 8)), match="'evil' has the uid -1")
    refused(archives.header(b"evil", size=archives.base256(-512, 12)), match="'evil' has the size -512")
    refused(archives.header(b"evil", size=archives.base256(2**80, 12)), match="larger than")


def test_what_is_no_file_has_no_content() -> None:
    """As Go's reader has it; another reading would hide entries from whoever looked at the archive before."""
    found = read(archives.archive(archives.header(b"d/", b"5", size=512), archives.file("inside")))
    assert [entry.name for entry, _ in found] == [b"d/", b"inside"]


def test_old_archives_mark_directories_by_a_slash() -> None:
    assert only(archives.header(b"old/", b"\0", magic=b"")).kind is Kind.DIRECTORY
    assert only(archives.long(b"o" * 200 + b"/"), archives.header(b"o", b"\0")).kind is Kind.DIRECTORY
    # The short name does not count where there is a long one.
    assert only(archives.long(b"o" * 200), archives.header(b"o/", b"\0")).kind is Kind.FILE


HOSTILE = {
    "two extended headers": (archives.pax(path="a"), archives.pax(path="b"), archives.file("x")),
    "two long names": (archives.long(b"a"), archives.long(b"b"), archives.file("x")),
    "two long link targets": (
        archives.long(b"a", b"K"),
        archives.long(b"b", b"K"),
        archives.symlink("x", "y"),
    ),
    "two values for 'path'": (
        archives.header(b"p", b"x", size=18) + archives.padded(b"9 path=a\n9 path=b\n"),
        archives.file("x"),
    ),
    "an extended header is the last": (archives.file("x"), archives.pax(path="a")),
    "an extended header is damaged": (
        archives.header(b"p", b"x", size=4) + archives.padded(b"abcd"),
        archives.file("x"),
    ),
    "a global header sets 'path'": (archives.pax_header({"path": "evil"}, b"g"), archives.file("x")),
    "a global header sets 'size'": (archives.pax_header({"size": "9"}, b"g"), archives.file("x")),
    "an extended header of 8589934591 bytes": (
        archives.header(b"p", b"x", size=2**33 - 1),
        archives.file("x"),
    ),
    "an extended header of -512 bytes": (archives.header(b"p", b"x", size=archives.base256(-512, 12)),),
    "an extended header of 9000 bytes": (archives.long(b"n" * 8999), archives.file("x")),
    "has a NUL byte in its name": (archives.long(b"good\0evil"), archives.file("x")),
    "'s' is a sparse file": (archives.header(b"s", b"S"),),
    "'t' is a sparse file": (
        archives.pax(GNU__sparse__major="1", GNU__sparse__realsize="9"),
        archives.file("t"),
    ),
    "'u' is of the unknown type b'M'": (archives.header(b"u", b"M"),),
    "'x' has no proper size: '-1'": (archives.pax(size="-1"), archives.file("x")),
    "'x' has no proper size: '1e9'": (archives.pax(size="1e9"), archives.file("x")),
    "'x' has no proper time: '1e9'": (archives.pax(mtime="1e9"), archives.file("x")),
    "'x' has the uid 4294967296": (archives.pax(uid=str(2**32)), archives.file("x")),
    "bad checksum": (archives.file("x")[:-512].replace(b"x", b"y", 1),),
}


@pytest.mark.parametrize("why", HOSTILE)
def test_hostile_headers(why: str) -> None:
    refused(*HOSTILE[why], match=why.replace("(", r"\("))


@pytest.mark.parametrize(
    "end", [b"\xff" * 100, b"", archives.file("y", b"12345")[:520], archives.pax(path="p")[:600]]
)
def test_an_archive_that_ends_too_early(end: bytes) -> None:
    with pytest.raises(InvalidValue, match="ends too early"):
        read(archives.file("x") + end)


def test_the_first_limit_that_is_passed_ends_it() -> None:
    many = archives.archive(*(archives.file(f"f{number}") for number in range(11)))
    read(many, Limits(entries=11))
    with pytest.raises(InvalidValue, match="more than 10 entries") as error:
        read(many, Limits(entries=10))
    assert "--max-entries" in error.value.hint
    with pytest.raises(InvalidValue, match="larger than") as error:
        read(many, Limits(bytes=5000))
    assert "--max-size" in error.value.hint
    # Before a byte of it is read: there are none.
    with pytest.raises(InvalidValue, match="larger than"):
        read(archives.header(b"huge", size=2**33 - 1), Limits(bytes=10**9))


@pytest.mark.parametrize(
    "entry",
    [
        archives.pax(SCHILY__xattr__user__x=bytes(900_000)) + archives.file("x"),
        archives.long(b"t" * 8000, b"K") + archives.symlink("x", "y"),
        archives.long(b"n" * 8000) + archives.file("x"),
    ],
)
def test_what_would_fill_memory(entry: bytes) -> None:
    class Endless:
        """The same entry again and again."""

        def __init__(self) -> None:
            self.position = 0

        def read(self, count: int) -> bytes:
            start = self.position % len(entry)
            self.position += count
            return (entry * 2)[start : start + count]

        def skip(self, count: int) -> None:
            self.position += count

    with pytest.raises(InvalidValue, match="more than 256 MiB"):
        for _ in Tar(Endless(), Budget(Limits())):
            continue


@given(st.binary(max_size=1500), st.integers(0, 2000))
def test_any_bytes_are_entries_or_refused(noise: bytes, where: int) -> None:
    good = archives.archive(
        archives.pax(path="p", size="3"), archives.file("x", b"abc"), archives.symlink("l", "t")
    )
    data = good[:where] + noise + good[where + len(noise) :]
    try:
        for entry, content in read(data):
            assert len(content) == entry.size
    except InvalidValue as error:
        assert len(error.message) < 1000


@given(
    st.dictionaries(
        st.sampled_from(
            ["path", "linkpath", "size", "mtime", "uid", "SCHILY.xattr.user.x", "GNU.sparse.map"]
        ),
        st.binary(max_size=30),
    )
)
def test_any_records_are_an_entry_or_refused(records: dict[str, bytes]) -> None:
    try:
        read(archives.archive(archives.pax_header(dict(records)), archives.file("x", bytes(1024))))
    except InvalidValue as error:
        assert len(error.message) < 1000
