"""A program that serves a sprite's URL, byte by byte as a test wants it, and a pilot that connects to it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Handler = Callable[[socket.socket], None]

_REFUSAL = {"error": "nothing listens", "message": "nothing listens", "hint": "start something"}


class Service:
    """Listens, and gives every connection to ``handle``, each in a thread. ``requests`` is all that came."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.requests: list[bytes] = []
        self.ended = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def head(self, connection: socket.socket) -> bytes:
        """Read one request's head, and keep it; what came behind it is kept with it."""
        data = b""
        while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
            data += more
        self.requests.append(data)
        return data

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.settimeout(20)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.handle(connection)
        self.ended.release()


@contextlib.contextmanager
def pilot(path: Path, port: Callable[[], int]) -> Iterator[None]:
    """Answers ``POST /pilot/connect`` with a connection to ``port``, as a pilot does."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = b""
            while not data.endswith(b"\r\n\r\n"):
                data += connection.recv(65536)
            assert data.startswith(b"POST /pilot/connect HTTP/1.1\r\n")
            status, body = "200 OK", b"{}"
            try:
                with socket.create_connection(("127.0.0.1", port())) as made:
                    made.setblocking(False)
                    socket.send_fds(connection, [b"HTTP/1.1 102 Processing\r\n\r\n"], [made.fileno()])
            except ConnectionRefusedError:
                status, body = "502 Bad Gateway", json.dumps(_REFUSAL).encode()
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1024)
        threading.Thread(target=accept, daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
