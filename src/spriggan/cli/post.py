"""A command in a sprite by one HTTP request: its input is the body, its output the answer.

Each chunk of the answer is a frame, so the answer is read chunk by chunk, which HTTP libraries hide.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

import h11

from spriggan import __version__
from spriggan.cli.endpoint import Endpoint, unreachable
from spriggan.cli.refusal import refusal
from spriggan.errors import Broken
from spriggan.wire.frames import Stream

CONNECT_TIMEOUT_S = 5
CHUNK = 32 * 1024


def run(endpoint: Endpoint, path: str, query: list[tuple[str, str]], *, stdin: bool) -> int:
    """Run the command with this process's input and output; return its exit code."""
    try:
        connection = _connect(endpoint)
    except OSError as error:
        raise unreachable(endpoint, error) from error
    with connection:
        exchange = _Exchange(connection)
        headers = [
            ("Host", urlsplit(endpoint.url).netloc),
            ("User-Agent", f"spriggan/{__version__}"),
            ("Content-Type", "application/octet-stream"),
            ("Transfer-Encoding", "chunked"),
            *endpoint.headers.items(),
        ]
        exchange.send(h11.Request(method="POST", target=f"{path}?{urlencode(query)}", headers=headers))
        if stdin:
            threading.Thread(target=_send_input, args=(exchange,), daemon=True).start()
        else:
            exchange.send(h11.EndOfMessage())
        try:
            return _show(exchange, endpoint)
        except (OSError, h11.RemoteProtocolError, EOFError) as error:
            raise Broken(
                f"the connection was lost before the command ended ({error or type(error).__name__})",
                hint="'spriggan sessions list' shows what still runs",
            ) from error


class _Exchange:
    """The request and its answer, for one thread that sends and one that receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._http = h11.Connection(h11.CLIENT)
        self._lock = threading.Lock()

    def send(self, event: h11.Event) -> None:
        with self._lock:
            data = self._http.send(event)
        self._socket.sendall(data or b"")

    def events(self) -> Iterator[h11.Event]:
        """What the server says, to the end of its answer."""
        while True:
            with self._lock:
                event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = self._socket.recv(65536)
                with self._lock:
                    self._http.receive_data(data)
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise EOFError("the server closed the connection")
            elif isinstance(event, h11.Event):
                yield event
                if isinstance(event, h11.EndOfMessage):
                    return


def _connect(endpoint: Endpoint) -> socket.socket:
    if endpoint.socket:
        local = socket.socket(socket.AF_UNIX)
        local.connect(str(endpoint.socket))
        return local
    url = urlsplit(endpoint.url)
    secure = url.scheme == "https"
    address = (url.hostname or "", url.port or (443 if secure else 80))
    connection = socket.create_connection(address, CONNECT_TIMEOUT_S)
    connection.settimeout(None)
    if secure:
        return ssl.create_default_context().wrap_socket(connection, server_hostname=url.hostname)
    return connection


def _send_input(exchange: _Exchange) -> None:
    with suppress(OSError, h11.LocalProtocolError):  # the command has ended
        while data := os.read(0, CHUNK):
            exchange.send(h11.Data(data=data))
        exchange.send(h11.EndOfMessage())


def _show(exchange: _Exchange, endpoint: Endpoint) -> int:
    """Pass on the output; return the exit code."""
    status, body, code = 0, bytearray(), None
    for event in exchange.events():
        if isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if status == 200 and event.chunk_end:
                code = _frame(bytes(body), code)
                body.clear()
    if status != 200:
        raise refusal(status, body.decode(errors="replace"), endpoint)
    if code is None:
        raise EOFError("no exit code came")
    return code


def _frame(frame: bytes, code: int | None) -> int | None:
    if frame[0] == Stream.EXIT and len(frame) == 2:
        return frame[1]
    if frame[0] in (Stream.STDOUT, Stream.STDERR):
        fd = 1 if frame[0] == Stream.STDOUT else 2
        view = memoryview(frame)[1:]
        while view:
            view = view[os.write(fd, view) :]
    return code
