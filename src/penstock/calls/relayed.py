"""The families of paths that are relayed beside the scheduler: they cost nothing worth a queue.

A call of a family goes to the upstream that holds what it names. Which that is, ids tell: of files,
responses, conversations, batches.
"""

from dataclasses import dataclass

from penstock.wire.endpoint import Vendor


@dataclass(frozen=True, slots=True)
class Family:
    """Paths with one beginning.

    Attributes:
        path: the beginning; the path itself and all under it belong to it.
        vendor: whose it is; None where both have it, and the caller's headers tell.

    """

    path: str
    vendor: Vendor | None


OF_FAMILIES = ("GET", "POST", "DELETE")
"""What the paths of a family take."""

FAMILIES = (
    Family("/v1/responses", Vendor.OPENAI),
    Family("/v1/conversations", Vendor.OPENAI),
    Family("/v1/chat/completions", Vendor.OPENAI),
    Family("/v1/files", None),
    Family("/v1/uploads", Vendor.OPENAI),
    Family("/v1/batches", Vendor.OPENAI),
    Family("/v1/vector_stores", Vendor.OPENAI),
    Family("/v1/containers", Vendor.OPENAI),
    Family("/v1/messages/batches", Vendor.ANTHROPIC),
)

NEVER = ("/v1/organization", "/v1/organizations", "/v1/projects")
"""The vendors' administration: keys, users, spending. No caller's call belongs there."""


def family_of(path: str) -> Family | None:
    """Return the family of a path from /v1 on, or None."""
    for family in FAMILIES:
        if under(path, family.path):
            return family
    return None


def under(path: str, beginning: str) -> bool:
    """Return whether a path is this one or stands below it."""
    return path == beginning or path.startswith(beginning + "/")
