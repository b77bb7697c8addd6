"""The default image from the real mirrors, put together as a sprite's root and used.

SPRIGGAN_IMAGE_CACHE names a data directory to build it in and keep; what is there already is used.
"""

import os
import subprocess
from pathlib import Path

import pytest

from spriggan.errors import MissingCapability, NotFound
from spriggan.image import ImageStore
from spriggan.image.packages import missing

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def default_store(tmp_path_factory):
    try:
        lacking = missing()
    except MissingCapability as error:
        pytest.skip(f"needs Debian or Ubuntu: {error.message}")
    if os.geteuid() != 0 or "mmdebstrap" in lacking or "erofs-utils" in lacking:
        pytest.skip("needs root, mmdebstrap and erofs-utils")
    cache = os.environ.get("SPRIGGAN_IMAGE_CACHE")
    store = ImageStore(Path(cache) if cache else tmp_path_factory.mktemp("images"))
    try:
        store.get("sprites")
    except NotFound:
        store.build(print)
    return store


@pytest.fixture
def shell(default_store, tmp_path):
    """A function that runs a script as the image's user in a fresh root, and returns what it printed."""
    image = default_store.get("sprites")
    lower = ":".join(map(str, default_store.mount_layers(image.digests)))
    for name in ("root", "upper", "work"):
        (tmp_path / name).mkdir()

    def run(script):
        assemble = (
            # By mount(2): with the newer calls one option may have 256 bytes at most, and the layers' paths are long.
            "export LIBMOUNT_FORCE_MOUNT2=always\n"
            f"mount -t overlay none -o lowerdir={lower},upperdir=upper,workdir=work root\n"
            "mount -t proc none root/proc; mount -t tmpfs none root/tmp; mount --rbind /dev root/dev\n"
            'exec chroot root su --login sprite --command "$0"\n'
        )
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        done = subprocess.run(
            [*isolated, "sh", "-euc", assemble, f"set -eu; cd /tmp; {script}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield run
    default_store.unmount_all()


def test_the_user(shell):
    assert shell("id --user; id --group; echo $HOME; echo $SHELL; sudo -n id --user").split() == [
        *("1001", "1001", "/home/sprite", "/bin/zsh", "0"),
    ]
    assert shell("cat /etc/subuid /etc/subgid").split() == ["sprite:2000:60000"] * 2


def test_a_first_shell_asks_nothing_and_knows_the_path(shell):
    assert shell("zsh -ic 'echo $PATH'").startswith("/.sprite/bin:")
    assert shell("zsh -c 'echo $PATH'").startswith("/.sprite/bin:")
    assert shell("bash -lc 'echo $PATH'").startswith("/.sprite/bin:")
    assert shell("sudo sh -c 'echo $PATH'").startswith("/.sprite/bin:")


def test_python(shell):
    assert shell("python3 -m venv v && v/bin/python -c 'import ssl, sqlite3; print(6 * 7)'") == "42"
    assert shell("python3 -m pip --version").startswith("pip ")
    # Byte code that does not count makes every start of Python slow.
    loaded = shell("python3 -v -c 'import asyncio' 2>&1 | grep 'code object from'").splitlines()
    assert loaded
    assert [line for line in loaded if line.endswith(".py'")] == []


def test_node(shell):
    assert shell("node -e 'console.log(6 * 7)'") == "42"
    assert shell("mkdir p && cd p && npm init -y > /dev/null && npm pkg get version") == '"1.0.0"'


def test_compilers(shell):
    source = "echo '#include <iostream>\nint main() { std::cout << 6 * 7; }' > a.cc"
    assert shell(f"{source}; g++ -O1 -o a a.cc && ./a") == "42"
    assert shell("echo 'int main(void) { return 0; }' > a.c; make -s a && ./a && echo made") == "made"


def test_tools(shell):
    assert shell("echo '{\"a\": 42}' | jq .a") == "42"
    assert shell("echo needle > hay; rg -c needle hay") == "1"
    commit = "git -c user.name=n -c user.email=e commit -q --allow-empty -m m"
    assert shell(f"git init -q r && cd r && {commit}; git log --format=%s") == "m"
    assert shell(
        "tini --version; curl --version; ip -V; ps --version; test -s /etc/ssl/certs/ca-certificates.crt"
    )


def test_nothing_of_the_build_host_is_in_it(shell):
    for name in ("hostname", "hosts", "machine-id", "resolv.conf"):
        assert shell(f"test -f /etc/{name} && cat /etc/{name}") == ""
    assert shell("sudo find /var/log /var/lib/apt/lists /var/tmp /run -type f") == ""
    assert shell("ls /usr/sbin/policy-rc.d 2>&1 || true").endswith("No such file or directory")
    assert shell("dpkg --audit") == ""
    assert shell("cat /etc/apt/sources.list.d/*.sources").startswith("Types: deb")
