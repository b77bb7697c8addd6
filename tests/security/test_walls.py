"""What a sprite cannot do, also as its own root."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

import serving


@pytest.mark.parametrize(
    "script",
    [
        "sudo mknod /tmp/disk b 7 0 && sudo dd if=/tmp/disk of=/dev/null count=1",
        "sudo mount /dev/loop0 /mnt",
        "sudo sh -c 'echo 1 > /proc/sys/kernel/sysrq'",
        "sudo date -s 2001-01-01",
        "sudo python3 -c \"import ctypes,sys; sys.exit(ctypes.CDLL(None).syscall(175, 0, 0, b'') == -1)\"",  # init_module
        'cd /sys/fs/cgroup; f=memory.max; [ -e $f ] || f=memory/memory.limit_in_bytes; sudo sh -c "echo 99999999 > $f"',
        "sudo chroot /proc/1/root/../.. cat /etc/machine-id | grep -v $(cat /etc/machine-id)",
    ],
)
def test_refused(sprite: Any, script: str) -> None:
    assert sprite.run("sh", "-c", script, capture_output=True).returncode != 0


def test_no_address_of_the_host_answers(sprite: Any) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        addresses = {"127.0.0.1", "169.254.1.1", "10.0.0.2"}
        addresses |= {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("203.0.113.1", 9))
            addresses.add(probe.getsockname()[0])
        for address in addresses:
            script = f"timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'"
            assert sprite.run("sh", "-c", script, capture_output=True).returncode != 0, address


def test_two_sprites_do_not_see_each_other(
    server: serving.Server, sprite: Any, new_name: Callable[[], str]
) -> None:
    other = server.client().create_sprite(new_name())
    try:
        serving.run(
            other,
            "echo secret > /tmp/secret; (sleep 4242 &) ; (python3 -m http.server 8000 >/dev/null 2>&1 &)",
        )
        assert "4242" not in serving.run(sprite, "ps -ef")
        assert serving.run(sprite, "ls /tmp") == ""
        fetch = "curl -s -m 3 -o /dev/null http://{}:8000/ && echo reached || echo not"
        for _ in range(50):
            if serving.run(other, fetch.format("127.0.0.1")) == "reached":
                break
        assert serving.run(other, fetch.format("10.0.0.1")) == "reached"
        for address in ("10.0.0.1", "10.0.0.2", "[fdf::1]"):
            assert serving.run(sprite, fetch.format(address)) == "not"
    finally:
        other.delete()


def test_a_hog_and_a_fork_bomb_harm_only_their_own(
    server: serving.Server, sprite: Any, new_name: Callable[[], str]
) -> None:
    with server.http() as http:
        name = new_name()
        assert http.post("/v1/sprites", json={"name": name, "config": {"ram_mb": 256}}).status_code == 201
    hog = server.client().get_sprite(name)
    try:
        eaten = hog.run("python3", "-c", "x = bytearray(600 << 20); print(len(x))", capture_output=True)
        assert eaten.returncode == 137
        hog.run("sh", "-c", "timeout 5 sh -c 'b() { b | b & }; b' >/dev/null 2>&1; true", capture_output=True)
        assert serving.run(sprite, "echo fine") == "fine"
    finally:
        hog.delete()


def test_the_world_inside_is_as_designed(sprite: Any) -> None:
    assert (
        serving.run(sprite, "tr '\\0' ' ' < /proc/1/cmdline").strip() == "/.pilot/tini -- tail -f /dev/null"
    )
    mounts = serving.run(sprite, "cat /proc/mounts")
    assert "lowerdir=/mnt/languages-image:/system:/mnt/system-base" in mounts
    assert serving.run(sprite, "id -un; sudo id -un; echo $HOME; getent passwd sprite | cut -d: -f3,7") == (
        "sprite\nroot\n/home/sprite\n1001:/bin/zsh"
    )
    assert "10.0.0.1/24" in serving.run(sprite, "ip -4 addr show spr0")
    assert "fdf::1/64" in serving.run(sprite, "ip -6 addr show spr0")
    assert serving.run(sprite, "ip route show default").startswith("default via 10.0.0.2")
    uid_map = serving.run(sprite, "cat /proc/self/uid_map").split()
    assert uid_map[0] == "0" and int(uid_map[1]) >= 100000 and uid_map[2] == "65536"


def test_names_resolve_and_the_internet_is_reached(sprite: Any) -> None:
    status = serving.run(sprite, "curl -sI -m 20 http://deb.debian.org/debian/ | head -1")
    assert status.startswith("HTTP/1.1 ")
