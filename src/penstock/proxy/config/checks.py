"""Rules that no single key can break alone, and the keys that the environment holds."""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from penstock.errors import ConfigError
from penstock.proxy.config.forward_proxy import Address, ForwardProxy, configured, from_environment
from penstock.proxy.config.keyring import KINDS, Keyring, KeySource
from penstock.proxy.config.listeners import Admin
from penstock.proxy.config.models import (
    BUCKETS,
    NO_PRIOR,
    SHIPPED_PRIOR,
    Caller,
    Config,
    Key,
    UpstreamTable,
)
from penstock.proxy.config.to_core import classes_of, core_settings
from penstock.proxy.routing import serves
from penstock.schema.policies import problems_of
from penstock.schema.problem import Problem, close_to
from penstock.schema.reading import TableReading
from penstock.schema.types import Table
from penstock.wire.secret import KeyProblem, Secret

_LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")  # noqa: S104 - only compared
LEAST_TOKEN_LENGTH = 16

Problems = Iterator[Problem]


def cross_check(reading: TableReading[Config], keyring: Keyring) -> Problems:
    """Yield what is wrong between the tables, and with what the environment holds for them.

    A check that reads a key which is wrong itself is left out: it would speak of a default.
    """
    for keys, check in _CHECKS:
        if reading.table is not None and reading.tells(*keys):
            yield from check(reading.table)
    for keys, look in _ENVIRONMENT_CHECKS:
        if reading.table is not None and reading.tells(*keys):
            yield from look(reading.table, keyring)


def _twice(table: str, config: Config) -> Problems:
    seen: dict[str, int] = {}
    for index, name in enumerate(each.name for each in getattr(config, table)):
        if name in seen:
            yield Problem(
                f"{table}[{index}].name", repr(name), "must be unique",
                f"{table}[{seen[name]}] has it already",
            )  # fmt: skip
        seen.setdefault(name, index)


def _buckets(config: Config) -> Problems:
    owner: dict[str, str] = {}
    for index, item in enumerate(config.classes):
        for bucket in item.buckets:
            if bucket in owner:
                yield Problem(
                    f"classes[{index}].buckets", repr(bucket), "must have one owner",
                    f"class {owner[bucket]} lists it too",
                )  # fmt: skip
            owner.setdefault(bucket, item.name)
    missing = [bucket for bucket in BUCKETS if bucket not in owner]
    needs = [place for place, caller in _callers(config) if caller.traffic_class is None]
    if missing and needs and len(config.classes) > 1:
        yield Problem(
            "classes", "", f"no class lists the bucket(s) {', '.join(missing)}",
            f"{needs[0]} has no traffic_class, so its requests are sorted by bucket: "
            "name each in the buckets of a class",
        )  # fmt: skip


def _callers(config: Config) -> list[tuple[str, Caller]]:
    if config.keys:
        return [(f"keys[{index}]", key) for index, key in enumerate(config.keys)]
    return [("anonymous", config.anonymous)]


def _asked_classes(config: Config) -> Problems:
    known = [item.name for item in config.classes]
    for place, caller in _callers(config):
        asked = [("traffic_class", caller.traffic_class)] if caller.traffic_class else []
        asked += [("may_ask", name) for name in caller.may_ask if name != "*"]
        for key, name in asked:
            if name not in known:
                yield Problem(f"{place}.{key}", repr(name), "is no class", close_to(name, known))


def _leaks(config: Config) -> Problems:
    for index, upstream in enumerate(config.upstreams):
        if config.keys and upstream.key_from == "caller":
            yield Problem(
                f"upstreams[{index}].auth", "'caller'",
                "must be 'env' or 'none' where [[keys]] are configured",
                "callers' penstock keys would be sent to the provider",
            )  # fmt: skip


def _loops(config: Config) -> Problems:
    """Yield upstreams that are penstock itself: each call would call it again, for ever."""
    ours = [("server", config.server.host, config.server.port)]
    if config.admin.enabled:
        ours.append(("admin", config.admin.host, config.admin.port))
    for index, upstream in enumerate(config.upstreams):
        there = Address.parse(upstream.base_url)
        for table, host, port in ours:
            if port and there.port == port and _same_machine(there.host, host):
                yield Problem(
                    f"upstreams[{index}].base_url", repr(upstream.base_url),
                    f"must not be penstock's own {table} address",
                    "does the provider listen on another port?",
                )  # fmt: skip


def _same_machine(called: str, listens: str) -> bool:
    """Return whether a call to one host reaches who listens on the other, as far as names tell."""
    anywhere = listens in ("0.0.0.0", "::")  # noqa: S104 - it is only compared
    return called == listens or (called in _LOOPBACK and (anywhere or listens in _LOOPBACK))


def _prior(config: Config) -> Problems:
    prior = config.predictor.prior
    if prior not in (SHIPPED_PRIOR, NO_PRIOR) and not Path(prior).is_file():
        yield Problem(
            "predictor.prior", repr(prior), "must be shipped, none or a file",
            "was it trained somewhere else?",
        )  # fmt: skip


def _one_port(config: Config) -> Problems:
    admin, server = config.admin, config.server
    if admin.enabled and admin.port and (admin.host, admin.port) == (server.host, server.port):
        yield Problem(
            "admin.port", str(admin.port), "must differ from server.port",
            "callers must not reach the admin pages",
        )  # fmt: skip


def _allocation(config: Config) -> Problems:
    """Yield options of the allocation policy that name no class."""
    spec = config.scheduler.allocation
    if spec is not None:
        for problem in problems_of("allocation", spec, classes_of(config)):
            yield problem.below("scheduler.allocation")


def _keys_of_upstreams(config: Config, keyring: Keyring) -> Problems:
    for index, upstream in enumerate(config.upstreams):
        source = source_of_upstream(upstream, index)
        if source is not None:
            yield from _unusable(source, keyring)


def _keys_of_callers(config: Config, keyring: Keyring) -> Problems:
    owner: dict[str, str] = {}
    for index, key in enumerate(config.keys):
        source = _source_of_key(key, index)
        wrong = list(_unusable(source, keyring))
        yield from wrong
        if wrong:
            continue
        secret = keyring.key(source).reveal()
        if secret in owner:
            yield Problem(
                source.place, repr(source.words[0]), "must hold a key of its own",
                f"{owner[secret]} has the same one",
            )  # fmt: skip
        owner.setdefault(secret, key.name)


def _token(config: Config, keyring: Keyring) -> Problems:
    admin = config.admin
    source = _source_of_token(admin)
    if source is None:
        if admin.enabled and not is_loopback(admin.host):
            yield Problem(
                "admin.host", repr(admin.host), "needs admin.token_env or admin.token_file",
                "beyond loopback anybody who reaches the port would read who calls what",
            )  # fmt: skip
        return
    wrong = list(_unusable(source, keyring))
    yield from wrong
    if not wrong and len(keyring.key(source).reveal()) < LEAST_TOKEN_LENGTH:
        yield Problem(
            source.place, repr(source.words[0]),
            f"must hold a token of at least {LEAST_TOKEN_LENGTH} characters",
            "openssl rand -hex 32 makes one",
        )  # fmt: skip


def _unusable(source: KeySource, keyring: Keyring) -> Problems:
    try:
        keyring.key(source)
    except KeyProblem as problem:
        yield Problem(source.place, repr(source.words[0]), problem.rule, problem.likely)


def source_of_upstream(upstream: UpstreamTable, index: int) -> KeySource | None:
    """Return where an upstream's key is; None if it has none of our own."""
    return _source(f"upstreams[{index}].api_key", upstream, "api_key")


def _source_of_key(key: Key, index: int) -> KeySource:
    source = _source(f"keys[{index}].key", key, "key")
    assert source is not None  # the table's own check
    return source


def _source_of_token(admin: Admin) -> KeySource | None:
    return _source("admin.token", admin, "token")


def _source(place: str, table: Table, secret: str) -> KeySource | None:
    """Return where a table says that its secret is; None if it does not."""
    for kind in KINDS:
        words = getattr(table, f"{secret}_{kind}", None)
        if words is not None:
            words = (words,) if isinstance(words, str) else words
            return KeySource(f"{place}_{kind}", kind, words)
    return None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches who listens on the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxies_of_the_environment(config: Config, keyring: Keyring) -> Problems:
    env = keyring.env
    for index, upstream in enumerate(config.upstreams):
        if upstream.proxy is None:
            name, value = from_environment(Address.parse(upstream.base_url), env)
            try:
                ForwardProxy.parse(value or "http://none")
            except ValueError as error:
                yield Problem(
                    f"upstreams[{index}].proxy", "", f"{name} of the environment {error}",
                    'proxy = "none" dials the upstream directly',
                )  # fmt: skip


_Keys = tuple[str, ...]


def _fallbacks(config: Config) -> Problems:
    """Yield fallbacks to models that nobody serves."""
    for index, each in enumerate(config.fallbacks):
        served = any(serves(upstream.models, each.to_model or "") for upstream in config.upstreams)
        if each.to_model is not None and not served:
            yield Problem(
                f"fallbacks[{index}].to_model", repr(each.to_model),
                "is served by no upstream", "its name as callers use it is meant, not rename's",
            )  # fmt: skip


def _shadow(config: Config) -> Problems:
    """Yield what the shadow cannot do."""
    if config.shadow.enabled and config.log.decisions_path is None:
        yield Problem("shadow.enabled", "true", "needs log.decisions_path", "it reads that log")
    try:
        held = core_settings(config)
    except ValueError:
        return  # what is wrong there is said where it stands
    for name, policy in config.shadow.policies.items():
        try:
            policy.settings(held)
        except (ConfigError, ValueError) as error:
            yield Problem(f"shadow.policies.{name}", "", f"cannot hold: {error}")


_CHECKS: tuple[tuple[_Keys, Callable[[Config], Problems]], ...] = (
    (("upstreams.name",), partial(_twice, "upstreams")),
    (("classes.name",), partial(_twice, "classes")),
    (("keys.name",), partial(_twice, "keys")),
    (("classes", "keys.traffic_class", "anonymous.traffic_class"), _buckets),
    (("classes.name",), _asked_classes),
    (("upstreams.auth", "upstreams.api_key_env"), _leaks),
    (("upstreams.base_url", "server.host", "server.port", "admin.host", "admin.port"), _loops),
    (("predictor.prior",), _prior),
    (("server.host", "server.port", "admin.host", "admin.port"), _one_port),
    (("scheduler.allocation", "classes", "estimates.default"), _allocation),
    (("fallbacks", "upstreams.models"), _fallbacks),
    (("shadow", "log", "classes", "upstreams", "scheduler", "estimates"), _shadow),
)
"""Each check with the keys that it reads."""
_ENVIRONMENT_CHECKS: tuple[tuple[_Keys, Callable[[Config, Keyring], Problems]], ...] = (
    (
        ("upstreams.api_key_env", "upstreams.api_key_file", "upstreams.api_key_command"),
        _keys_of_upstreams,
    ),
    (("keys.key_env", "keys.key_file"), _keys_of_callers),
    (("admin.host", "admin.enabled", "admin.token_env", "admin.token_file"), _token),
    (("upstreams.base_url", "upstreams.proxy"), _proxies_of_the_environment),
)


def keys_of_upstreams(config: Config, keyring: Keyring) -> dict[str, Secret]:
    """Return the keys of upstreams that have one, by upstream."""
    return {
        upstream.name: keyring.key(source)
        for index, upstream in enumerate(config.upstreams)
        if (source := source_of_upstream(upstream, index)) is not None
    }


def keys_of_callers(config: Config, keyring: Keyring) -> dict[str, Secret]:
    """Return the keys that callers may present, by name."""
    return {
        key.name: keyring.key(_source_of_key(key, index)) for index, key in enumerate(config.keys)
    }


def admin_token(config: Config, keyring: Keyring) -> Secret | None:
    """Return the token that the admin pages ask for; None if they ask for none."""
    source = _source_of_token(config.admin)
    return None if source is None else keyring.key(source)


def forward_proxies(config: Config, env: Mapping[str, str]) -> dict[str, ForwardProxy]:
    """Return the proxies that upstreams are reached through, by upstream."""
    return {
        upstream.name: proxy
        for upstream in config.upstreams
        if (proxy := _forward_proxy(upstream, env)) is not None
    }


def _forward_proxy(upstream: UpstreamTable, env: Mapping[str, str]) -> ForwardProxy | None:
    if upstream.proxy is not None:
        return configured(upstream.proxy)
    _, value = from_environment(Address.parse(upstream.base_url), env)
    return ForwardProxy.parse(value) if value else None
