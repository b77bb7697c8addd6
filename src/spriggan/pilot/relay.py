"""One client's conversation with one session: output and its end go out, input and signals come in.

The same over a socket of its own and over a control connection, which end differently.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Protocol

from spriggan.pilot.ports import Ports
from spriggan.pilot.sessions import Attachment, Session
from spriggan.pilot.spool import Batch
from spriggan.wire import messages
from spriggan.wire.frames import Control, Input, InputEnd, Stream, exit_frame, frame, parse_input

KEEPALIVE_S = 20.0  # one official client gives up after 45 s without a message
ANNOUNCE_AFTER_S = 0.2  # most commands are over before, and need not have the ports looked at
log = logging.getLogger(__name__)

_END_OF_INPUT = bytes((Stream.STDIN_EOF,))


class Line(Protocol):
    """Where messages go to: a WebSocket."""

    async def send_text(self, data: str) -> None: ...

    async def send_bytes(self, data: bytes) -> None: ...


class Relay:
    """``owner``: this client started the session. ``watches``: it sends the end of input when it
    attaches, before it knows whether there is a terminal, which would take that for ^D.
    """

    def __init__(
        self,
        line: Line,
        session: Session,
        attachment: Attachment,
        *,
        ports: Ports,
        owner: bool,
        takes_input: bool = True,
        watches: bool = False,
    ) -> None:
        self._line = line
        self._session = session
        self._attachment = attachment
        self._ports = ports
        self._takes_input = takes_input
        self._watches = watches
        # Whether the end of this client's input is the end of the command's. Of one that attached that
        # is so only after it has sent some: the official Python client ends its input when it only watches.
        self._may_end = owner

    @property
    def tty(self) -> bool:
        """Whether the session has a terminal."""
        return self._session.tty

    async def greet(self) -> None:
        """Say what the session is: the first message, also before any output that is replayed."""
        session = self._session
        await self._line.send_text(
            messages.session_info(
                session.id,
                command=session.command,
                created=int(session.created),
                rows=session.rows,
                cols=session.cols,
                is_owner=self._attachment.owner,
                tty=session.tty,
            )
        )

    async def send_output(self) -> int:
        """Send all output, from the start, then the exit code; return that when the session has ended."""
        announcing = asyncio.create_task(self._announce())
        try:
            async for batch in self._attachment.batches(KEEPALIVE_S):
                if batch is None:
                    await self._line.send_text(messages.KEEPALIVE)
                else:
                    await self._send(batch)
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
        code = self._session.exit_code or 0
        await send_exit(self._line, code, tty=self.tty)
        return code

    async def take(self, message: dict[str, Any]) -> None:
        """Take what the client sent: ``text`` or ``bytes``, as ASGI has it."""
        if (text := message.get("text")) is not None:
            self._control(text)
        elif (data := message.get("bytes")) is not None:
            await self._input(data)

    async def _announce(self) -> None:
        """Tell of every port that is open or opens, and of those that close."""
        await asyncio.sleep(ANNOUNCE_AFTER_S)
        try:
            await self._ports.now()
            async for message in self._ports.changes([]):
                await self._line.send_text(json.dumps(message))
        except OSError as error:
            log.warning("open ports cannot be told: %s", error)

    async def _send(self, batch: Batch) -> None:
        tty = self.tty
        if batch.lost:
            words = f"{batch.lost} bytes of older output are not kept any more"
            await self._line.send_text(messages.truncated(batch.lost, words))
            notice = f"[spriggan: {words}]\n".encode()
            await self._line.send_bytes(notice if tty else frame(Stream.STDERR, notice))
        for stream, payload in batch.records:
            await self._line.send_bytes(payload if tty else frame(stream, payload))

    async def _input(self, data: bytes) -> None:
        if self.tty:
            first, self._watches = self._watches, False
            if first and data == _END_OF_INPUT:
                return
            # One client sends its control messages as binary; nobody types such a line.
            if not (data.startswith(b'{"type"') and self._control(data.decode(errors="replace"))):
                await self._write(data)
            return
        match parse_input(data):
            case Input(payload):
                await self._write(payload)
            case InputEnd():
                if self._may_end and self._takes_input:
                    self._session.close_input()
            case Control(text):
                if not self._control(text):
                    await self._write(data)  # an old client's input, which has no marker

    async def _write(self, data: bytes) -> None:
        self._may_end = True
        if self._takes_input:
            await self._session.write(data)

    def _control(self, text: str) -> bool:
        match messages.parse_control(text):
            case messages.Resize(rows, cols):
                self._session.resize(rows, cols)
            case messages.Signal(number):
                self._session.signal(number)
            case None:
                return False
        return True


async def send_exit(line: Line, code: int, *, tty: bool) -> None:
    """Say how a command ended: in a frame, or with a terminal, whose bytes have none, in a text."""
    if tty:
        await line.send_text(messages.exit_message(code))
    else:
        await line.send_bytes(exit_frame(code))


def close_code(code: int, *, tty: bool) -> int:
    """What to close the socket with. With a terminal one official client knows the exit code from it only."""
    return 1000 if code == 0 or not tty else 4000 + code


async def send_failure(line: Line, *, command: str, rows: int, cols: int, tty: bool, words: str) -> None:
    """Tell of a command that could not be started as a shell would: its words, as from the command."""
    await line.send_text(
        messages.session_info("0", command=command, created=0, rows=rows, cols=cols, is_owner=True, tty=tty)
    )
    text = f"{words}\n".encode()
    await line.send_bytes(text.replace(b"\n", b"\r\n") if tty else frame(Stream.STDERR, text))
