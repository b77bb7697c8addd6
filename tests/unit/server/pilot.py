"""A small app on a unix socket that answers like a pilot, and tells what reached it."""

from __future__ import annotations

import asyncio
import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

FRAMES = [b"\x01out", b"\x02err", b"\x01" + b"x" * 16_000, b"\x03\x07"]


class Pilot:
    """The app, and what happened in it."""

    def __init__(self) -> None:
        self.reset()
        self.app = Starlette(
            routes=[
                WebSocketRoute("/exec", self.exec_socket),
                WebSocketRoute("/exec/{id}", self.attach),
                WebSocketRoute("/control", self.control),
                Route("/exec", self.sessions),
                Route("/exec", self.exec_http, methods=["POST"]),
                Route("/exec/{id}/kill", self.echo, methods=["POST"]),
                Route("/fs/read", self.read),
                Route("/fs/write", self.write, methods=["PUT"]),
                Route("/fs/list", self.echo),
                Route("/fs/delete", self.endless, methods=["DELETE"]),
            ]
        )

    def reset(self) -> None:
        self.received = 0
        self.disconnected = asyncio.Event()
        self.release = asyncio.Event()

    async def exec_socket(self, socket: WebSocket) -> None:
        query = socket.query_params
        if query.get("id") == "nobody":
            await socket.send_denial_response(JSONResponse({"error": "no such session"}, 404))
            return
        await socket.accept(headers=[(b"x-sprite-capabilities", b"signal")])
        await socket.send_json({"type": "session_info", "session_id": "1", "tty": False})
        command = query.getlist("cmd")
        if command[0] == "cat":
            while (data := await socket.receive_bytes())[0] != 4:
                self.received += len(data) - 1
                await socket.send_bytes(b"\x01" + data[1:])
        elif command[0] == "headers":
            shown = {"path": socket.url.path, "headers": dict(socket.headers)}
            await socket.send_bytes(b"\x01" + json.dumps(shown).encode())
        elif command[0] == "flood":
            for _ in range(int(command[1])):
                await socket.send_bytes(b"\x01" + b"z" * 65_000)
        elif command[0] == "wait":
            try:
                while (await socket.receive())["type"] != "websocket.disconnect":
                    pass
            finally:
                self.disconnected.set()
            return
        else:
            await socket.send_bytes(b"\x01" + " ".join(command).encode())
        await socket.send_bytes(b"\x03\x05" if command[0] == "fail" else b"\x03\x00")
        await socket.close()

    async def attach(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"type": "session_info", "session_id": socket.path_params["id"], "tty": False})
        await socket.send_bytes(b"\x01" + socket.scope["raw_path"])
        await socket.send_bytes(b"\x03\x00")
        await socket.close()

    async def control(self, socket: WebSocket) -> None:
        """Echo. The official client's operations are refused, for it to go on without."""
        if socket.headers.get("user-agent", "").startswith("sprites-"):
            await socket.send_denial_response(JSONResponse({"error": "not here"}, 404))
            return
        await socket.accept()
        while (message := await socket.receive())["type"] != "websocket.disconnect":
            await socket.send({"type": "websocket.send", **{k: message.get(k) for k in ("text", "bytes")}})

    async def sessions(self, request: Request) -> Response:
        return JSONResponse({"count": 0, "sessions": []})

    async def exec_http(self, request: Request) -> Response:
        body = await request.body()

        async def frames():  # type: ignore[no-untyped-def]
            for frame in FRAMES:
                yield frame
            if body:
                yield b"\x01" + body

        return StreamingResponse(frames(), media_type="application/octet-stream")

    async def echo(self, request: Request) -> Response:
        shown = {
            "method": request.method,
            "path": request.scope["raw_path"].decode(),
            "query": request.url.query,
            "headers": dict(request.headers),
            "body": (await request.body()).decode(),
        }
        return JSONResponse(shown, headers={"Keep-Alive": "timeout=5"})

    async def read(self, request: Request) -> Response:
        if request.query_params.get("path") == "/missing":
            return JSONResponse({"error": "no such file", "code": "ENOENT", "path": "/missing"}, 404)
        return Response(b"r" * int(request.query_params["path"].strip("/")))

    async def write(self, request: Request) -> Response:
        if request.query_params.get("path") == "/refused":
            return JSONResponse({"error": "is a directory", "code": "EISDIR", "path": "/refused"}, 400)
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            self.received += len(chunk)
            if request.query_params.get("path") == "/slow":
                await self.release.wait()
        return JSONResponse({"path": request.query_params["path"], "size": size, "mode": "0644"})

    async def endless(self, request: Request) -> Response:
        async def lines():  # type: ignore[no-untyped-def]
            try:
                while True:
                    yield b"tick\n"
                    await asyncio.sleep(0.02)
            finally:
                self.disconnected.set()

        return StreamingResponse(lines())
