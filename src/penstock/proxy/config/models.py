"""What may stand in penstock.toml: every table and key, with its rule and its meaning.

The descriptions are the reference manual: docs/reference/configuration.md is made from them.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from penstock.core.model import BUCKET_UPPER_TOKENS
from penstock.proxy.upstream.address import Address

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"
Bucket = Literal["short", "medium", "long", "xlong"]
Positive = Annotated[float, Field(gt=0)]
PositiveFinite = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _env_name(value: object) -> object:
    if isinstance(value, str) and not ENV_NAME.match(value):
        raise ValueError(
            "must be the name of an environment variable (letters, digits, _), not a key itself"
        )
    return value


EnvName = Annotated[str, BeforeValidator(_env_name)]


class Table(BaseModel):
    """A TOML table: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Server(Table):
    """Where callers connect."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    max_body_bytes: int = Field(
        10_485_760, ge=1024, description="Larger request bodies are refused with 413."
    )
    body_timeout_s: PositiveFinite = Field(
        60.0, description="How long a caller may take to send its body, in seconds."
    )
    drain_grace_s: float = Field(
        600.0,
        ge=0,
        allow_inf_nan=False,
        description="After SIGTERM: how long streams may go on, in seconds.",
    )


class Admin(Table):
    """Where operators look: /healthz, /readyz, /metrics, /snapshot, /decisions."""

    enabled: bool = Field(True, description="Whether the admin listener runs.")
    host: str = Field(
        "127.0.0.1", description="Address to listen on. It has no login: keep it on loopback."
    )
    port: int = Field(8788, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    decisions_kept: int = Field(
        2_000, ge=0, le=1_000_000, description="How many requests /decisions remembers."
    )


class Policy(BaseModel):
    """A policy by name, with its own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    kind: str = Field(description="The policy's name in the registry.")

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class LimitsTable(Table):
    """Limits that the upstream's terms state; left out means unlimited or learnt from headers."""

    requests_per_min: Positive | None = Field(None, description="Requests in any 60 s.")
    tokens_per_min: Positive | None = Field(
        None, description="Input and output tokens in any 60 s."
    )
    input_tokens_per_min: Positive | None = Field(None, description="Input tokens in any 60 s.")
    output_tokens_per_min: Positive | None = Field(None, description="Output tokens in any 60 s.")


class Upstream(Table):
    """One account, region or provider. Requests go nowhere else."""

    name: str = Field("default", pattern=NAME, description="Its name in logs and metrics.")
    base_url: str = Field(
        description="What stands before /chat/completions, such as https://api.openai.com/v1."
    )
    dialect: Literal["openai", "anthropic"] = Field(
        "openai", description="Which API it speaks: decides paths and how its key is sent."
    )
    models: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field(
        default=["*"], min_length=1, description="Models it serves; * stands for any text."
    )
    auth: Literal["caller", "env", "none"] | None = Field(
        None,
        description="Whose key it gets: the caller's, the one in api_key_env, or none. "
        "Left out: env if api_key_env is set, else caller.",
    )
    api_key_env: EnvName | None = Field(
        None, description="Environment variable that holds its key."
    )
    capacity: Policy | None = Field(None, description="Its own window policy.")
    limits: LimitsTable = Field(LimitsTable(), description="Its stated limits.")
    connect_timeout_s: PositiveFinite = Field(10.0, description="For a connection, TLS included.")
    first_byte_timeout_s: PositiveFinite = Field(
        600.0, description="From the request to the answer's headers."
    )
    idle_timeout_s: PositiveFinite = Field(300.0, description="Between two pieces of an answer.")
    keep_alive_s: PositiveFinite = Field(
        4.0, description="How long an unused connection is kept open."
    )
    base_s: PositiveFinite = Field(0.2, description="First guess of its fixed service time.")
    s_per_token: PositiveFinite = Field(0.005, description="First guess of its time per token.")

    @model_validator(mode="after")
    def _consistent(self) -> "Upstream":
        Address.parse(self.base_url)
        if self.auth == "env" and self.api_key_env is None:
            raise ValueError("auth = 'env' needs api_key_env to name the variable")
        if self.auth in ("caller", "none") and self.api_key_env is not None:
            raise ValueError(f"auth = {self.auth!r} leaves api_key_env without use: drop one")
        return self

    @property
    def key_from(self) -> Literal["caller", "env", "none"]:
        """Whose key the upstream gets, the default worked out."""
        return self.auth or ("env" if self.api_key_env else "caller")


class EstimateTable(Table):
    """A prior of how many tokens a reply has."""

    p50_tokens: float = Field(ge=1, allow_inf_nan=False, description="The median.")
    p90_tokens: float = Field(ge=1, allow_inf_nan=False, description="The 90th percentile.")

    @model_validator(mode="after")
    def _ordered(self) -> "EstimateTable":
        if self.p90_tokens < self.p50_tokens:
            raise ValueError("p90_tokens must not be below p50_tokens: were the two swapped?")
        return self


class ClassTable(Table):
    """A kind of traffic. Listed from the best treated to the worst."""

    name: str = Field(pattern=NAME, description="As `x-penstock-class` names it.")
    weight: PositiveFinite = Field(1.0, description="Its share of tokens under contention.")
    buckets: list[Bucket] = Field(
        default=[],
        description="Requests predicted to be of these sizes fall into it by themselves.",
    )
    deadline_s: PositiveFinite | None = Field(
        None, description="Deadline of requests that state none; left out: none."
    )
    estimate: EstimateTable | None = Field(
        None, description="Prior for its requests where nothing better is known."
    )
    queue_limit: Count = Field(100_000, description="How many may wait; more are refused.")
    queue_limit_tokens: Positive | None = Field(
        None, description="How many predicted tokens may wait; more are refused."
    )
    ttl_s: PositiveFinite | None = Field(
        None, description="How long a request may wait before it is refused as expired."
    )


class Caller(Table):
    """What a caller may ask for by header. By default: worse treatment only."""

    traffic_class: str | None = Field(
        None,
        description="Its class. Left out: the class that lists the request's predicted bucket.",
    )
    may_ask: list[str] = Field(
        default=[],
        description="Classes it may ask for beyond its own and those listed after it; * for all.",
    )
    shortest_deadline_s: PositiveFinite | None = Field(
        None,
        description="Tightest deadline it may ask for. Left out: its class's; 0.001 frees it.",
    )
    may_name_tenant: bool = Field(False, description="Whether `x-penstock-tenant` is accepted.")


class Key(Caller):
    """A key that penstock itself hands out; the provider never sees it."""

    name: str = Field(pattern=NAME, description="Its name in logs and metrics; also its tenant.")
    key_env: EnvName = Field(description="Environment variable that holds the key.")


class EstimateRow(EstimateTable):
    """A row of the estimate table; the first that fits counts."""

    model: str = Field("*", min_length=1, description="Model; * stands for any text.")
    path: str = Field("*", min_length=1, description="API path after /v1, such as /embeddings.")


class Estimates(Table):
    """Where the predicted output lengths come from while no predictor is configured."""

    default: EstimateTable = Field(
        EstimateTable(p50_tokens=256, p90_tokens=1024), description="When nothing else is known."
    )
    trust_max_tokens: bool = Field(
        False,
        description="Whether callers set max_tokens to what they need: then it is taken as the "
        "p90, and 0.6 of it as the median. Otherwise it only caps the prior.",
    )
    table: list[EstimateRow] = Field(default=[], description="Priors by model and path.")


class PredictorTable(Table):
    """The learning predictor of output lengths."""

    kind: Literal["off", "online"] = Field(
        "off", description="online: learns from every reply's usage while it runs."
    )
    state_path: str | None = Field(None, description="File that keeps what it learnt.")


class SchedulerTable(Table):
    """The four layers and the queue's bounds."""

    allocation: Policy | None = Field(None, description="Which class sends next.")
    ordering: Policy | None = Field(None, description="Which request within a class.")
    overload: Policy | None = Field(None, description="Admit, defer or shed.")
    capacity: Policy | None = Field(None, description="How much may be in flight.")
    queue_limit: Count = Field(100_000, description="How many requests may wait in all.")
    sticky: bool = Field(
        False, description="Keep a conversation on one upstream (x-penstock-session)."
    )
    retry_share: float = Field(
        0.1, ge=0, le=1, description="Attempts beyond the first, as a share of requests."
    )
    max_attempts: Count = Field(8, description="Attempts for one request, the first included.")


class Log(Table):
    """The decision log: who waited for what and why; never a prompt, never a key."""

    decisions_path: str | None = Field(None, description="File (JSON lines); left out: none.")
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much the sidecar says on stderr."
    )


class Config(Table):
    """The whole file."""

    server: Server = Server()
    admin: Admin = Admin()
    upstreams: list[Upstream] = Field(min_length=1)
    classes: list[ClassTable] = Field(
        default=[
            ClassTable(name="interactive", weight=4.0, buckets=["short"]),
            ClassTable(name="heavy", weight=1.0, buckets=["medium", "long", "xlong"]),
        ],
        min_length=1,
    )
    anonymous: Caller = Caller()
    keys: list[Key] = []
    estimates: Estimates = Estimates()
    predictor: PredictorTable = PredictorTable()
    scheduler: SchedulerTable = SchedulerTable()
    log: Log = Log()


BUCKETS = tuple(name for name, _ in BUCKET_UPPER_TOKENS)
