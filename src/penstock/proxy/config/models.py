"""What may stand in penstock.toml: every table and key, with its rule and its meaning.

The descriptions are the reference manual: docs/reference/configuration.md is made from them.
"""

# ruff: noqa: RUF009 - `key` makes the dataclass fields

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from penstock.core.model import BUCKET_UPPER_TOKENS
from penstock.proxy.config.schema import (
    Items,
    Names,
    PolicyRule,
    PolicyTable,
    Table,
    env_name,
    flag,
    key,
    label,
    number,
    one_of,
    text,
    url,
    whole,
)
from penstock.proxy.routing import serves
from penstock.proxy.upstream.address import Address
from penstock.proxy.upstream.forward_proxy import configured

BUCKETS = tuple(bucket for bucket, _ in BUCKET_UPPER_TOKENS)
PORT = whole(0, 65535)
SPAN_S = number(above=0)
SHIPPED_PRIOR, NO_PRIOR = "shipped", "none"


@dataclass(frozen=True, slots=True)
class Server:
    """Where callers connect."""

    host: str = key(text(), "Address to listen on.", "127.0.0.1")
    port: int = key(PORT, "Port to listen on; 0 takes a free one.", 8787)
    max_body_bytes: int = key(
        whole(1024), "Larger request bodies are refused with 413.", 10_485_760
    )
    body_timeout_s: float = key(SPAN_S, "How long a caller may take to send its body.", 60.0)
    drain_grace_s: float = key(number(), "After SIGTERM: how long replies may go on.", 600.0)


@dataclass(frozen=True, slots=True)
class Admin:
    """Where operators look: /healthz, /readyz, /metrics, /snapshot, /decisions."""

    enabled: bool = key(flag(), "Whether the admin listener runs.", True)
    host: str = key(
        text(), "Address to listen on. It has no login: keep it on loopback.", "127.0.0.1"
    )
    port: int = key(PORT, "Port to listen on; 0 takes a free one.", 8788)
    decisions_kept: int = key(
        whole(0, 1_000_000), "How many requests /decisions remembers; 0 for none.", 2_000
    )


@dataclass(frozen=True, slots=True)
class LimitsTable:
    """Limits that the upstream's terms state; left out means unlimited or learnt from headers."""

    requests_per_min: float | None = key(SPAN_S, "Requests in any 60 s.", None)
    tokens_per_min: float | None = key(SPAN_S, "Input and output tokens in any 60 s.", None)
    input_tokens_per_min: float | None = key(SPAN_S, "Input tokens in any 60 s.", None)
    output_tokens_per_min: float | None = key(SPAN_S, "Output tokens in any 60 s.", None)


@dataclass(frozen=True, slots=True)
class Upstream:
    """One account, region or provider. Requests go nowhere else."""

    base_url: str = key(
        url(Address.parse),
        "What stands before /chat/completions, such as https://api.openai.com/v1.",
    )
    name: str = key(label(), "Its name in logs and metrics.", "default")
    dialect: str = key(
        one_of("openai", "anthropic"),
        "Which API it speaks: decides paths and how its key is sent.",
        "openai",
    )
    models: tuple[str, ...] = key(
        Items(text("be 1 to 256 characters", r".{1,256}"), least=1),
        "Models it serves; * stands for any text.",
        ("*",),
    )
    rename: dict[str, str] | None = key(
        Names(), "Its own names for models, by the names that callers use.", None
    )
    auth: str | None = key(
        one_of("caller", "env", "none"),
        "Whose key it gets: the caller's, the one in api_key_env, or none. "
        "Left out: env if api_key_env is set, else caller.",
        None,
    )
    api_key_env: str | None = key(env_name(), "Environment variable that holds its key.", None)
    key_header: str | None = key(
        one_of("authorization", "x-api-key", "api-key"),
        "Header that carries that key; authorization as a bearer token. Left out: authorization "
        "for openai, x-api-key for anthropic. Azure OpenAI wants api-key.",
        None,
    )
    proxy: str | None = key(
        url(configured),
        "HTTP proxy to reach it through, as http://host:port, or none. Left out: HTTPS_PROXY or "
        "HTTP_PROXY by the scheme of base_url, ALL_PROXY and NO_PROXY; never for loopback.",
        None,
    )
    capacity: PolicyTable | None = key(PolicyRule(), "Its own window policy.", None)
    limits: LimitsTable = key(Table(LimitsTable), "Its stated limits.", LimitsTable())
    connect_timeout_s: float = key(SPAN_S, "For a connection, TLS included.", 10.0)
    first_byte_timeout_s: float = key(SPAN_S, "From the request to the answer's headers.", 600.0)
    idle_timeout_s: float = key(SPAN_S, "Between two pieces of an answer.", 300.0)
    keep_alive_s: float = key(SPAN_S, "How long an unused connection is kept open.", 4.0)
    base_s: float = key(SPAN_S, "First guess of its fixed service time.", 0.2)
    s_per_token: float = key(SPAN_S, "First guess of its time per output token.", 0.005)

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Yield what contradicts itself."""
        if self.auth == "env" and self.api_key_env is None:
            yield "auth", "needs api_key_env to name the variable"
        if self.auth in ("caller", "none") and self.api_key_env is not None:
            yield "auth", "leaves api_key_env without use: drop one of the two"
        for name in self.rename or ():
            if not serves(self.models, name):
                yield (
                    "rename",
                    f"names {name!r}, which models does not list: callers' names go there",
                )
        if self.key_header is not None and self.key_from != "env":
            yield "key_header", "needs api_key_env: callers' own keys travel in callers' headers"

    @property
    def key_from(self) -> Literal["caller", "env", "none"]:
        """Whose key the upstream gets, the default worked out."""
        if self.auth is None:
            return "env" if self.api_key_env else "caller"
        return "env" if self.auth == "env" else "none" if self.auth == "none" else "caller"


@dataclass(frozen=True, slots=True)
class EstimateTable:
    """A prior of how many tokens a reply has."""

    p50_tokens: float = key(number(least=1), "The median.")
    p90_tokens: float = key(number(least=1), "The 90th percentile.")

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Yield what contradicts itself."""
        if self.p90_tokens < self.p50_tokens:
            yield "p90_tokens", "must not be below p50_tokens: were the two swapped?"


@dataclass(frozen=True, slots=True)
class ClassTable:
    """A kind of traffic. Listed from the best treated to the worst."""

    name: str = key(label(), "As `x-penstock-class` names it.")
    weight: float = key(SPAN_S, "Its share of tokens under contention.", 1.0)
    buckets: tuple[str, ...] = key(
        Items(one_of(*BUCKETS)),
        "Requests predicted to be of these sizes fall into it by themselves.",
        (),
    )
    deadline_s: float | None = key(
        SPAN_S, "Deadline of requests that state none; left out: none.", None
    )
    estimate: EstimateTable | None = key(
        Table(EstimateTable), "Prior for its requests where nothing better is known.", None
    )
    queue_limit: int = key(whole(1), "How many may wait; more are refused.", 100_000)
    queue_limit_tokens: float | None = key(
        SPAN_S, "How many predicted tokens may wait; more are refused.", None
    )
    ttl_s: float | None = key(
        SPAN_S, "How long a request may wait before it is refused as expired.", None
    )


@dataclass(frozen=True, slots=True)
class Caller:
    """What callers may ask for by header: worse treatment always, better only if said here."""

    traffic_class: str | None = key(
        label(), "Its class. Left out: the class that lists the predicted bucket.", None
    )
    may_ask: tuple[str, ...] = key(
        Items(text()),
        "Classes it may ask for beyond its own and those listed after it; * for all.",
        (),
    )
    shortest_deadline_s: float | None = key(
        SPAN_S, "Tightest deadline it may ask for. Left out: its class's.", None
    )
    may_name_tenant: bool = key(flag(), "Whether `x-penstock-tenant` is accepted.", False)
    may_state_tokens: bool = key(
        flag(), "Whether `x-penstock-tokens` is accepted, in place of a prediction.", False
    )


@dataclass(frozen=True, slots=True)
class Key:
    """A key that penstock itself hands out, and what its holder may ask for."""

    name: str = key(label(), "Its name in logs and metrics; also its tenant.")
    key_env: str = key(env_name(), "Environment variable that holds the key.")
    traffic_class: str | None = key(label(), "As in [anonymous].", None)
    may_ask: tuple[str, ...] = key(Items(text()), "As in [anonymous].", ())
    shortest_deadline_s: float | None = key(SPAN_S, "As in [anonymous].", None)
    may_name_tenant: bool = key(flag(), "As in [anonymous].", False)
    may_state_tokens: bool = key(flag(), "As in [anonymous].", False)


@dataclass(frozen=True, slots=True)
class EstimateRow:
    """A row of the estimate table; the first that fits counts."""

    p50_tokens: float = key(number(least=1), "The median.")
    p90_tokens: float = key(number(least=1), "The 90th percentile.")
    model: str = key(text(), "Model; * stands for any text.", "*")
    path: str = key(text(), "API path after /v1, such as /chat/completions; * for any.", "*")

    def complaints(self) -> Iterator[tuple[str, str]]:
        """Yield what contradicts itself."""
        if self.p90_tokens < self.p50_tokens:
            yield "p90_tokens", "must not be below p50_tokens: were the two swapped?"


@dataclass(frozen=True, slots=True)
class Estimates:
    """Where predicted output lengths come from; with a predictor, what stands behind it."""

    default: EstimateTable = key(
        Table(EstimateTable), "When nothing else is known.", EstimateTable(256.0, 1024.0)
    )
    trust_max_tokens: bool = key(
        flag(),
        "Whether callers set max_tokens to what they need: then it is taken as the p90, and "
        "0.6 of it as the median. Otherwise it only caps the prior.",
        False,
    )
    table: tuple[EstimateRow, ...] = key(Items(Table(EstimateRow)), "Priors by model and path.", ())


@dataclass(frozen=True, slots=True)
class PredictorTable:
    """The learning predictor of output lengths."""

    kind: str = key(
        one_of("off", "online"), "online: learns from every reply's usage while it runs.", "off"
    )
    prior: str = key(
        text(),
        "What it starts from: shipped, none, or a file from `penstock predict train`, which must "
        "be there.",
        SHIPPED_PRIOR,
    )
    state_path: str | None = key(
        text(),
        "File that keeps what it learnt on top of this prior. One learnt on another prior is set "
        "aside, as is a damaged one.",
        None,
    )
    save_every_s: float = key(
        number(above=0),
        "How often the file is written while the sidecar runs, if there is something new; it is "
        "written at the end in any case.",
        300.0,
    )


@dataclass(frozen=True, slots=True)
class SchedulerTable:
    """The four layers and the queue's bounds."""

    allocation: PolicyTable | None = key(PolicyRule(), "Which class sends next.", None)
    ordering: PolicyTable | None = key(PolicyRule(), "Which request within a class.", None)
    overload: PolicyTable | None = key(PolicyRule(), "Admit, defer or shed.", None)
    capacity: PolicyTable | None = key(PolicyRule(), "How much may be in flight.", None)
    queue_limit: int = key(whole(1), "How many requests may wait in all.", 100_000)
    sticky: bool = key(flag(), "Keep a conversation on one upstream (`x-penstock-session`).", False)
    retry_share: float = key(
        number(most=1.0), "Attempts beyond the first, as a share of requests.", 0.1
    )
    max_attempts: int = key(whole(1), "Attempts for one request, the first included.", 8)


@dataclass(frozen=True, slots=True)
class Log:
    """The decision log: who waited for what and why; never a prompt, never a key."""

    decisions_path: str | None = key(text(), "File (JSON lines); left out: none.", None)
    level: str = key(
        one_of("debug", "info", "warning", "error"), "How much is said on stderr.", "info"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    upstreams: tuple[Upstream, ...] = key(Items(Table(Upstream), least=1), "Where requests may go.")
    server: Server = key(Table(Server), "Where callers connect.", Server())
    admin: Admin = key(Table(Admin), "Where operators look.", Admin())
    classes: tuple[ClassTable, ...] = key(
        Items(Table(ClassTable), least=1),
        "Kinds of traffic, the best treated first.",
        (
            ClassTable("interactive", 4.0, ("short",)),
            ClassTable("heavy", 1.0, ("medium", "long", "xlong")),
        ),
    )
    anonymous: Caller = key(Table(Caller), "Callers, while there are no [[keys]].", Caller())
    keys: tuple[Key, ...] = key(
        Items(Table(Key)), "Keys that callers must present; the provider never sees them.", ()
    )
    estimates: Estimates = key(Table(Estimates), "Predicted output lengths.", Estimates())
    predictor: PredictorTable = key(
        Table(PredictorTable), "The learning predictor.", PredictorTable()
    )
    scheduler: SchedulerTable = key(Table(SchedulerTable), "The scheduler.", SchedulerTable())
    log: Log = key(Table(Log), "What is written down.", Log())
