"""The HTTP pages of a peer listener: /version and /members, which joining members and tools read.

Forms are etcd's: ids are JSON numbers, empty optional fields are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.status_pages import JSON, NO_SNIFF, PLAIN, version_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from net.rpc import HttpRequest, HttpResponder

    Pages = dict[str, Callable[[HttpRequest, HttpResponder], None]]


class PeerPages:
    """Answers HTTP requests on one peer listener."""

    def __init__(self, cluster_id: int, ask_members: Callable[[Callable[[bytes], None]], None]) -> None:
        """*ask_members* hands the JSON list of members to what it is given."""
        self._cluster_id = ("x-etcd-cluster-id", f"{cluster_id:x}")
        self._ask_members = ask_members
        self._pages: Pages = {"/version": self._version, "/members": self._members}

    def handle(self, request: HttpRequest, responder: HttpResponder) -> None:
        """Answer one request."""
        page = self._pages.get(request.path)
        if page is None:
            responder.reply(404, [PLAIN, NO_SNIFF], b"404 page not found\n")
        elif request.method != "GET":
            responder.reply(405, [("allow", "GET"), PLAIN, NO_SNIFF], b"Method Not Allowed\n")
        else:
            page(request, responder)

    def _version(self, _request: HttpRequest, responder: HttpResponder) -> None:
        responder.reply(200, [JSON], version_body())

    def _members(self, _request: HttpRequest, responder: HttpResponder) -> None:
        self._ask_members(lambda body: responder.reply(200, [JSON, self._cluster_id], body))
