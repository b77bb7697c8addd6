"""No path given to the file endpoints leads out of the sprite, or hangs."""

from __future__ import annotations

from typing import Any

import pytest

import serving


def test_links_lead_to_the_sprites_own_files(server: serving.Server, sprite: Any) -> None:
    serving.run(
        sprite,
        "ln -s /etc/hostname l; ln -s ../../../../etc/hostname up; sudo ln -s /proc/1/root/etc/hostname proc",
    )
    with server.http() as http:
        for path in ("/home/sprite/l", "/home/sprite/up", "/home/sprite/../../../../etc/hostname"):
            answer = http.get(f"/v1/sprites/{sprite.name}/fs/read", params={"path": path})
            assert answer.text == f"{sprite.name}\n", (path, answer.text)
        for path in ("/home/sprite/proc", "/proc/1/root/etc/hostname", "/proc/self/root/etc/hostname"):
            answer = http.get(f"/v1/sprites/{sprite.name}/fs/read", params={"path": path})
            assert answer.status_code >= 400 or answer.text == f"{sprite.name}\n"
        shadow = http.get(f"/v1/sprites/{sprite.name}/fs/read", params={"path": "/etc/shadow"})
        assert shadow.status_code == 403
        assert shadow.json()["code"] == "EACCES"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/tty", "/home/sprite/fifo", "/home/sprite", "/proc/kmsg"])
def test_what_is_not_a_regular_file_is_refused_at_once(
    server: serving.Server, sprite: Any, path: str
) -> None:
    serving.run(sprite, "mkfifo fifo")
    with server.http() as http:
        answer = http.get(f"/v1/sprites/{sprite.name}/fs/read", params={"path": path}, timeout=20)
    assert 400 <= answer.status_code < 500, answer.text


def test_a_broken_upload_changes_nothing(server: serving.Server, sprite: Any) -> None:
    def body() -> Any:
        yield b"x" * 1_000_000
        raise RuntimeError("the client breaks off")

    serving.run(sprite, "echo old > file")
    with server.http() as http, pytest.raises(RuntimeError):
        http.put(f"/v1/sprites/{sprite.name}/fs/write", params={"path": "/home/sprite/file"}, content=body())
    assert serving.run(sprite, "cat file; sleep 0.5; ls -A | grep -c part || true") == "old\n0"


def test_new_files_belong_to_the_user(server: serving.Server, sprite: Any) -> None:
    with server.http() as http:
        path = f"/v1/sprites/{sprite.name}/fs/write"
        made = http.put(path, params={"path": "/home/sprite/d/e/f", "mode": "0640"}, content=b"hello")
        assert made.status_code == 200 and made.json()["size"] == 5
        assert http.put(path, params={"path": "/etc/x"}, content=b"").status_code == 403
        assert http.put(path, params={"path": "/etc/x", "asRoot": "true"}, content=b"").status_code == 200
    assert serving.run(sprite, "stat -c '%U %a' d/e/f; stat -c %U /etc/x") == "sprite 640\nroot"


def test_nothing_of_the_host_shows(server: serving.Server, sprite: Any) -> None:
    seen = serving.run(
        sprite, "cat /proc/mounts /proc/self/mountinfo; sudo cat /sys/block/*/loop/backing_file", check=False
    )
    for secret in (str(server.data), "/run/spriggan", server.instance):
        assert secret not in seen, [line for line in seen.splitlines() if secret in line]
