"""A server that plays the Sprites API: real HTTP, real WebSockets, real local processes as commands."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import termios
import threading
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

TOKEN = "spriggan/a/b/secret"


class PlayedServer:
    """Serves on ``data``/api.sock without token, and on a TCP port with one."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.sprites: dict[str, dict[str, Any]] = {}
        self.checkpoints: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.texts: list[dict[str, Any]] = []  # text messages of clients
        self.queries: list[dict[str, list[str]]] = []
        self.drop_exec_after: int | None = None  # close the socket after so many messages, without an exit
        self._server: uvicorn.Server
        self._thread: threading.Thread

    def add(self, name: str, **more: Any) -> None:
        now = "2026-01-01T00:00:00Z"
        self.sprites[name] = {
            "name": name,
            "organization": "home",
            "status": "cold",
            "created_at": now,
        } | more

    def __enter__(self) -> PlayedServer:
        self.data.mkdir(parents=True)
        local = socket.socket(socket.AF_UNIX)
        local.bind(str(self.data / "api.sock"))
        remote = socket.socket()
        remote.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{remote.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app(),
                log_level="error",
                ws="websockets-sansio",
                lifespan="off",
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([local, remote],))
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive()
            threading.Event().wait(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def _app(self) -> Starlette:
        one = "/v1/sprites/{name}"
        return Starlette(
            routes=[
                Route("/v1/sprites", self._list),
                Route("/v1/sprites", self._create, methods=["POST"]),
                Route(one, self._get),
                Route(one, self._delete, methods=["DELETE"]),
                Route(one + "/fork", self._fork, methods=["POST"]),
                Route(one + "/stop", self._stop, methods=["POST"]),
                Route(one + "/checkpoint", self._checkpoint, methods=["POST"]),
                Route(one + "/checkpoints", self._checkpoints),
                Route(one + "/checkpoints/{id}/restore", self._restore, methods=["POST"]),
                Route(one + "/exec", self._sessions),
                Route(one + "/exec/{id}/kill", self._kill, methods=["POST"]),
                WebSocketRoute(one + "/exec", self._exec),
                WebSocketRoute(one + "/exec/{id}", self._attach),
            ]
        )

    # Sprites

    async def _list(self, request: Request) -> Response:
        self._note(request)
        query = request.query_params
        names = sorted(n for n in self.sprites if n.startswith(query.get("prefix", "")))
        start = int(query.get("continuation_token", "0"))
        page = names[start : start + int(query["max_results"])]
        more = start + len(page) < len(names)
        return JSONResponse(
            {
                "sprites": [self.sprites[n] for n in page],
                "has_more": more,
                "next_continuation_token": str(start + len(page)) if more else None,
            }
        )

    async def _create(self, request: Request) -> Response:
        self._note(request)
        body = await request.json()
        if body["name"] in self.sprites:
            return _error(409, f"the sprite {body['name']} exists", "choose another name")
        self.add(**body)
        return JSONResponse(self.sprites[body["name"]], 201)

    async def _get(self, request: Request) -> Response:
        self._note(request)
        if self.url.split(":")[-1] == str(request.url.port) and not _authorized(request.headers):
            return _error(401, "no valid token", "")
        sprite = self.sprites.get(request.path_params["name"])
        return JSONResponse(sprite) if sprite else _missing()

    async def _delete(self, request: Request) -> Response:
        self._note(request)
        return (
            Response(status_code=204) if self.sprites.pop(request.path_params["name"], None) else _missing()
        )

    async def _fork(self, request: Request) -> Response:
        self._note(request)
        body = await request.json()
        self.add(body["name"], source=request.path_params["name"], checkpoint=body.get("checkpoint"))
        return JSONResponse(self.sprites[body["name"]], 201)

    async def _stop(self, request: Request) -> Response:
        self._note(request)
        self.sprites[request.path_params["name"]]["status"] = "cold"
        return JSONResponse(self.sprites[request.path_params["name"]])

    # Checkpoints

    async def _checkpoint(self, request: Request) -> Response:
        comment = (await request.json()).get("comment", "")
        if comment == "full":
            return _stream(
                {"type": "info", "data": "Freezing"}, {"type": "error", "error": "the pool is full"}
            )
        if comment == "cut":
            return _stream({"type": "info", "data": "Freezing"})
        made = {
            "id": f"v{len(self.checkpoints) + 1}",
            "create_time": "2026-01-01T00:00:00Z",
            "comment": comment,
        }
        self.checkpoints.append(made)
        return _stream(
            {"type": "info", "data": f"  ID: {made['id']}"},
            {"type": "complete", "data": f"Checkpoint {made['id']} created successfully"},
        )

    async def _checkpoints(self, request: Request) -> Response:
        return JSONResponse([{"id": "Current", "create_time": "2026-01-01T00:00:00Z"}, *self.checkpoints])

    async def _restore(self, request: Request) -> Response:
        self._note(request)
        return _stream({"type": "info", "data": "Restoring"}, {"type": "complete", "data": "Restored"})

    # Sessions

    async def _sessions(self, request: Request) -> Response:
        row = {"id": "12", "command": "evil\x1b]0;title\x07", "tty": True, "created": "2026-01-01T00:00:00Z"}
        return JSONResponse({"count": 1, "sessions": [row]})

    async def _kill(self, request: Request) -> Response:
        self._note(request)
        return _stream({"type": "signal", "message": "signal sent"}, {"type": "complete", "exit_code": 143})

    async def _exec(self, socket: WebSocket) -> None:
        if socket.path_params["name"] not in self.sprites:
            await socket.send_denial_response(_missing())
            return
        query = socket.query_params
        self.queries.append({key: query.getlist(key) for key in query})
        await socket.accept()
        await (self._tty if query.get("tty") == "true" else self._pipes)(socket)

    async def _attach(self, socket: WebSocket) -> None:
        await socket.accept()
        tty = socket.path_params["id"] == "12"
        await socket.send_json({"type": "session_info", "session_id": socket.path_params["id"], "tty": tty})
        await socket.send_bytes(b"replayed" if tty else b"\x01replayed")
        if tty:
            await socket.receive()
            await socket.send_json({"type": "exit", "exit_code": 3})
        else:
            await socket.send_bytes(b"\x03\x03")
        await socket.close()

    async def _pipes(self, socket: WebSocket) -> None:
        query = socket.query_params
        env = dict(item.split("=", 1) for item in query.getlist("env"))
        process = await asyncio.create_subprocess_exec(
            *query.getlist("cmd"),
            stdin=asyncio.subprocess.PIPE if query["stdin"] == "true" else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=os.environ | env,
            cwd=query.get("dir"),
            start_new_session=True,
        )
        await socket.send_json({"type": "session_info", "session_id": "7", "tty": False})

        async def pump(stream: asyncio.StreamReader, kind: bytes) -> None:
            count = 0
            while data := await stream.read(65536):
                await socket.send_bytes(kind + data)
                count += 1
                if count == self.drop_exec_after:
                    await socket.close(1011, "gone")
                    return

        async def feed() -> None:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    _end(process)  # the played server keeps no session
                    return
                if text := message.get("text"):
                    self._text(json.loads(text), process.pid)
                elif message["bytes"][:1] == b"\x04" and process.stdin:
                    process.stdin.close()
                elif process.stdin:
                    process.stdin.write(message["bytes"][1:])
                    await process.stdin.drain()

        feeding = asyncio.ensure_future(feed())
        assert process.stdout
        assert process.stderr
        try:
            await asyncio.gather(pump(process.stdout, b"\x01"), pump(process.stderr, b"\x02"))
            code = await process.wait()
            await socket.send_bytes(bytes([3, code if code >= 0 else 128 - code]))
            await socket.close()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            feeding.cancel()
            _end(process)

    async def _tty(self, socket: WebSocket) -> None:
        query = socket.query_params
        env = dict(item.split("=", 1) for item in query.getlist("env"))
        master, slave = pty.openpty()
        _set_size(master, int(query["rows"]), int(query["cols"]))
        process = await asyncio.create_subprocess_exec(
            *("setsid", "--ctty"),
            *query.getlist("cmd"),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | env,
        )
        os.close(slave)
        await socket.send_json({"type": "session_info", "session_id": "7", "tty": True})

        async def feed() -> None:
            while (message := await socket.receive())["type"] != "websocket.disconnect":
                if text := message.get("text"):
                    sent = json.loads(text)
                    self._text(sent, process.pid)
                    if sent["type"] == "resize":
                        _set_size(master, sent["rows"], sent["cols"])
                else:
                    os.write(master, message["bytes"])
            _end(process)  # the played server keeps no session

        feeding = asyncio.ensure_future(feed())
        try:
            while data := await asyncio.to_thread(_read, master):
                await socket.send_bytes(data)
            code = await process.wait()
            await socket.send_json({"type": "exit", "exit_code": code if code >= 0 else 128 - code})
            await socket.close()
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            os.close(master)
            feeding.cancel()
            _end(process)

    def _text(self, message: dict[str, Any], pid: int) -> None:
        self.texts.append(message)
        if message["type"] == "signal":
            os.kill(pid, getattr(signal, "SIG" + message["signal"]))

    def _note(self, request: Request) -> None:
        self.requests.append((request.method, str(request.url.path) + "?" + request.url.query))


def _end(process: asyncio.subprocess.Process) -> None:
    """Kill ``process`` with its children, and close its pipes.

    What is left to the garbage collector complains after the loop has closed, and does so in
    whatever code the test run happens to be in.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process._transport.close()  # type: ignore[attr-defined]


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # the last process of the terminal has ended
        return b""


def _set_size(fd: int, rows: int, cols: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def _authorized(headers: Any) -> bool:
    return bool(headers.get("authorization") == f"Bearer {TOKEN}")


def _error(status: int, message: str, hint: str) -> JSONResponse:
    return JSONResponse({"error": message, "code": "x", "message": message, "hint": hint}, status)


def _missing() -> JSONResponse:
    return _error(404, "there is no such sprite", "see 'spriggan list'")


def _stream(*messages: dict[str, Any]) -> StreamingResponse:
    return StreamingResponse((json.dumps(m) + "\n" for m in messages), media_type="application/x-ndjson")
