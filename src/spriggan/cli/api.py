"""The server's HTTP interface, as the commands use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import httpx

from spriggan import __version__
from spriggan.cli.endpoint import Endpoint, unreachable
from spriggan.cli.output import printable
from spriggan.cli.refusal import Refused, refusal
from spriggan.errors import Broken, SprigganError

# A first request may have to start the sprite; streams say something in between, but a
# checkpoint of a busy disk may be silent for a while.
TIMEOUT = httpx.Timeout(120, connect=5)
STREAM_TIMEOUT = httpx.Timeout(600, connect=5)


class Api:
    """A client of one server. Use as a context manager."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        secure = endpoint.url.startswith("https:")
        # Reading the certificates takes longer than most requests, so only where they are needed.
        if endpoint.socket:
            transport = httpx.HTTPTransport(uds=str(endpoint.socket), verify=False)
            self._client = self._make(transport=transport)
        else:
            self._client = self._make(verify=secure)

    def _make(self, **how: Any) -> httpx.Client:
        return httpx.Client(
            base_url=self.endpoint.url,
            headers={"User-Agent": f"spriggan/{__version__}", **self.endpoint.headers},
            timeout=TIMEOUT,
            trust_env=not self.endpoint.is_local,
            **how,
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, query: dict[str, str] | None = None, **params: str | int) -> Any:
        """GET ``path``; return what the JSON says."""
        return self._request("GET", path, params={**(query or {}), **params})

    def post(self, path: str, body: object | None = None, **params: str | int) -> Any:
        """POST ``body`` as JSON; return what the JSON of the answer says."""
        return self._request("POST", path, params=params, json=body)

    def put(self, path: str, body: object) -> Any:
        """PUT ``body`` as JSON; return what the JSON of the answer says."""
        return self._request("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE ``path``."""
        self._request("DELETE", path)

    def upload(self, path: str, content: Iterator[bytes], params: dict[str, str]) -> Any:
        """PUT bytes as they come; return what the JSON of the answer says."""
        return self._request("PUT", path, params=params, content=content, timeout=STREAM_TIMEOUT)

    @contextmanager
    def download(
        self, path: str, params: dict[str, str], headers: dict[str, str] | None = None
    ) -> Iterator[Iterator[bytes]]:
        """GET ``path``; the block reads the body piece by piece."""
        with self._answer("GET", path, params=params, headers=headers) as response:
            yield response.iter_bytes()

    def watch(self, path: str, **params: str) -> Iterator[dict[str, Any]]:
        """GET ``path`` as a stream of messages that goes on until the server ends it."""
        with self._answer("GET", path, params=params, headers={"Accept": "application/x-ndjson"}) as response:
            for line in response.iter_lines():
                if message := _message(line):
                    yield message

    def stream(
        self, path: str, body: object | None = None, *, method: str = "POST", **params: str | int
    ) -> Iterator[dict[str, Any]]:
        """Send ``body`` and yield the messages of the answer as they come.

        Raises when the stream carries an error, or ends without saying that it is complete.
        """
        complete = False
        with self._answer(method, path, json=body, params=params) as response:
            for line in response.iter_lines():
                message = _message(line)
                if message.get("type") == "error":
                    text = message.get("error") or message.get("message") or "the server gave no reason"
                    raise Refused(200, str(text), str(message.get("hint", "")))
                complete = complete or message.get("type") == "complete"
                if message:
                    yield message
        if not complete:
            raise Broken(
                "the server ended its answer early, so whether it finished is not known",
                hint="a server that starts again finishes or undoes it; look with 'spriggan info'",
            )

    @contextmanager
    def _answer(self, method: str, path: str, **more: Any) -> Iterator[httpx.Response]:
        """An answer that is read while it comes."""
        try:
            with self._client.stream(method, path, timeout=STREAM_TIMEOUT, **more) as response:
                if response.status_code >= 400:
                    response.read()
                    raise refusal(response.status_code, response.text, self.endpoint)
                yield response
        except httpx.ConnectError as error:
            raise unreachable(self.endpoint, error) from error
        except httpx.HTTPError as error:
            raise _lost(error) from error

    def _request(self, method: str, path: str, **more: Any) -> Any:
        try:
            response = self._client.request(method, path, **more)
        except httpx.ConnectError as error:
            raise unreachable(self.endpoint, error) from error
        except httpx.HTTPError as error:
            raise _lost(error) from error
        if response.status_code >= 400:
            raise refusal(response.status_code, response.text, self.endpoint)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise Broken(
                f"{self.endpoint} answered with something that is not JSON",
                hint="is a Spriggan server listening there?",
            ) from error


def show_progress(messages: Iterator[dict[str, Any]]) -> str:
    """Print what a stream says, on stderr, while it runs; return its last word."""
    last = ""
    for message in messages:
        text = str(message.get("data") or message.get("message") or "")
        if message.get("type") == "complete":
            last = text
        elif text:
            click.echo(printable(text), err=True)
    return last


def last_word(messages: Iterator[dict[str, Any]]) -> str:
    """What a stream says when it is complete."""
    last = ""
    for message in messages:
        if message.get("type") == "complete":
            last = str(message.get("data") or message.get("message") or "")
    return last


def _message(line: str) -> dict[str, Any]:
    """A line of a stream; what is not a JSON object counts as silence."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _lost(error: httpx.HTTPError) -> SprigganError:
    return Broken(
        f"the connection to the server was lost ({str(error) or type(error).__name__})",
        hint="look at the server's log, and at the state with 'spriggan list'",
    )
