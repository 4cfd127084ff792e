"""Paths with empty or dotted segments, and the redirect to what they stand for: what Go's ServeMux does for etcd.

A proxy or a joined address easily makes `/v3//kv/range`; clients that follow redirects get where they meant to.
"""

from __future__ import annotations

from html import escape
from posixpath import normpath
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from net.rpc import HttpRequest, HttpResponder

_UNESCAPED: Final = "/$&+,:;=@~"
"""Beside letters, digits and `_.-`."""
_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
"""What of a query stays as it came: all but what is no ASCII."""


def clean_path(path: str) -> str:
    """Return *path* without empty, `.` and `..` segments; a slash at its end stays."""
    if "//" not in path and "/." not in path:
        return path
    clean = "/" + normpath(path).lstrip("/")
    return clean + "/" if path.endswith("/") and clean != "/" else clean


def redirect(path: str, request: HttpRequest, responder: HttpResponder) -> None:
    """Answer that what was asked for is at *path*, with the same query."""
    location = quote(path.encode("utf-8", "surrogateescape"), safe=_UNESCAPED)
    if request.query:
        location += "?" + quote(request.query.encode("utf-8", "surrogateescape"), safe=_ASCII)
    if request.method not in {"GET", "HEAD"}:
        responder.reply(301, (("location", location),), b"")
        return
    link = escape(location).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    headers = (("content-type", "text/html; charset=utf-8"), ("location", location))
    responder.reply(301, headers, f'<a href="{link}">Moved Permanently</a>.\n\n'.encode())
