"""Which entries come in: every way out of the root that an archive may try is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archives
from spriggan.errors import InvalidValue
from spriggan.image.importing import tree
from spriggan.image.importing.admission import Admission, Change
from spriggan.image.importing.limits import Budget, Limits
from spriggan.image.importing.tar import Tar
from spriggan.image.importing.tree import Node, Type

d, f, s, h = archives.directory, archives.file, archives.symlink, archives.hardlink


FACTS: list[dict[str, Any]] = []


def judge(*layers: list[bytes], whiteouts: bool = True) -> tuple[Node, list[Admission], list[Change]]:
    """What the layers show together, and how each was judged; ``FACTS`` has what each depends on."""
    FACTS.clear()
    root = tree.directory()
    admissions, changes = [], []
    for number, entries in enumerate(layers):
        admission = Admission(root if number else None, Budget(Limits()), whiteouts=whiteouts)
        for entry in Tar(archives.Bytes(archives.archive(*entries)), Budget(Limits())):
            change = admission.admit(entry)
            if change is not None:
                changes.append(change)
        FACTS.append(admission.facts())
        tree.merge(admission.layer, root)
        admissions.append(admission)
    return root, admissions, changes


def names(root: Node) -> dict[str, str]:
    """Everything below ``root``: its path, and what it is."""
    return {tree.text(path).decode(): node.type.value for path, node, _ in tree.walk(root, None) if path}


REFUSED: dict[str, tuple[str, list[list[bytes]]]] = {
    # Names
    "up": (r"'\.\./evil' goes up with '\.\.'", [[f("../evil")]]),
    "up in the middle": (r"'a/\.\./\.\./evil' goes up", [[d("a"), f("a/../../evil")]]),
    "up, and down again": (r"'a/\.\./b' goes up", [[d("a"), f("a/../b")]]),
    "up as a directory": (r"'\.\.' goes up", [[d("..")]]),
    "up from a slash": (r"'/\.\./evil' goes up", [[f("/../evil")]]),
    "up in an extended header": (r"'\.\./evil' goes up", [[archives.pax(path="../evil"), f("good")]]),
    "up in a long name": (r"'\.\./evil' goes up", [[archives.long(b"../evil"), f("good")]]),
    "up in a prefix": (r"'\.\./evil' goes up", [[archives.header(b"evil", prefix=b"..")]]),
    "NUL": ("has a NUL byte in its name", [[archives.pax(path=b"good\0evil"), f("x")]]),
    "line break": ("has a line break in its name", [[f("a\nb")]]),
    "no name": ("names no file", [[archives.header(b"")]]),
    "no name, a directory": ("names no file", [[archives.header(b"", b"5")]]),
    "the root as a file": ("'/' names no file", [[f("/")]]),
    "the root as a link": (r"'\.' names no file", [[s(".", "/etc")]]),
    "a file named as a directory": ("'x/' is named as a directory", [[f("x/")]]),
    "a long component": ("has a name of more than 255 bytes", [[archives.long(b"x" * 256), f("x")]]),
    "a long path": (
        "directories deep or 4095 bytes long",
        [[archives.long(b"/".join([b"x" * 200] * 21)), f("x")]],
    ),
    "a deep path": ("is more than 200 directories deep", [[archives.long(b"a/" * 200 + b"a"), f("x")]]),
    # Through links
    "through a link": (
        "would be written through the symbolic link '/out' to '/tmp'",
        [[s("out", "/tmp"), f("out/evil")]],
    ),
    "through a relative link": (
        "through the symbolic link '/a/out' to",
        [[d("a"), s("a/out", ".."), f("a/out/evil")]],
    ),
    "through a link to a directory inside": (
        "through the symbolic link '/lib'",
        [[d("usr"), s("lib", "usr"), f("lib/x")]],
    ),
    "through two links": ("through the symbolic link '/a'", [[s("a", "b"), s("b", "/tmp"), d("a/x")]]),
    "through an earlier layer's link": (
        "through the symbolic link '/out' of an earlier layer to '/tmp'",
        [[s("out", "/tmp")], [f("out/evil")]],
    ),
    "through a link two layers below": (
        "of an earlier layer",
        [[s("out", "/tmp")], [f("other")], [d("out/evil")]],
    ),
    "through a link that replaced a directory": (
        "through the symbolic link '/etc' of an earlier layer to '/'",
        [[d("etc"), f("etc/passwd")], [s("etc", "/")], [f("etc/passwd")]],
    ),
    "through a hard link to a link": (
        "through the symbolic link '/b'",
        [[s("a", "/tmp"), h("b", "a"), f("b/evil")]],
    ),
    "a deletion through a link": ("through the symbolic link '/out'", [[s("out", "/tmp")], [f("out/.wh.x")]]),
    "emptying a link": ("through the symbolic link '/out'", [[s("out", "/tmp")], [f("out/.wh..wh..opq")]]),
    "below a file": ("is below '/x', which is a file and no directory", [[f("x"), f("x/y")]]),
    "below an earlier layer's file": ("'/x' of an earlier layer, which is a file", [[f("x")], [f("x/y")]]),
    "below a device": ("'/x', which is a device node", [[archives.device("x"), f("x/y")]]),
    "below a FIFO": ("'/x', which is a FIFO", [[archives.fifo("x"), f("x/y")]]),
    # Hard links
    "a hard link up": (r"links to '\.\./\.\./etc/shadow', which goes up", [[h("x", "../../etc/shadow")]]),
    "a hard link to nothing here": (
        "links to '/etc/shadow', which is no earlier entry",
        [[h("x", "/etc/shadow")]],
    ),
    "a hard link to what comes later": ("links to 'y', which is no earlier entry", [[h("x", "y"), f("y")]]),
    "a hard link through a link": (
        "through the symbolic link '/out'",
        [[s("out", "/etc"), h("x", "out/shadow")]],
    ),
    "a hard link through an earlier layer's link": (
        "through the symbolic link '/out' of an earlier layer",
        [[s("out", "/etc")], [h("x", "out/shadow")]],
    ),
    "a hard link to an earlier layer": ("which is no earlier entry of this layer", [[f("y")], [h("x", "y")]]),
    "a hard link to a directory": ("links to 'y', which is a directory", [[d("y"), h("x", "y")]]),
    "a hard link to itself": ("'x' links to itself", [[f("x"), h("x", "./x")]]),
    "a hard link to a deletion": ("stands for a deletion", [[f("y")], [f(".wh.y"), h("x", ".wh.y")]]),
    "a hard link to what was deleted": ("is no earlier entry", [[f("y")], [f(".wh.y"), h("x", "y")]]),
    "a hard link with NUL": ("has a NUL byte", [[f("y"), archives.pax(linkpath=b"y\0"), h("x", "y")]]),
    "a hard link to the root": ("names no file", [[h("x", "/")]]),
    # Symbolic links
    "a link to nothing": ("to nothing that could be a path", [[s("x", "")]]),
    "a link with NUL": ("to nothing that could be a path", [[archives.pax(linkpath=b"a\0b"), s("x", "y")]]),
    "a link that is too long": (
        "to nothing that could be a path",
        [[archives.long(b"x" * 4096, b"K"), s("x", "y")]],
    ),
    # The same name twice in a layer
    "a directory becomes a link": (
        "symbolic link in place of a directory",
        [[d("x"), f("x/y"), s("x", "/tmp")]],
    ),
    "an implied directory becomes a link": (
        "symbolic link in place of a directory",
        [[f("x/y"), s("x", "/tmp")]],
    ),
    "a link becomes a directory": (
        "directory in place of a symbolic link",
        [[s("x", "/tmp"), d("x"), f("x/y")]],
    ),
    "a file becomes a directory": ("directory in place of a file", [[f("x"), d("x")]]),
    "a directory becomes a file": ("file in place of a directory", [[d("x"), f("x")]]),
    "a file becomes a device": ("device node in place of something else", [[f("x"), archives.device("x")]]),
    # Deletions
    "deleting up": ("stands for the deletion of '..'", [[f("x")], [d("a"), f("a/.wh...")]]),
    "deleting the directory itself": (r"stands for the deletion of '\.'", [[f("x")], [f("a/.wh..")]]),
    "deleting nothing": ("stands for the deletion of ''", [[f("x")], [f(".wh.")]]),
    "below a deletion": ("is below a name that stands for a deletion", [[f("x")], [f(".wh.a/b")]]),
    "a deletion as a directory": ("stands for a deletion, and is a directory", [[f("x")], [d(".wh.a")]]),
    # Owners
    "a large user": ("'x' belongs to user 65536", [[archives.pax(uid="65536"), f("x")]]),
    "a large group": ("'x' belongs to group 100000", [[archives.pax(gid="100000"), f("x")]]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    match, layers = REFUSED[case]
    with pytest.raises(InvalidValue, match=match) as error:
        judge(*layers)
    assert error.value.hint
    assert "\n" not in error.value.message and "\0" not in error.value.message
    assert len(error.value.message) < 600


def test_absolute_names_are_relative_to_the_root() -> None:
    root, _, changes = judge([f("/a"), f("//b//c"), f("./d/./e"), d("./")])
    assert names(root) == {"a": "file", "b": "directory", "b/c": "file", "d": "directory", "d/e": "file"}
    assert all(not name.startswith(b"/") for change in changes for name in change.path)


@pytest.mark.parametrize(
    "target", ["/etc/shadow", "../../../etc", "/proc/1/root", "a\nb", "nowhere", b"\xff"]
)
def test_targets_of_links_are_kept_as_they_are(target: str | bytes) -> None:
    root, _, _ = judge([s("x", target)])
    assert root.children[b"x"].target == (target if isinstance(target, bytes) else target.encode())


def test_directories_without_an_entry_count_as_entries() -> None:
    """Or a small archive could make a large tree."""
    deep = [archives.pax(path=f"{n}/" + "d/" * 99 + "f") + f("x") for n in range(10)]
    admission = Admission(None, Budget(Limits(entries=500)), whiteouts=True)
    with pytest.raises(InvalidValue, match="more than 500 entries"):
        for entry in Tar(archives.Bytes(archives.archive(*deep)), Budget(Limits())):
            admission.admit(entry)


def test_the_last_of_two_counts() -> None:
    root, _, changes = judge([f("x", mode=0o600), h("y", "x"), s("x", "/tmp"), f("x", mode=0o644)])
    assert (root.children[b"x"].type, root.children[b"x"].mode) == (Type.FILE, 0o644)
    assert root.children[b"y"].mode == 0o600, "the other name of the first one still means it"
    assert [change.replaces for change in changes] == [False, False, True, True]


def test_hard_links_are_one_file() -> None:
    root, _, changes = judge([f("a/x"), h("y", "./a/x"), h("z", "/y"), s("l", "t"), h("m", "l")])
    assert root.children[b"y"] is root.children[b"z"] is root.children[b"a"].children[b"x"]
    assert root.children[b"m"].type is Type.SYMLINK
    assert changes[1].source == (b"a", b"x")


def test_devices_are_dropped_and_counted() -> None:
    layer = [archives.device("c"), archives.device("b", b"4"), h("again", "c"), f("x")]
    root, [admission], changes = judge(layer)
    assert names(root) == {"x": "file"}
    assert len(changes) == 1
    assert admission.dropped.devices == 3
    assert str(admission.dropped) == "3 device nodes"


def test_a_dropped_device_does_not_uncover_what_it_replaced() -> None:
    root, _, _ = judge([f("x")], [archives.device("x")])
    assert names(root) == {}
    assert FACTS[1]["hidden"] == [b"x".hex()]


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def test_attributes() -> None:
    kept = {"SCHILY.xattr.user.a": b"1", "SCHILY.xattr.security.capability": CAPABILITY}
    dropped = {
        "SCHILY.xattr.security.selinux": b"x",
        "SCHILY.xattr.trusted.overlay.opaque": b"y",
        "SCHILY.xattr.trusted.overlay.redirect": b"/etc",
        "SCHILY.xattr.system.posix_acl_access": b"x",
        "SCHILY.xattr.user.": b"x",
        "SCHILY.xattr.user.\0evil": b"x",
    }
    root, [admission], _ = judge([archives.pax_header({**kept, **dropped}), f("x")])
    assert root.children[b"x"].xattrs == {"user.a": b"1", "security.capability": CAPABILITY}
    assert sum(admission.dropped.attributes.values()) == 6
    assert "security.selinux" in str(admission.dropped)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (CAPABILITY, CAPABILITY),
        (b"\x01\0\0\3" + CAPABILITY[4:] + bytes(4), CAPABILITY),  # of the root user of the host itself
        (b"\x01\0\0\3" + CAPABILITY[4:] + b"\xa0\x86\1\0", None),  # of another container's
        (b"\x01\0\0\1" + CAPABILITY[4:12], None),
        (b"", None),
        (bytes(20), None),
    ],
)
def test_capabilities(value: bytes, kept: bytes | None) -> None:
    root, _, _ = judge([archives.pax_header({"SCHILY.xattr.security.capability": value}), f("x")])
    assert root.children[b"x"].xattrs.get("security.capability") == kept


def test_links_and_fifos_have_no_attributes() -> None:
    given_ = archives.pax_header(
        {"SCHILY.xattr.user.a": b"1", "SCHILY.xattr.security.capability": CAPABILITY}
    )
    root, _, _ = judge([given_, s("l", "x"), given_, archives.fifo("p"), given_, d("d")])
    assert [root.children[name].xattrs for name in (b"l", b"p")] == [{}, {}]
    assert root.children[b"d"].xattrs == {"user.a": b"1"}


def test_deletions() -> None:
    base = [f("a/x"), f("a/y"), f("b/x"), s("c", "/"), f("d")]
    root, _, _ = judge(base, [f("a/.wh.x"), f(".wh.b"), f(".wh.c"), f(".wh.nothing")])
    assert names(root) == {"a": "directory", "a/y": "file", "d": "file"}
    hidden = [bytes.fromhex(name) for name in FACTS[1]["hidden"]]
    assert hidden == [b"a/x", b"b", b"c"], "only what was there needs a mark"


def test_a_directory_that_hides_the_one_below() -> None:
    for layer in (
        [d("a"), f("a/.wh..wh..opq"), f("a/new")],
        [f("a/new"), f("a/.wh..wh..opq")],
        [f(".wh.a"), f("a/new")],
        [f(".wh.a"), d("a"), f("a/new")],
        [f("a/new"), f(".wh.a")],
    ):
        root, admissions, _ = judge([f("a/old"), f("a/deep/old")], layer)
        assert names(root) == {"a": "directory", "a/new": "file"}
        assert admissions[1].layer.children[b"a"].opaque


def test_what_replaces_a_deleted_link_is_not_written_through_it() -> None:
    root, _, _ = judge([s("lib", "/tmp")], [f(".wh.lib"), f("lib/x")])
    assert names(root) == {"lib": "directory", "lib/x": "file"}
    root, _, _ = judge([s("lib", "/tmp")], [d("lib"), f("lib/x")])
    assert names(root) == {"lib": "directory", "lib/x": "file"}


def test_a_file_over_a_directory_and_back() -> None:
    root, _, _ = judge([f("a/x")], [f("a")], [d("a"), f("a/y")])
    assert names(root) == {"a": "directory", "a/y": "file"}


def test_the_marks_of_aufs_are_passed_over() -> None:
    layer = [
        d(".wh..wh.plnk"),
        f(".wh..wh.plnk/1.2"),
        f(".wh..wh.aufs"),
        h(".wh.gone", ".wh..wh.aufs"),
        f("x"),
    ]
    root, _, _ = judge([f("gone")], layer)
    assert names(root) == {"x": "file"}


def test_a_root_file_system_has_no_deletions() -> None:
    root, _, _ = judge([f(".wh.x"), f("a/.wh..wh..opq")], whiteouts=False)
    assert names(root) == {".wh.x": "file", "a": "directory", "a/.wh..wh..opq": "file"}


def test_a_directory_without_an_entry_stays_as_it_is_below() -> None:
    base = [d("tmp", mode=0o1777, uid=3, gid=4, mtime=7), f("tmp/x")]
    root, _, _ = judge(base, [f("tmp/y")])
    tmp = root.children[b"tmp"]
    assert (tmp.mode, tmp.uid, tmp.gid, tmp.mtime_ns) == (0o1777, 3, 4, 7 * 10**9)
    assert [bytes.fromhex(entry[0]) for entry in FACTS[1]["inherited"]] == [b"", b"tmp"]
    root, _, _ = judge(base, [f("tmp/y"), d("tmp", mode=0o700)])
    assert root.children[b"tmp"].mode == 0o700


COMPONENTS = st.sampled_from(["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", "a\n", "\0"])
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)


def entries() -> st.SearchStrategy[bytes]:
    def build(kind: bytes, path: str, target: str, uid: int) -> bytes:
        return archives.pax(path=path, linkpath=target or "t", uid=str(uid)) + archives.header(b"x", kind)

    return st.builds(
        build,
        st.sampled_from([b"0", b"5", b"1", b"2", b"3", b"6"]),
        PATHS,
        PATHS,
        st.sampled_from([0, 1, 65535, 65536]),
    )


@given(st.lists(st.lists(entries(), max_size=6), min_size=1, max_size=3))
def test_whatever_comes_in_is_inside_and_below_directories(layers: list[list[bytes]]) -> None:
    """An independent look at what was let in: no change leaves the root or passes a link."""
    root = tree.directory()
    for number, layer in enumerate(layers):
        admission = Admission(root if number else None, Budget(Limits()), whiteouts=True)
        for data in layer:
            [entry] = Tar(archives.Bytes(archives.archive(data)), Budget(Limits()))
            try:
                change = admission.admit(entry)
            except InvalidValue:
                continue
            if change is None:
                continue
            for path in filter(None, (change.path, change.source)):
                assert not {b"", b".", b".."} & set(path)
                assert not any(b"\0" in name or b"\n" in name or b"/" in name for name in path)
                for length in range(1, len(path)):
                    above = visible(admission.layer, root if number else None, path[:length])
                    assert above is not None and above.is_directory
            assert change.node.uid <= 65535
        tree.merge(admission.layer, root)
        assert not any(node.hides for _, node, _ in tree.walk(root, None))


def visible(upper: Node, lower: Node | None, path: tuple[bytes, ...]) -> Node | None:
    """What overlayfs would show at ``path``, found in the simplest way: by putting a copy together."""
    whole = tree.directory()
    if lower is not None:
        tree.merge(lower, whole)
    tree.merge(upper, whole)
    node: Node | None = whole
    for name in path:
        node = node.children.get(name) if node is not None else None
    return node
