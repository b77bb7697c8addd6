"""Two data directories on one host keep to their own."""

from __future__ import annotations

import subprocess

import serving


def test_side_by_side_also_in_recovery(server: serving.Server) -> None:
    ours = server.client().create_sprite("mine")
    try:
        serving.run(ours, "echo ours > f; (sleep 4711 &)")
        with serving.server() as other:
            other.start()
            theirs = other.client().create_sprite("mine")
            assert serving.run(theirs, "echo theirs > f; ls") == "f"
            other.kill()
            other.start()
            assert serving.run(theirs, "cat f") == "theirs"
            assert serving.run(ours, "cat f; pgrep -fc '[s]leep 4711'") == "ours\n1"
        assert serving.run(ours, "cat f; pgrep -fc '[s]leep 4711'") == "ours\n1"
    finally:
        ours.delete()


def test_a_second_server_on_the_same_directory_is_refused(server: serving.Server) -> None:
    command = [serving.SPRIGGAN, "serve", "--data", str(server.data), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "hint" in done.stderr
