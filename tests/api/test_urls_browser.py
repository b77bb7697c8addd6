"""A private URL in a real browser: it asks for a token once, and another sprite's page gains nothing by that."""

from __future__ import annotations

from typing import Any

from browsing import browser
from test_urls import start_service, url_host

import serving
from proof import PLAIN, proves

ECHO = """new Promise((resolve) => {
    const socket = new WebSocket(`ws://${HOST}/ws`);
    socket.onopen = () => socket.send("hello");
    socket.onmessage = (event) => { resolve(event.data); socket.close(); };
    socket.onerror = () => resolve("refused");
})"""


@proves("url: a browser logs in once, with a cookie for this sprite alone", PLAIN)
def test_login(server: serving.Server, sprite: Any, new_name: Any) -> None:
    start_service(sprite)
    other = server.client().create_sprite(new_name())
    try:
        start_service(other)
        with server.http() as http:
            http.put(f"/v1/sprites/{other.name}", json={"url_settings": {"auth": "public"}})
        host = url_host(server, sprite.name)
        with browser() as page:
            page.go(f"http://{host}/page?a=1&b=%3Cb%3E")
            assert page.run("document.title") == "This sprite is private"
            enter = (
                "document.querySelector('[name=token]').value = {}; document.querySelector('button').click()"
            )
            page.run(enter.format("'spriggan/1/2/3'"))
            page.wait("document.querySelector('#message')?.textContent.includes('not valid')")
            page.run(enter.format(repr(server.token)))
            page.wait("document.title === 'inside'")
            assert page.run("location.href") == f"http://{host}/page?a=1&b=%3Cb%3E"
            assert page.run("document.cookie") == ""
            inside = page.run("fetch('/headers').then((answer) => answer.text())")
            assert "spriggan" not in inside and server.token not in inside
            assert page.run("fetch('/', {method: 'POST', body: 'x'}).then((answer) => answer.status)") == 200
            assert page.run(ECHO.replace("${HOST}", host)) == "hello"
            # The same browser, on the page of another sprite. To it, this is the same site.
            page.go(f"http://{url_host(server, other.name)}/page")
            assert page.run("document.title") == "inside"
            assert page.run(ECHO.replace("${HOST}", url_host(server, other.name))) == "hello"
            assert page.run(ECHO.replace("${HOST}", host)) == "refused"
            for method in ("GET", "POST"):
                options = f"{{method: '{method}', credentials: 'include', mode: 'no-cors'}}"
                assert page.run(f"fetch('http://{host}/marked-{method}', {options}).then(() => 1)") == 1
            assert "spriggan" not in page.run("fetch('/headers').then((answer) => answer.text())")
            page.go(f"http://{host}/page")  # going there is fine
            assert page.run("document.title") == "inside"
            seen = page.run("fetch('/seen').then((answer) => answer.json())")
            assert "/headers" in seen and not [path for path in seen if "marked" in path]
    finally:
        other.delete()
