"""A command in a sprite, joined to this process: its input, output, signals and exit code.

Non-TTY sessions frame each binary message with a byte that names the stream; TTY sessions
carry the bytes of the terminal as they are. Text messages are JSON in both.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import click
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from spriggan.cli import terminal
from spriggan.cli.endpoint import Endpoint
from spriggan.cli.forwarding import Forwarding
from spriggan.cli.websocket import open_socket
from spriggan.errors import Broken
from spriggan.wire.frames import Stream, frame

CHUNK = 32 * 1024
DETACH_KEY = b"\x1c"  # Ctrl+\
END_OF_FILE_KEY = b"\x04"  # Ctrl+D, the only end of input that a terminal knows
# This many Ctrl-C within this time: leave, whatever the command makes of them.
INTERRUPTS, INTERRUPT_SECONDS = 3, 2.0


@dataclass(frozen=True)
class Attachment:
    """What to join: a command that ``query`` starts, or the session at ``path``."""

    path: str
    query: list[tuple[str, str]] = field(default_factory=list)
    tty: bool | None = None  # None: as the session was started; the server says
    stdin: bool = True
    forward: str = ""  # path of the sprite whose opened ports are forwarded to this machine


def run(endpoint: Endpoint, attachment: Attachment) -> NoReturn:
    """Join the command, stay until it ends or is left, and exit with its code."""
    code, note = asyncio.run(_run(endpoint, attachment))
    if note:
        click.echo(f"spriggan: {note}", err=True)
    # A thread may sit in a write that nobody takes, and the interpreter would wait for it.
    # Nothing is buffered here that could be lost.
    os._exit(code)


async def _run(endpoint: Endpoint, attachment: Attachment) -> tuple[int, str]:
    forwarding = Forwarding(endpoint, attachment.forward) if attachment.forward else None
    try:
        async with await open_socket(endpoint, attachment.path, attachment.query) as socket:
            return await Session(socket, attachment, forwarding).run()
    finally:
        if forwarding:
            await forwarding.close()


class Session:
    """One conversation with a command."""

    def __init__(
        self, socket: ClientConnection, attachment: Attachment, forwarding: Forwarding | None
    ) -> None:
        self._socket = socket
        self._forwarding = forwarding
        self._attachment = attachment
        self._attaching = attachment.tty is None
        self._tty = bool(attachment.tty)
        self._id = ""
        self._exit_code: int | None = None
        # Set to an exit code and a note when we go while the command stays.
        self._left: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._interrupts: deque[float] = deque(maxlen=INTERRUPTS)
        self._tasks: set[asyncio.Task[None]] = set()
        # Not the loop's own: that one is waited for even if its thread is stuck.
        self._writer = ThreadPoolExecutor(1)

    async def run(self) -> tuple[int, str]:
        """Converse until the command ends or is left; return the exit code and a note for the person."""
        with ExitStack() as undo:
            try:
                if self._attaching:
                    await self._learn_mode()
                self._catch_signals(undo)
                if self._tty:
                    undo.enter_context(terminal.raw(0))
                if self._attachment.stdin:
                    loop = asyncio.get_running_loop()
                    threading.Thread(target=self._read_input, args=(loop,), daemon=True).start()
                ended = asyncio.ensure_future(self._receive_all())
                either: list[asyncio.Future[Any]] = [ended, self._left]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    ended.cancel()
                    return self._left.result()
                return await ended, ""
            except ConnectionClosed as error:
                raise self._lost(error) from error

    async def _learn_mode(self) -> None:
        """Read up to the message that tells whether the session has a terminal."""
        while not self._id:
            message = await self._socket.recv()
            if isinstance(message, str):
                self._control(message)
        if self._tty:
            await self._resize()

    # From the command

    async def _receive_all(self) -> int:
        """Pass on everything that the command says; return its exit code."""
        while self._exit_code is None:
            message = await self._socket.recv()
            if isinstance(message, str):
                self._control(message)
            elif self._tty:
                await self._write(1, message)
            elif not message:
                continue
            elif message[0] == Stream.STDOUT:
                await self._write(1, message[1:])
            elif message[0] == Stream.STDERR:
                await self._write(2, message[1:])
            elif message[0] == Stream.EXIT and len(message) > 1:
                self._exit_code = message[1]
        return self._exit_code

    def _control(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "session_info":
            self._id = str(message.get("session_id", ""))
            if self._attaching:
                self._tty = bool(message.get("tty"))
        elif kind == "exit" and isinstance(message.get("exit_code"), int):
            self._exit_code = message["exit_code"] & 0xFF
        elif kind in ("port_opened", "port_closed") and self._forwarding:
            self._start(self._forward(kind, message.get("port")))
        elif kind == "error":
            text = str(message.get("message") or message.get("error"))
            raise Broken(text, hint=str(message.get("hint") or ""))

    async def _forward(self, kind: str, port: object) -> None:
        """Offer on this machine what listens in the sprite, under the same number if that is free."""
        if not self._forwarding or isinstance(port, bool) or not isinstance(port, int):
            return
        if kind == "port_closed":
            await self._forwarding.stop(port)
            return
        local = await self._forwarding.offer(port)
        note = f"port {port} of the sprite is at 127.0.0.1:{local}" if local else f"port {port} is taken here"
        await self._write(2, f"spriggan: {note}\r\n".encode())

    async def _write(self, fd: int, data: bytes) -> None:
        """Write all of ``data``; in a thread, because whoever reads it may take their time."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, _write_all, fd, data)
        except BrokenPipeError:
            # Nobody reads any more. A local command would get SIGPIPE; this is as close as it gets.
            await self._send_signal("TERM")
            self._leave(128 + signal.SIGPIPE)

    # To the command

    def _read_input(self, loop: asyncio.AbstractEventLoop) -> None:
        """Thread: read standard input, which may be a file, a pipe or a terminal, and send it on.

        Each chunk is sent before the next is read, so a slow command slows its producer down.
        """
        marker = b"" if self._tty else frame(Stream.STDIN, b"")
        detachable = self._tty and os.isatty(0)
        with suppress(ConnectionClosed, RuntimeError, concurrent.futures.CancelledError):  # it has ended
            while data := _read(0):
                before, key, _ = data.partition(DETACH_KEY) if detachable else (data, b"", b"")
                if before:
                    asyncio.run_coroutine_threadsafe(self._socket.send(marker + before), loop).result()
                if key:
                    loop.call_soon_threadsafe(self._leave, 0)
                    return
            end = END_OF_FILE_KEY if self._tty else frame(Stream.STDIN_EOF, b"")
            asyncio.run_coroutine_threadsafe(self._socket.send(end), loop).result()

    def _catch_signals(self, undo: ExitStack) -> None:
        handlers: dict[signal.Signals, Callable[[], None]] = {signal.SIGINT: self._interrupted}
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            # Without a terminal the command gets what we got. With one, the session outlives us.
            handlers[number] = (
                partial(self._leave, 128 + number) if self._tty else partial(self._pass_on, number)
            )
        if self._attaching:
            handlers[signal.SIGQUIT] = partial(self._leave, 0)  # Ctrl+\ at a terminal that is not raw
        if self._tty:
            handlers[signal.SIGWINCH] = lambda: self._start(self._resize())
        loop = asyncio.get_running_loop()
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)
            undo.callback(loop.remove_signal_handler, number)

    def _interrupted(self) -> None:
        now = asyncio.get_running_loop().time()
        self._interrupts.append(now)
        if len(self._interrupts) == INTERRUPTS and now - self._interrupts[0] < INTERRUPT_SECONDS:
            self._leave(130)
        else:
            self._pass_on(signal.SIGINT)

    def _pass_on(self, number: signal.Signals) -> None:
        self._start(self._send_signal(number.name.removeprefix("SIG")))

    async def _send_signal(self, name: str) -> None:
        await self._send({"type": "signal", "signal": name})

    async def _resize(self) -> None:
        rows, columns = terminal.dimensions()
        await self._send({"type": "resize", "rows": rows, "cols": columns})

    async def _send(self, message: dict[str, Any]) -> None:
        with suppress(ConnectionClosed):
            await self._socket.send(json.dumps(message))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    # The end

    def _leave(self, code: int) -> None:
        """Go although the command may go on."""
        quietly = code == 128 + signal.SIGPIPE
        note = (
            ""
            if quietly
            else f"left session {self._id}; to see it again: spriggan sessions attach {self._id}"
        )
        if not self._left.done():
            self._left.set_result((code, note))

    def _lost(self, error: ConnectionClosed) -> Broken:
        reason = f" ({error.rcvd.reason})" if error.rcvd and error.rcvd.reason else ""
        hint = "'spriggan sessions list' shows what still runs"
        if self._id:
            hint = f"if it still runs, 'spriggan sessions attach {self._id}' shows all it has said"
        return Broken(f"the connection was lost before the command ended{reason}", hint=hint)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, CHUNK)
    except OSError:  # a terminal that was hung up
        return b""


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
