"""Lists of models, as both vendors answer them."""

from typing import Any

from penstock.sim.mock.call import CREATED_UNIX_S

_DEFAULT = ("mock-model",)


def model(vendor: str, name: str) -> dict[str, Any]:
    """Return a model's page."""
    if vendor == "anthropic":
        at = "2026-01-01T00:00:00Z"
        return {"type": "model", "id": name, "display_name": name, "created_at": at}
    return {"id": name, "object": "model", "created": CREATED_UNIX_S, "owned_by": "mock"}


def model_list(vendor: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the list of models; of one where none is named."""
    names = names or _DEFAULT
    models = [model(vendor, name) for name in names]
    if vendor == "anthropic":
        ends = {"first_id": names[0], "last_id": names[-1]}
        return {"data": models, "has_more": False} | ends
    return {"object": "list", "data": models}
