"""What a browser shows where a program would get an error as JSON: each page is whole in itself."""

from __future__ import annotations

from html import escape

from starlette.responses import HTMLResponse

from spriggan.errors import SprigganError
from spriggan.server.errors import status_of

LOGIN = "/.sprite/login"

# Nothing is loaded from anywhere, nothing runs, and no other page shows this one in a frame. The policy on
# referrers is not stricter, because browsers would hide from us which page a form was on.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto; padding: 0 1rem }}
input, button {{ font: inherit; padding: .4rem .6rem; box-sizing: border-box }}
input {{ width: 100%; margin: .3rem 0 .8rem }}
.hint {{ color: #666 }}
</style>
<h1>{title}</h1>
<p id="message">{message}</p>
{rest}
</html>
"""

_FORM = """\
<form method="post" action="{action}">
<input type="hidden" name="next" value="{next}">
<label>Token <input type="password" name="token" autocomplete="off" autofocus required></label>
<button>Open</button>
</form>
<p class="hint">'spriggan token create' on the server makes a token. It is not passed on to the sprite.</p>
"""


def login_page(message: str, following: str, *, status: int) -> HTMLResponse:
    """Asks for a token; then the browser goes on to ``following``, a path."""
    form = _FORM.format(action=LOGIN, next=escape(following))
    return _page("This sprite is private", message, form, status)


def error_page(error: SprigganError) -> HTMLResponse:
    """Says ``error``."""
    hint = f'<p class="hint">{escape(error.hint)}</p>' if error.hint else ""
    status = status_of(error)
    title = {404: "Not found", 502: "Nothing answers here"}.get(status, "This cannot be opened now")
    return _page(title, error.message, hint, status)


def _page(title: str, message: str, rest: str, status: int) -> HTMLResponse:
    page = _PAGE.format(title=escape(title), message=escape(message), rest=rest)
    return HTMLResponse(page, status, headers=HEADERS)
