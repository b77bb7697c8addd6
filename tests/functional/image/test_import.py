"""Importing: what is unpacked, what an overlay of it shows, and what is left when it fails."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archives
import images
from spriggan.errors import (
    AlreadyExists,
    Conflict,
    InvalidRequest,
    InvalidValue,
    NoSpace,
    NotFound,
    SprigganError,
)
from spriggan.image import Image, ImageStore
from spriggan.image.importing import STANDARD_INPUT, Limits, Request, limits, tree
from spriggan.image.importing.admission import Admission
from spriggan.image.importing.limits import Budget, Room
from spriggan.image.importing.planting import Planter
from spriggan.image.importing.tar import Tar
from spriggan.linux import mount

d, f, s, h = archives.directory, archives.file, archives.symlink, archives.hardlink
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

SMALL = archives.archive(
    d("./", mode=0o755),
    d("etc", mode=0o750, uid=3, gid=4, mtime=11),
    f("etc/passwd", b"root:x:0:0::/root:/bin/sh\nsprite:x:1001:1001::/home/sprite:/bin/zsh\n"),
    f("etc/os-release", b'ID=tiny\nVERSION_ID="1.2"\n'),
    f("bin/sh", b"#!", mode=0o755),
    f("setuid", b"content", mode=0o6755, uid=5, gid=6, mtime=12),
    h("hard", "setuid"),
    s("link", "/etc/shadow", uid=7, mtime=13),
    archives.fifo("pipe"),
    archives.device("null"),
    archives.pax_header({"SCHILY.xattr.user.note": b"\0\1", "SCHILY.xattr.security.capability": CAPABILITY}),
    f("noted", b""),
    archives.pax_header({"SCHILY.xattr.security.selinux": b"x"}),
    f("plain", b"\xff" * 5000),
)


@pytest.fixture
def given_file(tmp_path: Path) -> Callable[[bytes], Path]:
    """A function that writes an archive to a file and returns its path."""

    def write(data: bytes, name: str = "given") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@contextmanager
def overlay(store: ImageStore, image: Image, place: Path) -> Iterator[Path]:
    """The image's layers as a sprite sees them, mounted below ``place``."""
    for name in ("root", "upper", "work"):
        (place / name).mkdir(parents=True)
    lower = ":".join(map(str, store.mount_layers(image.digests)))
    mount.mount(
        "overlay",
        place / "root",
        "overlay",
        options=f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work",
    )
    try:
        yield place / "root"
    finally:
        mount.umount(place / "root")
        store.unmount_all()
        shutil.rmtree(place)


def everything(root: Path) -> dict[str, Any]:
    """What can be seen of a tree."""
    seen = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        kind = stat.S_IFMT(info.st_mode)
        what: Any = None
        if kind == stat.S_IFREG:
            what = path.read_bytes()
        elif kind == stat.S_IFLNK:
            what = str(path.readlink())
        seen[str(path.relative_to(root))] = (kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, what)
    return seen


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def test_a_root_file_system(store: ImageStore, tmp_path: Path, given_file: Any) -> None:
    steps: list[Any] = []
    image = store.import_image(Request(given_file(SMALL), "small"), steps.append)
    assert (image.user, image.shell, image.distribution) == ("sprite", "/bin/sh", "tiny 1.2")
    assert (image.source, image.working_dir, image.entrypoint) == ("root file system", "", ())
    assert [layer.stage for layer in image.layers] == ["root"]
    assert store.get("small") == image
    with overlay(store, image, tmp_path / "o") as root:
        seen = everything(root)
        assert "null" not in seen
        assert seen["etc"][1:4] == (0o750, 3, 4)
        assert seen["setuid"] == seen["hard"] == (stat.S_IFREG, 0o6755, 5, 6, b"content")
        assert (root / "setuid").stat().st_ino == (root / "hard").stat().st_ino
        assert seen["link"][2:] == (7, 0, "/etc/shadow")
        assert seen["pipe"][0] == stat.S_IFIFO
        assert seen["plain"][4] == b"\xff" * 5000
        times = [(root / name).lstat().st_mtime for name in ("etc", "setuid", "link")]
        assert times == [11, 12, 13]
        assert os.getxattr(root / "noted", "user.note") == b"\0\1"
        assert os.getxattr(root / "noted", "security.capability") == CAPABILITY
        assert os.listxattr(root / "plain") == []
    told = " ".join(map(str, steps))
    assert "dropped 1 device node and 1 attributes (security.selinux)" in told
    assert "MB" in told and " s" in told


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_every_form_gives_the_same_layers(
    store: ImageStore, tmp_path: Path, given_file: Any, compress: Any
) -> None:
    upper = archives.archive(f("new"))
    wanted = store.import_image(Request(images.layout(SMALL, upper).write(tmp_path / "layout"), "wanted"))
    for data in (images.layout(SMALL, upper).tar(), images.tar(images.docker(SMALL, upper))):
        image = store.import_image(Request(given_file(compress(data)), "other"), replace=True)
        assert image.digests == wanted.digests


def test_importing_twice_changes_nothing(store: ImageStore, data: Path, given_file: Any) -> None:
    source = given_file(images.layout(SMALL, archives.archive(f("new")), User="root").tar())
    image = store.import_image(Request(source, "it"))
    before = [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in data.rglob("*.erofs")]
    before += [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in data.rglob("*.json")]
    steps: list[Any] = []
    assert store.import_image(Request(source, "it"), steps.append) == image
    assert all((path, path.stat().st_mtime_ns, path.stat().st_ino) in before for path, _, _ in before)
    assert steps[-1].name == "unchanged"
    assert not any(step.name.startswith(("unpack", "pack")) for step in steps)


def test_shared_layers_are_made_once(store: ImageStore, data: Path, given_file: Any) -> None:
    one = store.import_image(
        Request(given_file(images.layout(SMALL, archives.archive(f("one"))).tar()), "one")
    )
    steps: list[Any] = []
    two = store.import_image(
        Request(given_file(images.layout(SMALL, archives.archive(f("two"))).tar()), "two"), steps.append
    )
    assert one.digests[1] == two.digests[1]
    assert one.digests[0] != two.digests[0]
    assert [step.name for step in steps if step.name.startswith("unpack") and step.seconds is None] == [
        "unpack layer 2 of 2"
    ]
    assert len(files(data / "images/layers")) == 3


def test_another_image_of_that_name_is_kept_unless_told(
    store: ImageStore, data: Path, given_file: Any
) -> None:
    image = store.import_image(Request(given_file(SMALL), "it"))
    before = files(data)
    other = given_file(archives.archive(f("other")), "other")
    with pytest.raises(AlreadyExists, match="another image 'it'") as error:
        store.import_image(Request(other, "it"))
    assert "--replace" in error.value.hint
    assert files(data) == before
    assert store.get("it") == image
    assert store.import_image(Request(other, "it"), replace=True).digests != image.digests


def test_an_image_of_before_has_no_new_fields(store: ImageStore, data: Path, given_file: Any) -> None:
    image = store.import_image(Request(given_file(SMALL), "it"))
    ref = data / "images/refs/it.json"
    old = {
        k: v
        for k, v in json.loads(ref.read_text()).items()
        if k not in ("working_dir", "entrypoint", "command", "source")
    }
    ref.write_text(json.dumps(old))
    assert store.get("it").digests == image.digests
    assert store.get("it").working_dir == ""


LAYERS = {
    "deletions": [
        [f("a/x"), f("a/y"), f("b/x"), s("c", "/"), f("d")],
        [f("a/.wh.x"), f(".wh.b"), f(".wh.c"), f(".wh.nothing"), f("a/.wh.nothing")],
    ],
    "an opaque directory": [
        [f("a/old"), f("a/deep/old"), f("b/old")],
        [d("a"), f("a/.wh..wh..opq"), f("a/new")],
    ],
    "a directory in place of a deleted one": [[f("a/old")], [f(".wh.a"), f("a/new")]],
    "a directory over a link": [[s("a", "/tmp")], [d("a"), f("a/new")]],
    "a link over a directory": [[f("a/old")], [s("a", "/tmp")]],
    "a file over a directory and back": [[f("a/x")], [f("a")], [f("other")], [d("a"), f("a/y")]],
    "a device over a file": [[f("a"), f("b/c")], [archives.device("a"), archives.device("b/c")]],
    "an emptied root": [[f("a"), f("b/c")], [f(".wh..wh..opq"), f("new")], [f("newer")]],
    "the same layer again": [[f("a"), f("b")], [f(".wh.a"), f("b", b"changed")], [f("a"), f("b")]],
    "nothing in between": [[f("a")], [], [f("b")], []],
    "inherited": [[d("a", mode=0o1777, uid=9), f("a/x")], [f("a/y")], [f("a/.wh.x")]],
}


@pytest.mark.parametrize("case", LAYERS)
def test_the_overlay_shows_what_the_layers_mean(store: ImageStore, tmp_path: Path, case: str) -> None:
    check_overlay(store, tmp_path, LAYERS[case])


def check_overlay(store: ImageStore, tmp_path: Path, layers: list[list[bytes]]) -> None:
    """Import the layers, and compare what overlayfs shows with what the judging code believes."""
    root = tree.directory()
    for number, entries in enumerate(layers):
        admission = Admission(root if number else None, Budget(Limits()), whiteouts=True)
        for entry in Tar(archives.Bytes(archives.archive(*entries)), Budget(Limits())):
            admission.admit(entry)
        tree.merge(admission.layer, root)
    believed = {
        os.fsdecode(tree.text(path)): (node.type.value, node.mode, node.uid)
        for path, node, _ in tree.walk(root, None)
        if path
    }
    shutil.rmtree(tmp_path / "layout", ignore_errors=True)
    source = images.layout(*(archives.archive(*entries) for entries in layers)).write(tmp_path / "layout")
    image = store.import_image(Request(source, "it"), replace=True)
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symbolic link",
        stat.S_IFIFO: "FIFO",
    }
    with overlay(store, image, tmp_path / "o") as mounted:
        seen = {
            name: (kinds[kind], mode, uid) for name, (kind, mode, uid, _, _) in everything(mounted).items()
        }
        for name, (kind, mode, uid) in believed.items():
            assert seen[name][0] == kind and seen[name][2] == uid, name
            assert kind == "symbolic link" or seen[name][1] == mode, name
        assert seen.keys() == believed.keys()
        # A deletion must not be seen as a name without a file either.
        for directory, _, _ in os.walk(mounted):
            assert all(os.path.lexists(path) for path in Path(directory).iterdir())


NAMES = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/b/c", "c"])
ENTRIES = st.one_of(
    st.builds(lambda name, mode: f(name, mode=mode), NAMES, st.sampled_from([0o644, 0o4755])),
    st.builds(lambda name, mode: d(name, mode=mode), NAMES, st.sampled_from([0o755, 0o1777])),
    st.builds(lambda name: s(name, "/tmp"), NAMES),
    st.builds(lambda name: f("/".join([*name.split("/")[:-1], f".wh.{name.split('/')[-1]}"])), NAMES),
    st.builds(lambda name: f(f"{name}/.wh..wh..opq"), NAMES),
    st.builds(archives.device, NAMES),
    st.builds(h, NAMES, NAMES),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.lists(ENTRIES, max_size=5), min_size=2, max_size=4))
def test_whatever_the_layers_the_overlay_shows_what_they_mean(
    store: ImageStore, tmp_path: Path, layers: list[list[bytes]]
) -> None:
    admitted: list[list[bytes]] = []
    root = tree.directory()
    for number, entries in enumerate([[f("always")], *layers]):
        admission, taken = Admission(root if number else None, Budget(Limits()), whiteouts=True), []
        for data in entries:
            [entry] = Tar(archives.Bytes(archives.archive(data)), Budget(Limits()))
            try:
                admission.admit(entry)
            except InvalidValue:
                continue
            taken.append(data)
        tree.merge(admission.layer, root)
        admitted.append(taken)
    if root.children:
        check_overlay(store, tmp_path, admitted)


def test_even_what_was_wrongly_let_in_stays_inside(tmp_path: Path) -> None:
    """The writer alone, with a judge that lets everything pass."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "out").symlink_to(outside)
    (inside / "file").symlink_to(outside / "precious")
    admission = Admission(None, Budget(Limits()), whiteouts=False)
    for entry_bytes, names in (
        (f("x", b"evil"), (b"out", b"evil")),
        (f("x", b"evil"), (b"..", b"outside", b"evil")),
        (f("x", b"evil"), (b"out", b"precious")),
        (f("x", b"evil"), (b"file",)),
        (d("x"), (b"out", b"evil")),
        (s("x", "t"), (b"out", b"evil")),
        (archives.fifo("x"), (b"out", b"evil")),
    ):
        [entry] = Tar(archives.Bytes(archives.archive(entry_bytes)), Budget(Limits()))
        change = Admission(None, Budget(Limits()), whiteouts=False).admit(entry)
        assert change is not None
        with Planter(inside, Room(tmp_path)) as planter, pytest.raises(OSError):
            planter.plant(type(change)(names, change.node), iter([b"evil"]))
    assert admission.layer.children == {}
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"
    assert sorted(path.name for path in inside.iterdir()) == ["file", "out"]


HOSTILE = {
    "through a link": (archives.archive(s("out", "/var/tmp"), f("out/evil")), "symbolic link '/out'"),
    "up": (archives.archive(f("../evil")), "goes up"),
    "a hard link out": (archives.archive(h("x", "/etc/shadow")), "is no earlier entry"),
    "an owner": (archives.archive(archives.pax(uid="70000"), f("x")), "belongs to user 70000"),
    "cut short": (SMALL[:3000], "ends too early"),
    "no archive": (b"hello, world\n" * 100, "not a well-formed tar archive"),
    "empty": (b"", "ends too early"),
    "no files": (archives.archive(), "holds no files"),
    "only devices": (archives.archive(archives.device("x")), "holds no files"),
    "a bomb": (gzip.compress(archives.archive(f("zeros", bytes(100 << 20)))), "more than 200 times as many"),
    "a large file": (archives.header(b"x", size=2**33 - 1), "larger than 1.0 GB"),
    "attributes": (
        archives.archive(archives.pax_header({"SCHILY.xattr.user.a": b"x" * 70_000}), f("x")),
        "cannot hold",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_refused_leaves_nothing(store: ImageStore, data: Path, given_file: Any, case: str) -> None:
    content, match = HOSTILE[case]
    store.import_image(Request(given_file(SMALL), "before"))
    before = files(data)
    request = Request(given_file(content), "it", limits=Limits(bytes=10**9))
    with pytest.raises(InvalidValue, match=match):
        store.import_image(request)
    assert files(data) == before
    assert [image.name for image in store.list()] == ["before"]
    assert not (data / "images/build").exists()


def test_altered_layers(store: ImageStore, data: Path, tmp_path: Path, given_file: Any) -> None:
    layout = images.layout(SMALL)
    for name, blob in layout.files.items():
        if name.startswith("blobs") and blob[:2] == b"\x1f\x8b":
            altered = {**layout.files, name: gzip.compress(SMALL.replace(b"ID=tiny", b"ID=evil"), mtime=0)}
    with pytest.raises(InvalidValue, match="does not have the digest"):
        store.import_image(Request(given_file(images.tar(altered)), "it"))
    described = images.docker(SMALL)
    name = next(name for name in described if name.endswith("layer.tar"))
    with pytest.raises(InvalidValue, match="does not have the digest"):
        store.import_image(Request(given_file(images.tar({**described, name: SMALL + bytes(512)})), "it"))
    # Compressed once more, with the right digest of the compressed file and the wrong one of what is in it.
    wrong = images.Layout()
    manifest = json.loads(json.dumps({"config": wrong.blob(images.config_json([SMALL])), "layers": []}))
    manifest["layers"] = [wrong.blob(gzip.compress(archives.archive(f("evil"))))]
    wrong.add(wrong.blob(json.dumps(manifest).encode(), images.MANIFEST))
    with pytest.raises(InvalidValue, match="does not have the digest"):
        store.import_image(Request(wrong.write(tmp_path / "wrong"), "it"))
    assert store.list() == []
    assert files(data / "images/layers") == []


def test_a_layer_that_is_missing(store: ImageStore, tmp_path: Path, given_file: Any) -> None:
    layout = images.layout(SMALL)
    name = next(name for name, blob in layout.files.items() if blob[:2] == b"\x1f\x8b")
    del layout.files[name]
    for source in (given_file(layout.tar()), layout.write(tmp_path / "layout")):
        with pytest.raises(InvalidValue, match=f"'{name}' is missing in it") as error:
            store.import_image(Request(source, "it"))
        assert error.value.hint


def test_a_pipe_of_something_else_is_not_copied_to_its_end(store: ImageStore) -> None:
    with pytest.raises(InvalidValue, match="not a well-formed tar archive"):
        store.import_image(Request(Path("/dev/urandom"), "it"))


def test_sources_that_are_none(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no"):
        store.import_image(Request(tmp_path / "nothing", "it"))
    with pytest.raises(InvalidValue, match="is a directory, and no OCI layout") as error:
        store.import_image(Request(tmp_path, "it"))
    assert "tar -C" in error.value.hint
    (tmp_path / "x").touch()
    with pytest.raises(InvalidRequest, match="cannot be read"):
        store.import_image(Request(tmp_path / "x/y", "it"))
    with pytest.raises(InvalidRequest, match="cannot be the name of an image"):
        store.import_image(Request(tmp_path, "../it"))


def test_too_little_space(
    store: ImageStore, data: Path, given_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_KEPT_LEAST", 1 << 60)
    monkeypatch.setattr(limits, "_LOOK_EVERY", 1)
    with pytest.raises(NoSpace, match="kept in reserve"):
        store.import_image(Request(given_file(SMALL), "it"))
    assert not (data / "images/build").exists()


USERS = [
    # USER of the image, --user, the sprite's user
    ("", "", "sprite"),
    ("root", "", "root"),
    ("1234", "", "1234"),
    ("1234:5", "", "1234:5"),
    ("sprite:9", "", "sprite:9"),
    ("nobody", "", None),
    ("root:nogroup", "", None),
    ("nobody", "0:0", "0:0"),
    ("70000", "", None),
]


@pytest.mark.parametrize(("told", "chosen", "user"), USERS)
def test_who_commands_run_as(
    store: ImageStore, given_file: Any, told: str, chosen: str, user: str | None
) -> None:
    request = Request(given_file(images.layout(SMALL, User=told).tar()), "it", user=chosen)
    if user is None:
        with pytest.raises(InvalidValue, match=r"the image has no (user|group)") as error:
            store.import_image(request)
        assert "--user" in error.value.hint
    else:
        assert store.import_image(request).user == user


PASSWD = "root:x:0:0::/root:{}\n"
SHELLS = [
    (PASSWD.format("/bin/zsh"), [f("bin/zsh", mode=0o755), f("bin/sh", mode=0o755)], "/bin/zsh"),
    (PASSWD.format("/bin/zsh"), [f("bin/zsh", mode=0o644), f("bin/sh", mode=0o755)], "/bin/sh"),
    (PASSWD.format("/sbin/nologin"), [f("sbin/nologin", mode=0o755), f("bin/sh", mode=0o755)], "/bin/sh"),
    (
        PASSWD.format(""),
        [f("usr/bin/box", mode=0o755), s("bin", "usr/bin"), s("usr/bin/sh", "/bin/box")],
        "/bin/sh",
    ),
    (PASSWD.format("/bin/sh"), [s("bin/sh", "sh")], ""),
    (PASSWD.format("/bin/sh"), [s("bin/sh", "../../../../elsewhere")], ""),
    ("", [f("only", mode=0o755)], ""),
]


@pytest.mark.parametrize(("passwd", "entries", "shell"), SHELLS)
def test_which_shell(
    store: ImageStore, given_file: Any, passwd: str, entries: list[bytes], shell: str
) -> None:
    layer = archives.archive(f("etc/passwd", passwd.encode()), *entries)
    assert store.import_image(Request(given_file(layer), "it")).shell == shell


PROGRAM = """
import os, signal, sys
from pathlib import Path
from spriggan.image import ImageStore
from spriggan.image.importing import Request

def interrupt():
    os.kill(os.getpid(), int(sys.argv[3]))

events = 0
def progress(step):
    global events
    events += 1
    if str(events) == sys.argv[4]:
        interrupt()

store = ImageStore(Path(sys.argv[1]))
if sys.argv[4] == "publish":
    store._write_ref = lambda image: interrupt()
store.import_image(Request(Path(sys.argv[2]), "it"), progress)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("event", [*map(str, range(1, 14)), "publish"])
def test_an_interrupted_import(
    store: ImageStore, data: Path, given_file: Any, number: int, event: str
) -> None:
    """At every step: nothing is left after the next import, and after Ctrl-C at once."""
    upper = archives.archive(f("new"))
    source = given_file(images.layout(SMALL, upper).tar())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, data, source, str(int(number)), event],
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -number, done.stderr
    assert store.list() == []
    if number == signal.SIGINT:
        assert files(data / "images/layers") == []
        assert not (data / "images/build").exists()
    image = store.import_image(Request(given_file(SMALL, "other"), "other"))
    assert [Path(name).stem for name in files(data / "images/layers")] == image.digests
    assert not (data / "images/build").exists()
    assert store.import_image(Request(source, "it")).digests[1:] == image.digests


def importing_from_a_pipe(data: Path) -> list[str]:
    program = str(Path(sys.executable).parent / "spriggan")
    return [program, "image", "import", "it", "-", "--data", str(data)]


def test_an_import_from_a_pipe_that_is_interrupted(store: ImageStore, data: Path) -> None:
    command = importing_from_a_pipe(data)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(SMALL[:2000])
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not list(data.glob("images/build/*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(Conflict):
        store.import_image(Request(STANDARD_INPUT, "other"))
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert not (data / "images/build").exists()
    assert store.list() == []


def test_from_standard_input(data: Path, store: ImageStore) -> None:
    command = importing_from_a_pipe(data)
    done = subprocess.run(command, input=gzip.compress(SMALL), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"it: 1 layer, ")
    shown = subprocess.run(
        [*command[:2], "show", "it", "--data", str(data)], capture_output=True, text=True, check=True
    ).stdout
    assert "root file system" in shown
    done = subprocess.run(
        [*command, "--max-entries", "3", "--replace"],
        input=SMALL,
        capture_output=True,
        text=False,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()[-2:]) == (
        1,
        [
            b"spriggan: the image holds more than 3 entries",
            b"  hint: --max-entries N allows more, if you trust it",
        ],
    )


def test_an_archive_that_changes_while_it_is_read(store: ImageStore, data: Path, given_file: Any) -> None:
    source = given_file(SMALL)

    def progress(step: Any) -> None:
        if step.name.startswith("unpack") and step.seconds is None:
            content = bytearray(source.read_bytes())
            content[content.index(b"\xff" * 5000)] = 0
            source.write_bytes(content)

    with pytest.raises(SprigganError, match="was changed while it was read"):
        store.import_image(Request(source, "it"), progress)
    assert store.list() == []
    assert files(data / "images/layers") == []
