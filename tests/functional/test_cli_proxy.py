"""``spriggan proxy`` and the ports that ``exec`` offers, as processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from typing import IO, Any

import serving
from proof import COMMAND_LINE, proves

# Answers with what it got, in upper case, once its client has said all.
SHOUT = """
import socket
server = socket.create_server(("127.0.0.1", 7001))
print("up", flush=True)
while True:
    connection, _ = server.accept()
    data = b""
    while piece := connection.recv(65536):
        data += piece
    connection.sendall(data.upper())
    connection.close()
"""


def ask(port: int, data: bytes) -> bytes:
    """Say ``data`` and its end, and return the whole answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def line_of(stream: IO[bytes] | None, pattern: str) -> re.Match[str]:
    """The next line that fits."""
    assert stream is not None
    while line := stream.readline().decode():
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"no line with {pattern}")


@proves("cli: proxy PORT and LOCAL:REMOTE", COMMAND_LINE)
def test_ports_are_reached_from_here(server: serving.Server, sprite: Any) -> None:
    listening = server.start_cli(
        "exec", "-s", sprite.name, "--no-port-forward", "--", "python3", "-c", SHOUT, stdout=subprocess.PIPE
    )
    line_of(listening.stdout, "up")
    data = os.urandom(5_000_000).hex().encode()
    proxying = server.start_cli("proxy", "-s", sprite.name, "0:7001", stderr=subprocess.PIPE)
    try:
        port = int(line_of(proxying.stderr, r"127.0.0.1:(\d+) is port 7001")[1])
        assert ask(port, data) == data.upper()
        assert [ask(port, b"again %d" % i) for i in range(3)] == [b"AGAIN %d" % i for i in range(3)]
        done = server.cli("proxy", "-s", sprite.name, "-W", ":7001", input=b"by stdio")
        assert (done.returncode, done.stdout) == (0, b"BY STDIO"), done.stderr
        refused = server.cli("proxy", "-s", sprite.name, "-W", "localhost:7999", input=b"")
        assert refused.returncode == 1 and b"hint" in refused.stderr
        proxying.send_signal(signal.SIGINT)
        assert proxying.wait(30) == 0
    finally:
        for process in (proxying, listening):
            process.kill()
            process.wait()
    for bad in (["0"], ["a:b"], ["70000"], [], ["1", "-W", ":1"], ["-W", "host:"]):
        assert server.cli("proxy", "-s", sprite.name, *bad).returncode in (1, 2), bad


@proves("cli: exec forwards the ports that its command opens", COMMAND_LINE)
def test_exec_offers_what_its_command_listens_on(server: serving.Server, sprite: Any) -> None:
    running = server.start_cli(
        "exec",
        "-s",
        sprite.name,
        "--",
        "python3",
        "-c",
        SHOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        port = int(line_of(running.stderr, r"port 7001 of the sprite is at 127.0.0.1:(\d+)")[1])
        assert ask(port, b"hello") == b"HELLO"
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
