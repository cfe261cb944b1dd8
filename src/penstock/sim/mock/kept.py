"""Replies that a caller may ask for again by their id, the newest so many."""

from collections import OrderedDict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from penstock.sim.mock.answers import ClientError, json_response

MOST = 10_000
"""Some tens of megabytes; a story that goes back further than that is none of a mock's."""


class KeptDocuments:
    """Documents by their id, each with the items of its input."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._documents: OrderedDict[str, tuple[dict[str, Any], list[Any]]] = OrderedDict()

    def keep(self, document: dict[str, Any], items: list[Any]) -> None:
        """Keep a document under its id."""
        self._documents[document["id"]] = (document, items)
        self._documents.move_to_end(document["id"])
        if len(self._documents) > MOST:
            self._documents.popitem(last=False)

    def get(self, named: str) -> tuple[dict[str, Any], list[Any]] | None:
        """Return a document and its input; None if it is not kept, or not any more."""
        return self._documents.get(named)

    async def retrieve(self, request: Request) -> Response:
        """Answer with what is kept."""
        return json_response(self._at(request)[0])

    async def input_items(self, request: Request) -> Response:
        """Answer with the items of its input."""
        ends = {"first_id": None, "last_id": None, "has_more": False}
        return json_response({"object": "list", "data": self._at(request)[1], **ends})

    async def delete(self, request: Request) -> Response:
        """Keep it no longer."""
        document, _ = self._at(request)
        del self._documents[document["id"]]
        kind = "response" if "status" in document else "chat.completion.deleted"
        return json_response({"id": document["id"], "object": kind, "deleted": True})

    def _at(self, request: Request) -> tuple[dict[str, Any], list[Any]]:
        """Return the kept document that a path names, and the items of its input."""
        named = request.path_params["id"]
        found = self._documents.get(named)
        if found is None:
            what = "Response" if "/responses/" in request.url.path else "Chat completion"
            raise ClientError(404, f"{what} with id '{named}' not found.", param="id")
        return found
