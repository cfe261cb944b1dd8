"""What may stand in penstock.toml: every table and key, with its rule and its meaning.

A key is one line: name (with its unit), type (with its bounds), default, description. The check,
the errors, docs/reference/configuration.md and `penstock schema config` are made from it. A
key that the scheduler itself has (`Settings`, `UpstreamSettings`, `Limits`, `TrafficClass`)
reaches it by its name.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from penstock.core.model import BUCKET_UPPER_TOKENS, TrafficClass
from penstock.core.settings import Settings, UpstreamSettings
from penstock.proxy.config.forward_proxy import Address, configured
from penstock.proxy.config.listeners import Admin, Server
from penstock.proxy.routing import serves
from penstock.schema.policies import (
    AllocationPolicy,
    CapacityPolicy,
    OrderingPolicy,
    OverloadPolicy,
)
from penstock.schema.types import (
    Complaints,
    Count,
    EnvName,
    Items,
    Label,
    Name,
    PerMinute,
    Seconds,
    Share,
    Table,
    Text,
    Tokens,
    TokensOfReply,
    Weight,
)
from penstock.twin.policy import Policy

BUCKETS = tuple(bucket for bucket, _ in BUCKET_UPPER_TOKENS)
SHIPPED_PRIOR, NO_PRIOR = "shipped", "none"
Bucket = Literal["short", "medium", "long", "xlong"]
FallbackCause = Literal["quota", "rate", "overload", "down", "late", "context_length"]
_CORE = Settings((TrafficClass("any"),))
_UPSTREAM = UpstreamSettings()


def _parsed_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return a check that refuses what `parse` refuses, in its words, and keeps the text."""

    def keep(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(keep)


_URL = {"x-rule": "be an http:// or https:// URL with a host"}
BaseUrl = Annotated[str, _parsed_by(Address.parse), Field(json_schema_extra=_URL)]
ProxyUrl = Annotated[str, _parsed_by(configured), Field(json_schema_extra=_URL)]


class LimitsTable(Table):
    """Limits that the upstream's terms state; left out means unlimited or learnt from headers."""

    requests_per_min: PerMinute | None = Field(None, description="Requests in any 60 s.")
    tokens_per_min: PerMinute | None = Field(
        None, description="Input and output tokens in any 60 s."
    )
    input_tokens_per_min: PerMinute | None = Field(None, description="Input tokens in any 60 s.")
    output_tokens_per_min: PerMinute | None = Field(None, description="Output tokens in any 60 s.")
    requests_per_s: PerMinute | None = Field(None, description="Requests in any second.")
    requests_per_day: PerMinute | None = Field(None, description="Requests in any 24 hours.")
    tokens_per_day: PerMinute | None = Field(
        None, description="Input and output tokens in any 24 hours."
    )
    charged: Literal["usage", "reservation"] = Field(
        "usage",
        description="usage: what a reply used. reservation: the prompt and the most that the reply "
        "may have, when it is sent, as Azure and Cerebras do.",
    )


class UpstreamTable(Table):
    """One account, region or provider. Requests go nowhere else."""

    base_url: BaseUrl = Field(
        description="What stands before /chat/completions or /messages, such as "
        "https://api.openai.com/v1.",
        examples=["https://api.openai.com/v1"],
    )
    name: Label = Field("default", description="Its name in logs and metrics.")
    dialect: Literal["openai", "anthropic"] = Field(
        "openai", description="Which API it speaks: decides paths and how its key is sent."
    )
    models: Items[Name] = Field(
        ("*",), min_length=1, description="Models it serves; * stands for any text."
    )
    rename: dict[Name, Name] | None = Field(
        None,
        description="Its own names for models, by the names that callers use.",
        json_schema_extra={"x-rule": 'be a table of names, such as { "a" = "b" }'},
    )
    auth: Literal["caller", "env", "none"] | None = Field(
        None,
        description="Whose key it gets: the caller's, our own (env), or none. "
        "Left out: env if one of the three below is set, else caller.",
    )
    api_key_env: EnvName | None = Field(
        None, description="Environment variable that holds its key."
    )
    api_key_file: Text | None = Field(None, description="File that holds its key.")
    api_key_command: Items[Text] | None = Field(
        None,
        min_length=1,
        description="Program, with its arguments, that prints its key: for tokens that are valid "
        "for an hour or so. No shell reads it.",
    )
    api_key_refresh_s: Seconds = Field(
        300.0, description="How often the file or the command is asked for the key again."
    )
    key_header: Literal["authorization", "x-api-key", "api-key"] | None = Field(
        None,
        description="Header that carries that key; authorization as a bearer token. Left out: "
        "authorization for openai, x-api-key for anthropic. Azure OpenAI wants api-key.",
    )
    proxy: ProxyUrl | None = Field(
        None,
        repr=False,  # it may hold a password
        description="HTTP proxy to reach it through, as http://host:port, or none. Left out: "
        "HTTPS_PROXY or HTTP_PROXY by the scheme of base_url, ALL_PROXY and NO_PROXY; never for "
        "loopback.",
    )
    relay_others: Items[Text] | None = Field(
        None,
        description="Further paths after /v1 that are relayed to it, such as /fine_tuning/*; * "
        "stands for any text. Left out: all, where auth = caller, else none.",
    )
    capacity: CapacityPolicy | None = Field(None, description="Its own window policy.")
    limits: LimitsTable = LimitsTable()
    model_limits: dict[Name, LimitsTable] = Field(
        {},
        description="Limits that hold for one model beside those of all, with the keys of "
        "[upstreams.limits], by the name that callers use.",
        json_schema_extra={"x-rule": 'be tables [upstreams.model_limits."MODEL"]'},
    )
    connect_timeout_s: Seconds = Field(10.0, description="For a connection, TLS included.")
    first_byte_timeout_s: Seconds = Field(
        600.0, description="From the request to the answer's headers."
    )
    idle_timeout_s: Seconds = Field(300.0, description="Between two pieces of an answer.")
    keep_alive_s: Seconds = Field(4.0, description="How long an unused connection is kept open.")
    base_s: Seconds = Field(_UPSTREAM.base_s, description="First guess of its fixed service time.")
    s_per_token: Seconds = Field(
        _UPSTREAM.s_per_token, description="First guess of its time per output token."
    )

    def complaints(self) -> Complaints:
        """Yield what contradicts itself."""
        own = self.key_sources
        if self.auth == "env" and not own:
            yield "auth", "needs api_key_env to name the variable"
        if self.auth in ("caller", "none") and own:
            yield "auth", f"leaves {own[0]} without use: drop one of the two"
        if len(own) > 1:
            yield own[1], f"stands beside {own[0]}: a key has one source"
        for key, names in (("rename", self.rename or {}), ("model_limits", self.model_limits)):
            for name in names:
                if not serves(self.models, name):
                    yield (
                        key,
                        f"names {name!r}, which models does not list: callers' names go there",
                    )
        for name in self.model_limits:
            if "*" in name:
                yield (
                    "model_limits",
                    f"names {name!r}: a table is for one model, and * stands for no other",
                )
        if self.key_header is not None and self.key_from != "env":
            yield "key_header", "needs api_key_env: callers' own keys travel in callers' headers"

    @property
    def key_from(self) -> Literal["caller", "env", "none"]:
        """Whose key the upstream gets, the default worked out."""
        return self.auth or ("env" if self.key_sources else "caller")

    @property
    def key_sources(self) -> list[str]:
        """Which of the keys that name the source of its key are set."""
        names = ("api_key_env", "api_key_file", "api_key_command")
        return [name for name in names if getattr(self, name) is not None]


class EstimateTable(Table):
    """A prior of how many tokens a reply has."""

    p50_tokens: TokensOfReply = Field(description="The median.", examples=[256])
    p90_tokens: TokensOfReply = Field(description="The 90th percentile.", examples=[1024])

    def complaints(self) -> Complaints:
        """Yield what contradicts itself."""
        if self.p90_tokens < self.p50_tokens:
            yield "p90_tokens", "must not be below p50_tokens: were the two swapped?"


class EstimateRow(EstimateTable):
    """A row of the estimate table; the first that fits counts."""

    model: Text = Field("*", description="Model; * stands for any text.")
    path: Text = Field("*", description="API path after /v1, such as /chat/completions; * for any.")


class ClassTable(Table):
    """A kind of traffic. Listed from the best treated to the worst."""

    name: Label = Field(description="As `x-penstock-class` names it.", examples=["interactive"])
    weight: Weight = Field(1.0, description="Its share of tokens under contention.")
    buckets: Items[Bucket] = Field(
        (), description="Requests predicted to be of these sizes fall into it by themselves."
    )
    deadline_s: Seconds | None = Field(
        None, description="Deadline of requests that state none; left out: none."
    )
    estimate: EstimateTable | None = Field(
        None, description="Prior for its requests where nothing better is known."
    )
    hopeless: Literal["serve", "refuse"] = Field(
        "serve",
        description="What becomes of a request whose deadline is nearer than its predicted "
        "service time: served late, or refused at once.",
    )
    queue_limit: Count = Field(100_000, description="How many may wait; more are refused.")
    queue_limit_tokens: Tokens | None = Field(
        None, description="How many predicted tokens may wait; more are refused."
    )
    ttl_s: Seconds | None = Field(
        None, description="How long a request may wait before it is refused as expired."
    )
    was: Items[Label] = Field(
        (), description="Names of classes that it takes over at a reload, with what waits in them."
    )


class Caller(Table):
    """What callers may ask for by header: worse treatment always, better only if said here."""

    traffic_class: Label | None = Field(
        None, description="Its class. Left out: the class that lists the predicted bucket."
    )
    may_ask: Items[Text] = Field(
        (),
        description="Classes it may ask for beyond its own and those listed after it; * for all.",
    )
    shortest_deadline_s: Seconds | None = Field(
        None, description="Tightest deadline it may ask for. Left out: its class's."
    )
    may_name_tenant: bool = Field(False, description="Whether `x-penstock-tenant` is accepted.")
    may_state_tokens: bool = Field(
        False, description="Whether `x-penstock-tokens` is accepted, in place of a prediction."
    )


class Key(Caller):
    """A key that penstock itself hands out, and what its holder may ask for."""

    name: Label = Field(
        description="Its name in logs and metrics; also its tenant.", examples=["alice"]
    )
    key_env: EnvName | None = Field(
        None,
        description="Environment variable that holds the key.",
        examples=["PENSTOCK_KEY_ALICE"],
    )
    key_file: Text | None = Field(None, description="File that holds it, in place of key_env.")

    def complaints(self) -> Complaints:
        """Yield what contradicts itself."""
        if (self.key_env is None) == (self.key_file is None):
            yield "key_env", "or key_file must say where the key is, and not both"


class Estimates(Table):
    """Where predicted output lengths come from; with a predictor, what stands behind it."""

    default: EstimateTable = EstimateTable(p50_tokens=256.0, p90_tokens=1024.0)
    trust_max_tokens: bool = Field(
        False,
        description="Whether callers set max_tokens to what they need: then it is taken as the "
        "p90, and 0.6 of it as the median. Otherwise it only caps the prior.",
    )
    table: Items[EstimateRow] = ()


class PredictorTable(Table):
    """The learning predictor of output lengths."""

    kind: Literal["off", "online"] = Field(
        "online", description="online: learns from replies' usage while it runs."
    )
    prior: Text = Field(
        SHIPPED_PRIOR,
        description="What it starts from: shipped, none, or a file from `penstock predict train`, "
        "which must be there.",
    )
    state_path: Text | None = Field(
        None,
        description="File that keeps what it learnt on top of this prior. One learnt on another "
        "prior is set aside, as is a damaged one.",
    )
    save_every_s: Seconds = Field(
        300.0,
        description="How often the file is written while the sidecar runs, if there is something "
        "new; it is written at the end in any case.",
    )
    count_prompts: bool = Field(
        False,
        description="Whether prompts are counted exactly, which needs penstock[tokenizer] and "
        "150 MB; otherwise their tokens are estimated.",
    )


class SchedulerTable(Table):
    """The four layers and the queue's bounds."""

    allocation: AllocationPolicy | None = Field(None, description="Which class sends next.")
    ordering: OrderingPolicy | None = Field(None, description="Which request within a class.")
    overload: OverloadPolicy | None = Field(None, description="Admit, defer or shed.")
    capacity: CapacityPolicy | None = Field(None, description="How much may be in flight.")
    queue_limit: Count = Field(_CORE.queue_limit, description="How many requests may wait in all.")
    sticky: bool = Field(
        _CORE.sticky, description="Keep a conversation on one upstream (`x-penstock-session`)."
    )
    tenant_turns: bool = Field(
        _CORE.tenant_turns,
        description="Inside a class, the tenant that was served least goes next.",
    )
    retry_share: Share = Field(
        _CORE.retry_share, description="Attempts beyond the first, as a share of requests."
    )
    max_pause_s: Annotated[float, Field(gt=0, le=1e9, json_schema_extra={"x-unit": "seconds"})] = (
        Field(
            _CORE.max_pause_s,
            description="No upstream is paused for longer, whatever wait it states; then one "
            "request tries it.",
        )
    )
    max_attempts: Count = Field(
        _CORE.max_attempts,
        description="Attempts for one request, the first included, until a fault or silence is "
        "final. A refusal at the door counts only where nothing else would end the request.",
    )


class Log(Table):
    """The decision log: who waited for what and why; never a prompt, never a key."""

    decisions_path: Text | None = Field(None, description="File (JSON lines); left out: none.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much is said on stderr."
    )


class Otel(Table):
    """OpenTelemetry. Everything but whether it runs is said by its own `OTEL_*` variables."""

    enabled: bool | None = Field(
        None,
        description="Whether traces and metrics are exported. Left out: if the environment names "
        "an exporter or an endpoint. Needs the extra `penstock[otel]`.",
    )


class Fallback(Table):
    """Where a request may go that its own model's upstreams cannot serve, or not in time."""

    model: Name = Field(description="Model of the request; * stands for any text.", examples=["a"])
    service_tier: Text | None = Field(
        None, description="The request's `service_tier`. Left out: any, and requests without one."
    )
    to_model: Name | None = Field(
        None, description="Model that it is sent to. Left out: its own, in another tier."
    )
    to_service_tier: Text | None = Field(
        None, description="`service_tier` that it is sent with. Left out: as the caller sent it."
    )
    when: Items[FallbackCause] = Field(
        min_length=1,
        description="quota: the account is spent. rate, overload: it was refused for that, or all "
        "upstreams pause for it. down: they pause after failures, or no attempt was answered. "
        "late: by prediction its deadline is missed here and met there. context_length: it is too "
        "long.",
        examples=[["quota", "down"]],
    )

    def complaints(self) -> Complaints:
        """Yield what contradicts itself."""
        if self.to_model is None and self.to_service_tier is None:
            yield "to_model", "or to_service_tier must say where the request goes"
            return
        tier = self.to_service_tier
        if self.to_model in (None, self.model) and tier in (None, self.service_tier):
            yield "to_model", "with to_service_tier names what the request has failed at already"


class ShadowTable(Table):
    """Other configurations, asked beside the traffic what they would have done with it."""

    enabled: bool = Field(
        False,
        description="Whether the end of the decision log is looked at, in a process of the lowest "
        "priority; direct calls are always one of the configurations.",
    )
    policies: dict[Label, Policy] = Field(
        {},
        description="What is different in each, as `penstock whatif --policy` reads it; "
        "`penstock promote NAME` makes one hold.",
        json_schema_extra={"x-rule": "be tables [shadow.policies.NAME]"},
    )
    every_s: Seconds = Field(900.0, description="How often.")
    requests: Count = Field(5_000, description="How many of the latest are looked at.")


class Config(Table):
    """What `penstock serve` reads: penstock.toml."""

    upstreams: Items[UpstreamTable] = Field(
        min_length=1, examples=[[{"base_url": "https://api.openai.com/v1"}]]
    )
    server: Server = Server()
    admin: Admin = Admin()
    classes: Items[ClassTable] = Field(
        (
            ClassTable(name="interactive", weight=4.0, buckets=("short",)),
            ClassTable(name="heavy", buckets=("medium", "long", "xlong")),
            ClassTable(name="batch"),  # what `penstock batch --sidecar` asks for
        ),
        min_length=1,
    )
    anonymous: Caller = Caller()
    keys: Items[Key] = ()
    estimates: Estimates = Estimates()
    predictor: PredictorTable = PredictorTable()
    scheduler: SchedulerTable = SchedulerTable()
    log: Log = Log()
    otel: Otel = Otel()
    shadow: ShadowTable = ShadowTable()
    fallbacks: Items[Fallback] = ()
