"""Tiny images from hand-made recipes: they need no mirror and take a second."""

import os
import shutil
from pathlib import Path

import pytest

from spriggan.image import ImageStore
from spriggan.image.recipe import Recipe
from spriggan.linux import mount


@pytest.fixture(autouse=True)
def needs_root():
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program in ("mkfs.erofs", "setpriv", "unshare"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    for kind in ("erofs", "overlay"):
        if kind not in Path("/proc/filesystems").read_text() and not Path(f"/sys/module/{kind}").exists():
            pytest.skip(f"needs {kind} in the kernel")


@pytest.fixture
def data(tmp_path):
    """A data directory; whatever is mounted below it goes, also when the test fails."""
    directory = tmp_path / "data"
    yield directory
    left = [point for point in mount.mount_points() if point.startswith(f"{tmp_path}/")]
    for point in reversed(left):
        mount.umount(point, mount.MNT_DETACH)


@pytest.fixture
def store(data):
    return ImageStore(data)


BASE = """
root=$1
mkdir -p "$root/etc" "$root/old/deep" "$root/gone" "$root/kept"
echo base > "$root/etc/name"
echo base > "$root/old/deep/file"
echo base > "$root/old/other"
echo base > "$root/gone/file"
echo base > "$root/kept/file"
echo new > "$root/new"
touch -d 2001-02-03T04:05:06Z "$root/kept/file"
"""

UPPER = """
root=$1
echo upper > "$root/etc/name"
rm -r "$root/gone"
rm "$root/old/other"
rm -r "$root/old/deep"
mkdir "$root/old/deep"
echo upper > "$root/old/deep/fresh"
install -m 4755 -o 0 -g 7 /bin/true "$root/setuid"
ln "$root/setuid" "$root/hardlink"
ln -s /nowhere "$root/dangling"
mkfifo "$root/pipe"
echo mine > "$root/owned" && chown 1001:1002 "$root/owned"
"""


@pytest.fixture
def recipe(tmp_path):
    """A function that writes a recipe of stages given by their hooks, lowest first."""

    def write(**hooks):
        hooks = hooks or {"base": BASE, "upper": UPPER}
        directory = tmp_path / "recipe"
        directory.mkdir(exist_ok=True)
        stages = []
        for name, text in hooks.items():
            (directory / name).mkdir(exist_ok=True)
            (directory / name / "hook.sh").write_text(text)
            stages.append(f'[[stage]]\nname = "{name}"\n')
        head = 'user = "tester"\nshell = "/bin/sh"\n[environment]\nA = "1"\n'
        (directory / "recipe.toml").write_text(head + "".join(stages))
        return Recipe.load(directory)

    return write
