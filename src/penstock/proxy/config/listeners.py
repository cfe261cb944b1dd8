"""Where the sidecar listens and to whom: the tables of its two listeners."""

from typing import Annotated

from pydantic import Field

from penstock.schema.types import (
    Complaints,
    Count,
    EnvName,
    Items,
    Port,
    Seconds,
    SecondsOrZero,
    Table,
    Text,
)

HostNames = Items[
    Annotated[
        str,
        Field(
            pattern=r"^(\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)$",
            json_schema_extra={"x-rule": "be a host's name, or *.name for all below it, or *"},
        ),
    ]
]
Origin = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9+.-]*://[^/\s]+$",
        json_schema_extra={
            "x-rule": "be an origin, such as https://app.example.org, without a path"
        },
    ),
]


class Server(Table):
    """Where callers connect."""

    host: Text = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(8787, description="Port to listen on; 0 takes a free one.")
    hosts: HostNames = Field(
        (),
        description="Names by which callers reach it, beside IP addresses, localhost and `host`. "
        "Requests to other names are refused (DNS rebinding); * takes any.",
    )
    origins: Items[Origin] = Field(
        (),
        description="Web pages that may call it and read its answers (CORS), as their browsers "
        "name them.",
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        33_554_432, description="Larger request bodies are refused with 413."
    )
    max_held_bytes: Annotated[int, Field(ge=1024)] = Field(
        268_435_456,
        description="Bytes of all requests' bodies together, waiting or under way; a request that "
        "would be more is refused with 503, and one whose caller's key would hold more than three "
        "quarters of what others leave with 429. What bodies leave, a quarter at least, replies "
        "that lie unread may fill; beyond, who has read nothing for longest is cut.",
    )
    max_connections: Count = Field(
        10_000,
        description="Open connections. For one more, the one is closed that has waited for its "
        "caller for longest: for a request, the rest of a body, or a reply to be read; where none "
        "does, it is answered with 503. Fewer where the process may open fewer files.",
    )
    max_head_bytes: Annotated[int, Field(ge=1024)] = Field(
        65_536, description="The longest request line with all its headers."
    )
    head_timeout_s: Seconds = Field(
        30.0, description="How long a request's head may take to arrive."
    )
    keep_alive_s: Seconds = Field(
        75.0,
        description="How long a connection stays open without a request; longer than the load "
        "balancer in front keeps it (Google's: 600 s).",
    )
    unread_timeout_s: Seconds = Field(
        60.0,
        description="How long a caller may read nothing of what it was sent, before it is cut.",
    )
    idempotency_s: SecondsOrZero = Field(
        0.0,
        description="How long a good answer is kept for its Idempotency-Key: the same call with "
        "the same key gets it again, another call a 409. OpenAI and Stripe keep keys for 24 h "
        "(86400). 0: keys are only passed on.",
    )
    idempotency_bytes: Annotated[int, Field(ge=1024)] = Field(
        67_108_864, description="How many bytes of such answers are kept; the oldest go first."
    )
    ids_kept: Count = Field(
        100_000,
        description="Ids of responses, conversations, files and batches whose upstream is "
        "remembered; about 200 bytes each.",
    )
    ids_kept_s: Seconds = Field(
        2_592_000.0,
        description="How long after its last use; OpenAI keeps responses for 30 days.",
    )
    body_timeout_s: Seconds = Field(
        60.0, description="How long a caller may take to send its body."
    )
    drain_grace_s: SecondsOrZero = Field(
        600.0, description="After SIGTERM: how long replies may go on."
    )


class Admin(Table):
    """Where operators look: /healthz, /readyz, /metrics, /snapshot, /decisions, /dashboard."""

    enabled: bool = Field(True, description="Whether the admin listener runs.")
    host: Text = Field(
        "127.0.0.1", description="Address to listen on; beyond loopback it needs a token."
    )
    port: Port = Field(8788, description="Port to listen on; 0 takes a free one.")
    token_env: EnvName | None = Field(
        None,
        description="Environment variable that holds the token which every page but /healthz and "
        "/readyz then asks for. Without one, nothing can be changed there.",
    )
    token_file: Text | None = Field(None, description="File that holds it, in place of token_env.")
    hosts: HostNames = Field((), description="As `server.hosts`, for operators.")
    origins: Items[Origin] = Field((), description="As `server.origins`, for operators.")
    decisions_kept: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        2_000, description="How many ended requests /decisions remembers; 0 for none."
    )

    def complaints(self) -> Complaints:
        """Yield what contradicts itself."""
        if self.token_env is not None and self.token_file is not None:
            yield "token_file", "leaves token_env without use: drop one of the two"
