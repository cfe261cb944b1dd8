"""Rules that no single key can break alone, and the keys that the environment holds."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock.proxy.config.models import (
    BUCKETS,
    NO_PRIOR,
    SHIPPED_PRIOR,
    Caller,
    Config,
    Key,
)
from penstock.proxy.config.problem import Problem, close_to
from penstock.proxy.config.secret import Secret
from penstock.proxy.upstream.address import Address
from penstock.proxy.upstream.forward_proxy import ForwardProxy, configured, from_environment

_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")  # noqa: S104 - only compared


def cross_check(config: Config) -> list[Problem]:
    """Return what is wrong between the tables."""
    problems: list[Problem] = []
    for table, names in (
        ("upstreams", [u.name for u in config.upstreams]),
        ("classes", [c.name for c in config.classes]),
        ("keys", [k.name for k in config.keys]),
    ):
        problems += _twice(table, names)
    problems += _buckets(config)
    for place, caller in _callers(config):
        problems += _caller(place, caller, config)
    if config.keys:
        problems += _leaks(config)
    problems += _loops(config)
    prior = config.predictor.prior
    if prior not in (SHIPPED_PRIOR, NO_PRIOR) and not Path(prior).is_file():
        problems.append(
            Problem("predictor.prior", repr(prior), "must be shipped, none or a file",
                    "was it trained somewhere else?")
        )  # fmt: skip
    if (
        config.admin.enabled
        and config.admin.port
        and ((config.admin.host, config.admin.port) == (config.server.host, config.server.port))
    ):
        problems.append(
            Problem("admin.port", str(config.admin.port), "must differ from server.port",
                    "callers must not reach the admin pages")
        )  # fmt: skip
    return problems


def _twice(table: str, names: Iterable[str]) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for index, name in enumerate(names):
        if name in seen:
            problems.append(
                Problem(f"{table}[{index}].name", repr(name), "must be unique",
                        f"{table}[{seen[name]}] has it already")
            )  # fmt: skip
        seen.setdefault(name, index)
    return problems


def _buckets(config: Config) -> list[Problem]:
    owner: dict[str, str] = {}
    problems = []
    for index, item in enumerate(config.classes):
        for bucket in item.buckets:
            if bucket in owner:
                problems.append(
                    Problem(f"classes[{index}].buckets", repr(bucket), "must have one owner",
                            f"class {owner[bucket]} lists it too")
                )  # fmt: skip
            owner.setdefault(bucket, item.name)
    missing = [bucket for bucket in BUCKETS if bucket not in owner]
    needs = [place for place, caller in _callers(config) if caller.traffic_class is None]
    if missing and needs and len(config.classes) > 1:
        problems.append(
            Problem("classes", "", f"no class lists the bucket(s) {', '.join(missing)}",
                    f"{needs[0]} has no traffic_class, so its requests are sorted by bucket")
        )  # fmt: skip
    return problems


def _callers(config: Config) -> list[tuple[str, Caller | Key]]:
    if config.keys:
        return [(f"keys[{index}]", key) for index, key in enumerate(config.keys)]
    return [("anonymous", config.anonymous)]


def _caller(place: str, caller: Caller | Key, config: Config) -> list[Problem]:
    known = [item.name for item in config.classes]
    asked = [("traffic_class", caller.traffic_class)] if caller.traffic_class else []
    asked += [("may_ask", name) for name in caller.may_ask if name != "*"]
    problems = []
    for key, name in asked:
        if name not in known:
            cause = close_to(str(name), known)
            problems.append(Problem(f"{place}.{key}", repr(name), "is no class", cause))
    return problems


def _leaks(config: Config) -> list[Problem]:
    return [
        Problem(f"upstreams[{index}].auth", "'caller'",
                "must be 'env' or 'none' where [[keys]] are configured",
                "callers' penstock keys would be sent to the provider")
        for index, upstream in enumerate(config.upstreams)
        if upstream.key_from == "caller"
    ]  # fmt: skip


def _loops(config: Config) -> list[Problem]:
    """Return upstreams that are penstock itself: each call would call it again, for ever."""
    ours = [("server", config.server.host, config.server.port)]
    if config.admin.enabled:
        ours.append(("admin", config.admin.host, config.admin.port))
    problems = []
    for index, upstream in enumerate(config.upstreams):
        there = Address.parse(upstream.base_url)
        for table, host, port in ours:
            if port and there.port == port and _same_machine(there.host, host):
                problems.append(
                    Problem(f"upstreams[{index}].base_url", repr(upstream.base_url),
                            f"must not be penstock's own {table} address",
                            "does the provider listen on another port?")
                )  # fmt: skip
    return problems


def _same_machine(called: str, listens: str) -> bool:
    """Say whether a call to one host reaches who listens on the other, as far as names tell."""
    anywhere = listens in ("0.0.0.0", "::")  # noqa: S104 - it is only compared
    return called == listens or (called in _LOOPBACK and (anywhere or listens in _LOOPBACK))


def resolve_keys(
    config: Config, env: Mapping[str, str], problems: list[Problem]
) -> tuple[dict[str, Secret], dict[str, Secret]]:
    """Return the upstreams' keys and the callers' keys; what is missing joins `problems`."""
    upstreams: dict[str, Secret] = {}
    for index, upstream in enumerate(config.upstreams):
        if upstream.api_key_env is not None:
            place = f"upstreams[{index}].api_key_env"
            secret = _from_env(place, upstream.api_key_env, env, problems)
            if secret is not None:
                upstreams[upstream.name] = secret
    callers: dict[str, Secret] = {}
    owner: dict[str, str] = {}
    for index, key in enumerate(config.keys):
        place = f"keys[{index}].key_env"
        secret = _from_env(place, key.key_env, env, problems)
        if secret is None:
            continue
        if secret.reveal() in owner:
            problems.append(
                Problem(place, repr(key.key_env), "must hold a key of its own",
                        f"{owner[secret.reveal()]} has the same one")
            )  # fmt: skip
        owner.setdefault(secret.reveal(), key.name)
        callers[key.name] = secret
    return upstreams, callers


def resolve_proxies(
    config: Config, env: Mapping[str, str], problems: list[Problem]
) -> dict[str, ForwardProxy]:
    """Return the proxies that upstreams are reached through; what cannot be joins `problems`."""
    proxies: dict[str, ForwardProxy] = {}
    for index, upstream in enumerate(config.upstreams):
        if upstream.proxy is not None:
            proxy = configured(upstream.proxy)  # the schema has tried it
        else:
            name, value = from_environment(Address.parse(upstream.base_url), env)
            try:
                proxy = ForwardProxy.parse(value) if value else None
            except ValueError as error:
                problems.append(
                    Problem(f"upstreams[{index}].proxy", "", f"{name} of the environment {error}",
                            'proxy = "none" dials the upstream directly')
                )  # fmt: skip
                continue
        if proxy is not None:
            proxies[upstream.name] = proxy
    return proxies


def _from_env(
    place: str, name: str, env: Mapping[str, str], problems: list[Problem]
) -> Secret | None:
    value = env.get(name, "").strip()
    if not value:
        problems.append(
            Problem(place, repr(name), "names an environment variable that is not set or empty",
                    "is it exported where penstock starts?")
        )  # fmt: skip
        return None
    if not value.isascii() or not value.isprintable() or " " in value:
        problems.append(
            Problem(place, repr(name), "must hold a key of printable ASCII without spaces",
                    "did a line break or a quote get in?")
        )  # fmt: skip
        return None
    return Secret(value)
