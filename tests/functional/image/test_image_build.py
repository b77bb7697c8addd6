"""Building: what a layer holds, that it is reproducible, and that an interruption leaves nothing."""

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spriggan.errors import Broken, Conflict
from spriggan.image import ImageStore, erofs
from spriggan.image.progress import Step
from spriggan.linux import mount


def files(data):
    return sorted(str(p.relative_to(data)) for p in data.rglob("*") if p.is_file())


def times(directory):
    return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}


@pytest.fixture
def assembled(store, tmp_path, recipe):
    """The layers of the tiny image, under an overlay."""
    image = store.build(recipe=recipe())
    layers = store.mount_layers(image.digests)
    for name in ("root", "upper", "work"):
        (tmp_path / name).mkdir()
    lower = ":".join(map(str, layers))
    options = f"lowerdir={lower},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mount.mount("overlay", tmp_path / "root", "overlay", options=options)
    yield tmp_path / "root"
    mount.umount(tmp_path / "root")
    store.unmount_all()


def test_the_overlay_of_the_layers_is_the_root_that_was_built(assembled):
    assert (assembled / "etc/name").read_text() == "upper\n"
    assert (assembled / "new").read_text() == "new\n"
    assert not (assembled / "gone").exists()
    assert [path.name for path in (assembled / "old").iterdir()] == ["deep"]
    assert [path.name for path in (assembled / "old/deep").iterdir()] == ["fresh"]
    setuid = (assembled / "setuid").stat()
    assert stat.S_IMODE(setuid.st_mode) == 0o4755
    assert (setuid.st_uid, setuid.st_gid, setuid.st_nlink) == (0, 7, 2)
    assert (assembled / "dangling").readlink() == Path("/nowhere")
    assert stat.S_ISFIFO((assembled / "pipe").stat().st_mode)
    owned = (assembled / "owned").stat()
    assert (owned.st_uid, owned.st_gid) == (1001, 1002)
    (assembled / "kept/file").unlink()
    assert not (assembled / "kept/file").exists()


def test_a_layer_holds_the_difference_only(store, recipe):
    image = store.build(recipe=recipe())
    upper, base = store.mount_layers(image.digests)
    assert not (upper / "new").exists()
    assert not (upper / "kept").exists()
    gone = (upper / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    assert os.listxattr(upper / "old/deep") == ["trusted.overlay.opaque"]
    for path in (upper, *upper.rglob("*")):
        assert set(os.listxattr(path, follow_symlinks=False)) <= {"trusted.overlay.opaque"}
    assert (base / "gone/file").read_text() == "base\n"
    assert stat.S_IMODE(upper.stat().st_mode) == stat.S_IMODE(base.stat().st_mode) == 0o755
    store.unmount_all()


def test_file_capabilities_are_kept(store, recipe):
    give = """python3 - "$1/ping" <<'END'
import os, sys
open(sys.argv[1], "w").close()
os.setxattr(sys.argv[1], "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
END
"""
    image = store.build(recipe=recipe(base="mkdir $1/etc", upper=give))
    upper, _ = store.mount_layers(image.digests)
    assert os.getxattr(upper / "ping", "security.capability").hex().startswith("010000020020")
    store.unmount_all()


def test_old_times_are_kept(store, recipe):
    """Python's byte code is only used while its source's time is what it was."""
    image = store.build(recipe=recipe())
    _, base = store.mount_layers(image.digests)
    assert (base / "kept/file").stat().st_mtime == 981173106
    assert (base / "new").stat().st_mtime == 1577836800
    store.unmount_all()


def test_defaults_and_sizes(store, data, recipe):
    image = store.build(recipe=recipe())
    assert (image.user, image.shell, image.environment) == ("tester", "/bin/sh", {"A": "1"})
    assert [layer.stage for layer in image.layers] == ["upper", "base"]
    for layer in image.layers:
        file = data / f"images/layers/{layer.digest}.erofs"
        assert file.stat().st_size == layer.bytes
        told = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout
        assert told.split()[0] == layer.digest
    assert store.get("sprites") == image
    assert store.list() == [image]


def test_building_twice_changes_nothing(store, data, recipe):
    image = store.build(recipe=recipe())
    before = times(data / "images/layers")
    ref = (data / "images/refs/sprites.json").stat().st_mtime_ns
    steps = []
    assert store.build(steps.append, recipe=recipe()) == image
    assert [step.name for step in steps] == ["unchanged"]
    assert times(data / "images/layers") == before
    assert (data / "images/refs/sprites.json").stat().st_mtime_ns == ref


def test_the_same_recipe_gives_the_same_layers_elsewhere(store, tmp_path, recipe):
    digests = store.build(recipe=recipe()).digests
    time.sleep(1.1)
    old = os.umask(0o077)
    try:
        assert ImageStore(tmp_path / "elsewhere").build(recipe=recipe()).digests == digests
        assert store.build(recipe=recipe(), force=True).digests == digests
    finally:
        os.umask(old)


def test_only_what_changed_is_built(store, recipe):
    first = store.build(recipe=recipe(base="mkdir $1/etc", upper="echo 1 > $1/one"))
    steps = []
    second = store.build(steps.append, recipe=recipe(base="mkdir $1/etc", upper="echo 2 > $1/two"))
    assert [step.name for step in steps if step.seconds is not None] == ["upper", "pack upper"]
    assert first.layers[1] == second.layers[1]
    assert first.digests[0] != second.digests[0]


def test_progress_tells_steps_with_seconds_and_sizes(store, recipe):
    steps = []
    store.build(steps.append, recipe=recipe())
    assert [step.name for step in steps if step.seconds is None] == [
        "base",
        "pack base",
        "upper",
        "pack upper",
    ]
    packed = [step for step in steps if step.name == "pack base" and step.seconds is not None]
    assert packed[0].bytes > 0
    assert "MB" in str(packed[0]) and " s" in str(packed[0])


def test_a_layer_that_was_cut_short_is_built_again(store, data, recipe):
    image = store.build(recipe=recipe())
    file = data / f"images/layers/{image.digests[0]}.erofs"
    os.truncate(file, 100)
    assert store.build(recipe=recipe()).digests == image.digests
    assert file.stat().st_size == image.layers[0].bytes


def test_a_failing_hook_is_quoted_and_leaves_the_old_image(store, data, recipe):
    image = store.build(recipe=recipe())
    before = files(data)
    with pytest.raises(
        Broken, match="making the upper layer failed with exit code 3:\nno such thing"
    ) as error:
        store.build(recipe=recipe(base="mkdir $1/etc", upper="echo no such thing >&2; exit 3"))
    assert "build.log" in error.value.hint
    assert files(data) == before
    assert store.list() == [image]
    assert not (data / "images/build").exists()


def test_a_hook_runs_in_namespaces_of_its_own(store, data, recipe):
    store.build(recipe=recipe(base='mkdir "$1/x"; mount -t tmpfs none "$1/x"; sleep 1000 & [ $$ -lt 50 ]'))
    assert mounted(data) == []


def test_two_builds_at_once(store, data, recipe):
    slow = recipe(base="touch $1/started; sleep 3")
    thread = threading.Thread(target=lambda: store.build(recipe=slow))
    thread.start()
    try:
        wait_for(lambda: list(data.glob("images/build/*/0/root/started")))
        with pytest.raises(Conflict) as error:
            ImageStore(data).build(recipe=slow)
        assert error.value.hint
        with pytest.raises(Exception, match=r"no image|being built"):
            store.remove("sprites", set())
        steps: list[Step] = []
        image = ImageStore(data).build(steps.append, recipe=slow, wait=True)
        assert [step.name for step in steps] == ["waiting", "unchanged"] and "being built" in steps[0].note
    finally:
        thread.join()
    assert store.list() == [image]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_build(store, data, recipe, number):
    """Nothing of it runs on, nothing is mounted, and the next build starts clean."""
    slow = recipe(base="mkdir $1/etc", upper="touch $1/started; sleep 1000")
    program = (
        "import sys; from pathlib import Path; from spriggan.image import ImageStore\n"
        "from spriggan.image.recipe import Recipe\n"
        "ImageStore(Path(sys.argv[1])).build(recipe=Recipe.load(Path(sys.argv[2])))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, data, slow.directory],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: list(data.glob("images/build/*/1/upper/started")))
        process.send_signal(number)
        process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not running(slow.directory))
    assert mounted(data) == []
    assert store.list() == []
    assert files(data / "images/layers") == []
    if number == signal.SIGINT:
        assert not (data / "images/build").exists()
    image = store.build(recipe=recipe())
    assert store.list() == [image]
    assert not (data / "images/build").exists()


def test_layers_through_a_loop_device(store, data, tmp_path, recipe):
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices")
    image = store.build(recipe=recipe())
    file = data / f"images/layers/{image.digests[1]}.erofs"
    (tmp_path / "at").mkdir()
    erofs.mount_through_loop(file, tmp_path / "at")
    assert (tmp_path / "at/new").read_text() == "new\n"
    assert backed(file)
    mount.umount(tmp_path / "at")
    wait_for(lambda: not backed(file))


def test_mounting_twice_is_mounting_once(store, data, recipe):
    image = store.build(recipe=recipe())
    first = store.mount_layers(image.digests)
    assert store.mount_layers(image.digests) == first
    assert first == [data / "images/mounts" / digest for digest in image.digests]
    points = mount.mount_points()
    assert all(points.count(str(place)) == 1 for place in first)
    assert not os.access(first[0] / "new", os.W_OK)
    flags = os.statvfs(first[0]).f_flag
    assert flags & os.ST_RDONLY and flags & os.ST_NOSUID and flags & os.ST_NODEV
    store.unmount_all()
    assert list((data / "images/mounts").iterdir()) == []
    store.unmount_all()


def test_a_layer_in_use_is_not_unmounted(store, recipe):
    image = store.build(recipe=recipe())
    place = store.mount_layers(image.digests)[1]
    with (place / "new").open(), pytest.raises(Conflict, match="in use"):
        store.unmount_all()
    store.unmount_all()


def test_remove(store, data, recipe):
    image = store.build(recipe=recipe())
    other = store.build(name="other", recipe=recipe(base="mkdir $1/etc"))
    store.mount_layers(image.digests)

    removed = store.remove("sprites", {image.digests[1]})

    assert (removed.deleted, removed.kept) == ([image.digests[0]], [image.digests[1]])
    assert [found.name for found in store.list()] == ["other"]
    layers = {path.stem for path in (data / "images/layers").iterdir()}
    assert layers == {image.digests[1], *other.digests}
    assert [path.name for path in (data / "images/mounts").iterdir()] == [image.digests[1]]

    removed = store.remove("other", set())
    assert set(removed.deleted) == {image.digests[1], *other.digests}
    assert list((data / "images/layers").iterdir()) == []


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def mounted(directory):
    """What is mounted somewhere in ``directory``."""
    return [point for point in mount.mount_points() if point.startswith(f"{directory}/")]


def running(directory):
    """Processes whose command line names ``directory``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def backed(file):
    listed = subprocess.run(["losetup", "-j", file], capture_output=True, text=True, check=True)
    return bool(listed.stdout)
