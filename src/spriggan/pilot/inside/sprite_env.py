"""``sprite-env``: its command line, understood here and answered by the sprite's own API.

The program inside only carries its arguments here and prints what comes back. So it works in any
image, also in one whose Python is broken, which is when a restore is needed most. An answer is
made of lines: ``1`` before a line for standard output, ``2`` before one for standard error, and at the
end ``=`` with the exit code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_ARGUMENTS = 1 << 20
FAILED, MISUSED = 1, 2

Given = dict[str, str]


@dataclass(frozen=True)
class Call:
    """A request of the API."""

    method: str
    path: str
    query: Given = field(default_factory=dict)
    body: dict[str, Any] | None = None


class Usage(Exception):
    """The command line is wrong."""


@dataclass(frozen=True)
class Command:
    """One thing that sprite-env does. ``options`` have a word for their value, or "" for none."""

    words: str
    names: tuple[str, ...]
    options: dict[str, str]
    help: str
    example: str
    call: Callable[[Given], Call]

    @property
    def usage(self) -> str:
        options = [f"[{name} {value}]" if value else f"[{name}]" for name, value in self.options.items()]
        return " ".join(["sprite-env", self.words, *self.names, *options])


def _service(given: Given, rest: str = "") -> str:
    return f"/v1/services/{quote(given['NAME'], safe='')}{rest}"


def _checkpoint(given: Given, rest: str = "") -> str:
    return f"/v1/checkpoints/{quote(given['ID'], safe='')}{rest}"


def _task(given: Given) -> str:
    return f"/v1/tasks/{quote(given['NAME'], safe='')}"


def _chosen(given: Given, *names: str) -> Given:
    """Query parameters for the options that were given."""
    return {name: given[f"--{name}"] for name in names if f"--{name}" in given}


def _watch(given: Given) -> Given:
    return {"duration": "0"} if "--no-stream" in given else _chosen(given, "duration")


def _create(given: Given) -> Call:
    if "--cmd" not in given:
        raise Usage("--cmd is missing: the program to run, without its arguments")
    body: dict[str, Any] = {"cmd": given["--cmd"]}
    for option, key in (("--args", "args"), ("--needs", "needs")):
        if option in given:
            body[key] = given[option].split(",") if given[option] else []
    if "--env" in given:
        body["env"] = _variables(given["--env"])
    if "--dir" in given:
        body["dir"] = given["--dir"]
    if "--http-port" in given:
        if not given["--http-port"].isascii() or not given["--http-port"].isdigit():
            raise Usage("--http-port is not a number")
        body["http_port"] = int(given["--http-port"][:9])
    return Call("PUT", _service(given), _watch(given), body)


def _variables(text: str) -> dict[str, str]:
    """``A=1,2,B=3`` sets A to ``1,2``: a part without ``=`` belongs to the value before it."""
    variables: dict[str, str] = {}
    name = ""
    for part in text.split(","):
        before, equals, after = part.partition("=")
        if equals:
            name = before
            variables[name] = after
        elif name:
            variables[name] += f",{part}"
        elif part:
            raise Usage("--env is not NAME=VALUE,NAME=VALUE")
    return variables


_CREATE = {
    "--cmd": "PROGRAM",
    "--args": "A,B",
    "--env": "K=V,K=V",
    "--dir": "PATH",
    "--needs": "A,B",
    "--http-port": "PORT",
    "--duration": "5s",
    "--no-stream": "",
}
_WATCH = {"--duration": "5s", "--no-stream": ""}
_EXAMPLE_SERVICE = (
    'sprite-env services create web --cmd python3 --args "-m,http.server,8000" --http-port 8000'
)

COMMANDS = (
    Command(
        "info", (), {}, "Show which sprite this is", "sprite-env info", lambda _: Call("GET", "/v1/info")
    ),
    Command(
        "services list",
        (),
        {},
        "List the services and their state",
        "sprite-env services list",
        lambda _: Call("GET", "/v1/services"),
    ),
    Command(
        "services get",
        ("NAME",),
        {},
        "Show one service",
        "sprite-env services get web",
        lambda given: Call("GET", _service(given)),
    ),
    Command(
        "services create",
        ("NAME",),
        _CREATE,
        "Create or change a service and start it",
        _EXAMPLE_SERVICE,
        _create,
    ),
    Command(
        "services start",
        ("NAME",),
        _WATCH,
        "Start a service, now and with the sprite",
        "sprite-env services start web",
        lambda given: Call("POST", _service(given, "/start"), _watch(given)),
    ),
    Command(
        "services stop",
        ("NAME",),
        {"--timeout": "10s"},
        "Stop a service until it is started again",
        "sprite-env services stop web",
        lambda given: Call("POST", _service(given, "/stop"), _chosen(given, "timeout")),
    ),
    Command(
        "services restart",
        ("NAME",),
        _WATCH,
        "Stop and start a service",
        "sprite-env services restart web",
        lambda given: Call("POST", _service(given, "/restart"), _watch(given)),
    ),
    Command(
        "services signal",
        ("NAME", "SIGNAL"),
        {},
        "Signal a service's process",
        "sprite-env services signal web HUP",
        lambda given: Call(
            "POST", "/v1/services/signal", body={"name": given["NAME"], "signal": given["SIGNAL"]}
        ),
    ),
    Command(
        "services logs",
        ("NAME",),
        {"--lines": "100", "--duration": "0s"},
        "Show the last lines of a service, and those that come",
        "sprite-env services logs web --lines 20",
        lambda given: Call("GET", _service(given, "/logs"), _chosen(given, "lines", "duration")),
    ),
    Command(
        "services delete",
        ("NAME",),
        {},
        "Stop and forget a service; its log stays",
        "sprite-env services delete web",
        lambda given: Call("DELETE", _service(given)),
    ),
    Command(
        "checkpoints list",
        (),
        {"--include-auto": ""},
        "List the checkpoints",
        "sprite-env checkpoints list",
        lambda given: Call(
            "GET", "/v1/checkpoints", {"includeAuto": "true"} if "--include-auto" in given else {}
        ),
    ),
    Command(
        "checkpoints create",
        (),
        {"--comment": "TEXT"},
        "Keep the disk as it is now; nothing stops",
        'sprite-env checkpoints create --comment "before the upgrade"',
        lambda given: Call("POST", "/v1/checkpoint", body={"comment": given.get("--comment", "")}),
    ),
    Command(
        "checkpoints get",
        ("ID",),
        {},
        "Show one checkpoint",
        "sprite-env checkpoints get v1",
        lambda given: Call("GET", _checkpoint(given)),
    ),
    Command(
        "checkpoints restore",
        ("ID",),
        {},
        "Put the disk back; everything that runs here ends, this command too",
        "sprite-env checkpoints restore v1",
        lambda given: Call("POST", _checkpoint(given, "/restore")),
    ),
    Command(
        "checkpoints mount",
        ("ID",),
        {},
        "Show one of the last five at /.sprite/checkpoints/ID, until nobody looks at it",
        "sprite-env checkpoints mount v1",
        lambda given: Call("POST", _checkpoint(given, "/mount")),
    ),
    Command(
        "checkpoints unmount",
        ("ID",),
        {},
        "Take it away again",
        "sprite-env checkpoints unmount v1",
        lambda given: Call("DELETE", _checkpoint(given, "/mount")),
    ),
    Command(
        "tasks list",
        (),
        {},
        "List what keeps the sprite awake from inside",
        "sprite-env tasks list",
        lambda _: Call("GET", "/v1/tasks"),
    ),
    Command(
        "tasks get",
        ("NAME",),
        {},
        "Show one task",
        "sprite-env tasks get build",
        lambda given: Call("GET", _task(given)),
    ),
    Command(
        "tasks create",
        ("NAME",),
        {"--expire": "1h"},
        "Keep the sprite awake, for an hour at most",
        "sprite-env tasks create build --expire 30m",
        lambda given: Call("POST", "/v1/tasks", body={"name": given["NAME"], **_chosen(given, "expire")}),
    ),
    Command(
        "tasks renew",
        ("NAME",),
        {"--expire": "1h"},
        "Create a task, or set its end anew",
        "sprite-env tasks renew build --expire 30m",
        lambda given: Call("PUT", _task(given), body=dict(_chosen(given, "expire"))),
    ),
    Command(
        "tasks delete",
        ("NAME",),
        {},
        "Let the sprite rest again",
        "sprite-env tasks delete build",
        lambda given: Call("DELETE", _task(given)),
    ),
)

CURL = "  curl [CURL OPTIONS] /v1/…                  Ask the API by hand, with the curl of this sprite"


def understand(argv: list[str]) -> Call | str:
    """The request that a command line means, or the help that it asks for. Raises ``Usage``."""
    words = [word for word in argv[argv[:1] == ["help"] :] if word not in ("-h", "--help")]
    asked = len(words) < len(argv) or not words
    matching = [
        command for command in COMMANDS if command.words.split() == words[: len(command.words.split())]
    ]
    if not matching:
        if asked:
            return _overview(words)
        raise Usage(f"there is no command {' '.join(words[:2])!r:.80}; see sprite-env --help")
    command = matching[0]
    if asked:
        return f"{command.help}.\n\nusage:   {command.usage}\nexample: {command.example}"
    try:
        return command.call(_given(command, argv[len(command.words.split()) :]))
    except Usage as error:
        raise Usage(f"{error}\nusage: {command.usage}") from None


def _given(command: Command, argv: list[str]) -> Given:
    """Names and options by what they are called in the usage."""
    given: Given = {}
    names = list(command.names)
    rest = iter(argv)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in command.options:
            takes = command.options[option]
            if takes and not equals:
                try:
                    value = next(rest)  # whatever it looks like: --args "-m,http.server"
                except StopIteration:
                    raise Usage(f"{option} has no value") from None
            elif equals and not takes:
                raise Usage(f"{option} takes no value")
            given[option] = value
        elif word.startswith("-"):
            raise Usage(f"there is no option {word!r:.80}")
        elif names and "/" not in word:
            given[names.pop(0)] = word
        else:
            raise Usage(f"{word!r:.80} does not belong here")
    if names:
        raise Usage(f"{names[0]} is missing")
    return given


def _overview(words: list[str]) -> str:
    shown = [
        command for command in COMMANDS if not words or command.words.startswith(f"{words[0]} ")
    ] or COMMANDS
    lines = [f"  {f'{command.words} ' + ' '.join(command.names):42} {command.help}" for command in shown]
    if shown is COMMANDS or not words:
        lines.append(CURL)
    return "\n".join(
        [
            "usage: sprite-env COMMAND …   (sprite-env COMMAND --help shows its options)",
            "",
            *lines,
            "",
            f"example: {_EXAMPLE_SERVICE}",
        ]
    )


class SpriteEnv:
    """The endpoint; ``app`` is what the requests go to. The body is the arguments, each with a NUL after it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            async for piece in Request(scope, receive).stream():
                body += piece[: MAX_ARGUMENTS - len(body)]
        except ClientDisconnect:
            return
        argv = [word.decode(errors="replace") for word in bytes(body).split(b"\0")[:-1]]
        answer = _Answer(send)
        await answer.start()
        try:
            wanted = understand(argv)
        except Usage as error:
            await answer.end([], f"error: {error}".splitlines(), MISUSED)
            return
        if isinstance(wanted, str):
            await answer.end(wanted.splitlines(), [], 0)
            return
        await self._app(_scope(scope, wanted), _receive(wanted, receive), answer.take)
        await answer.finish()


def _scope(scope: Scope, call: Call) -> Scope:
    return {
        **{key: scope[key] for key in ("type", "asgi", "http_version", "scheme", "server", "client")},
        "root_path": "",
        "method": call.method,
        "path": unquote(call.path),
        "raw_path": call.path.encode(),
        "query_string": urlencode(call.query).encode(),
        "headers": [(b"host", b"sprite"), (b"content-type", b"application/json")],
        "state": {},
    }


def _receive(call: Call, receive: Receive) -> Receive:
    """The request's body, and after it what the client does."""
    body = [b"" if call.body is None else json.dumps(call.body).encode()]

    async def take() -> Message:
        if body:
            return {"type": "http.request", "body": body.pop(), "more_body": False}
        return await receive()

    return take


class _Answer:
    """Turns a response of the API into lines for the program inside."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = 0
        self._stream = False
        self._rest = b""  # of a stream: the line that is not complete; else all there is
        self._last = b""

    async def start(self) -> None:
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def take(self, message: Message) -> None:
        """The ASGI ``send`` of the app that answers."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._stream = (b"content-type", b"application/x-ndjson") in message["headers"]
        elif message["type"] == "http.response.body":
            self._rest += message.get("body", b"")
            if self._stream:
                *lines, self._rest = self._rest.split(b"\n")
                if lines:
                    self._last = lines[-1]
                    await self._write(b"".join(b"1" + line + b"\n" for line in lines))

    async def finish(self) -> None:
        """The response is complete."""
        try:
            data = json.loads((self._last if self._stream else self._rest) or b"null")
        except ValueError:
            data = None
        fields = data if isinstance(data, dict) else {}
        if self._stream:
            await self.end([], [], FAILED if fields.get("type") == "error" else 0)
        elif 200 <= self._status < 300:
            await self.end([] if data is None else json.dumps(data, indent=2).splitlines(), [], 0)
        else:
            words = [f"error: {fields.get('message') or fields.get('error') or f'status {self._status}'}"]
            words += [f"hint: {fields['hint']}"] if fields.get("hint") else []
            await self.end([], [line for each in words for line in each.splitlines()], FAILED)

    async def end(self, out: list[str], err: list[str], code: int) -> None:
        """The last lines and the exit code."""
        lines = [*(f"1{line}" for line in out), *(f"2{line}" for line in err), f"={code}"]
        await self._write("".join(f"{line}\n" for line in lines).encode())
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
