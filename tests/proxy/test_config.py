"""The configuration is checked whole, and every error names key, value, rule and likely cause."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.settings import Limits
from penstock.errors import ConfigError
from penstock.proxy.config import load, loads
from penstock.proxy.config.models import Config
from penstock.schema.json_schema import resolved, schema_of, words
from penstock.schema.reading import read

LEAST = '[[upstreams]]\nbase_url = "http://127.0.0.1:9/v1"\n'


def _at(base_url: str) -> str:
    return f'[[upstreams]]\nbase_url = "{base_url}"\n'


def errors(text: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loads(text, env=env)
    return [line.strip() for line in str(raised.value).splitlines()[1:]]


def test_one_line_is_enough() -> None:
    loaded = loads(LEAST, env={})

    assert [c.name for c in loaded.settings.classes] == ["interactive", "heavy", "batch"]
    assert loaded.settings.upstreams[0].limits.requests_per_min == math.inf
    assert loaded.config.server.drain_grace_s == 600
    assert loaded.config.admin.host == "127.0.0.1"


@pytest.mark.parametrize(
    "text",
    [
        LEAST + '[predictor]\nprior = "' + "a" * 5000 + '"',
        LEAST + 'api_key_file = "\\u0000"',
        LEAST + "[scheduler]\nqueue_limit = 1" + "0" * 400,
        LEAST + '[[classes]]\nname = "a"\ndeadline_s = 1e308',
    ],
)
def test_what_only_the_core_or_the_system_refuses_is_said_in_a_line(text: str) -> None:
    (line,) = errors(text)
    assert len(line) <= 200


def test_every_problem_is_told_at_once() -> None:
    found = errors(
        """
        [server]
        port = "8790"
        hots = "x"
        [admin]
        port = 99999
        [[upstreams]]
        base_url = "ftp://h/"
        [[classes]]
        name = "a b"
        weight = 0
        """
    )
    keys = {line.split(" = ")[0].split(":")[0] for line in found}
    assert keys == {
        "server.port",
        "server.hots",
        "admin.port",
        "upstreams[0].base_url",
        "classes[0].name",
        "classes[0].weight",
    }


def test_a_mistake_in_a_key_hides_none_between_tables_nor_in_the_environment() -> None:
    found = errors(
        """
        [server]
        port = "8787"
        host = "127.0.0.1"
        [admin]
        host = "127.0.0.1"
        port = 8787
        [[upstreams]]
        base_url = "http://localhost:8787/v1"
        api_key_env = "UP"
        idle_timeout_s = -1
        [[upstreams]]
        base_url = "nowhere"
        [[classes]]
        nmae = "a"
        estimate = { p50_tokens = "9", p90_tokens = 3 }
        [anonymous]
        traffic_class = "b"
        """
    )
    keys = [line.split(" = ")[0].split(":")[0] for line in found]
    # No word about ports that are equal by default, of a class that has no name yet, or of
    # quantiles of which only one is known.
    assert sorted(keys) == [
        "classes[0].estimate.p50_tokens",
        "classes[0].name",
        "classes[0].nmae",
        "server.port",
        "upstreams[0].api_key_env",
        "upstreams[0].idle_timeout_s",
        "upstreams[1].base_url",
        "upstreams[1].name",
    ]


def test_every_wrong_policy_is_told_at_once_and_with_everything_else() -> None:
    found = errors(
        """
        [scheduler]
        capacity = "posterir"
        ordering = { kind = "feasible_set", patience = 1 }
        [[upstreams]]
        base_url = "http://127.0.0.1:9/v1"
        capacity = { kind = "fixed", windw = 4, windwo = 5 }
        [[upstreams]]
        base_url = "http://127.0.0.1:9/v1"
        """
    )
    assert (
        "scheduler.capacity = 'posterir': is no policy of capacity (did you mean posterior?)"
        in found
    )
    assert "upstreams[0].capacity.windw = 4: is no option of fixed (did you mean window?)" in found
    assert len(found) == 5
    assert {line.split(" = ")[0].split(":")[0] for line in found} == {
        "scheduler.capacity",
        "scheduler.ordering.patience",
        "upstreams[0].capacity.windw",
        "upstreams[0].capacity.windwo",
        "upstreams[1].name",
    }


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.openai.com/v1",
        "https://gateway.example",
        "https://name.services.ai.azure.com/models",
        "http://127.0.0.1:9",
    ],
)
def test_a_base_url_that_may_work_is_taken(base_url: str) -> None:
    assert loads(_at(base_url), env={}).config.upstreams[0].base_url == base_url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "upstreams: is missing"),
        ("upstreams = []", "upstreams = []: must be a list of 1 or more"),
        (LEAST + "modles = []", "modles = []: is no key of this table (did you mean models?)"),
        (LEAST + "keep_alive_s = 0", "[0].keep_alive_s = 0: must be a number of seconds, above 0"),
        (LEAST + "keep_alive_s = inf", "leave the key out"),
        (LEAST + "auth = 'env'", "upstreams[0].auth = 'env': needs api_key_env"),
        (LEAST + "key_header = 'api-key'", "key_header = (hidden): needs api_key_env"),
        (LEAST + "key_header = 'x-key'", "must be one of authorization, x-api-key, api-key"),
        (LEAST + "rename = { a = 1 }", "rename.a = 1: must be text of 1 to 256 characters"),
        (LEAST + "models = ['b*']\nrename = { a = 'b' }", "rename = a table: names 'a', which"),
        (LEAST + "[server]\nport = 1.5", "server.port = 1.5: must be a whole number"),
        (LEAST + "[admin]\nenabled = 'no'", "true and false stand without quotes"),
        (LEAST + "[upstreams.limits]\nrequests_per_min = -1",
         "upstreams[0].limits.requests_per_min = -1: must be a number, 0.001 or more"),
        (LEAST + "[upstreams.model_limits.a]\nrequests_per_s = 'x'",
         "upstreams[0].model_limits.a.requests_per_s = 'x': must be a number"),
        (LEAST + "models = ['b']\n[upstreams.model_limits.a]", "names 'a', which models does not"),
        (LEAST + "[upstreams.model_limits.'a*']", "a table is for one model"),
        (LEAST + "[server]\nport=80\n[admin]\nport=80", "must differ from server.port"),
        (_at("https://api.openai.com"), "did you mean https://api.openai.com/v1?"),
        (_at("https://api.anthropic.com/"), "did you mean https://api.anthropic.com/v1?"),
        (_at("https://x.example/v1/chat/completions"), "did you mean https://x.example/v1?"),
        (_at("https://x.example/v1/messages/"), "must not hold /messages"),
        (_at("http://127.0.0.1:0/v1"), "must hold a port from 1 to 65535"),
        (_at("http://127.0.0.1:65536/v1"), "0-65535"),
        (_at("http://foo..bar/v1"), "is a dot too many in 'foo..bar'?"),
        (_at("http://localhost:8787/v1"), "must not be penstock's own server address"),
        (_at("http://127.0.0.1:8788"), "must not be penstock's own admin address"),
        (_at("http://[::1]:9/v1") + "[server]\nport=9\nhost='0.0.0.0'", "own server address"),
        (LEAST + "proxy='http://foo..bar:3128'", "is a dot too many in 'foo..bar'?"),
        (LEAST + LEAST, "upstreams[1].name = 'default': must be unique"),
        (LEAST + "[anonymous]\nmay_ask=['interactiv']", "did you mean interactive?"),
        (LEAST + "[[classes]]\nname='a'\n[[classes]]\nname='b'\nbuckets=['short']",
         "no class lists the bucket(s) medium, long, xlong"),
        (LEAST + "[[classes]]\nname='a'\nbuckets=['short','short']", "must have one owner"),
        (LEAST + "[[keys]]\nname='k'\nkey_env='K'", "must be 'env' or 'none'"),
        (LEAST + "auth='none'\n[[keys]]\nname='k'\nkey_env='K'", "is not set or empty"),
        (LEAST + "[scheduler.overload]\nkind='cost_laddr'", "cost_laddr"),
        (LEAST + "[scheduler.overload]\nkind='cost_ladder'\nno_such_option=1", "no_such_option"),
        (LEAST + "[scheduler]\noverload=7", "must be a policy's name, or a table with a kind"),
        (LEAST + "[estimates]\ndefault={p50_tokens=9,p90_tokens=3}", "were the two swapped?"),
        (LEAST + "[shadow.policies.a.scheduler]\ncapacty='fixed'",
         "a.scheduler.capacty = 'fixed': is no key of this table (did you mean capacity?)"),
        (LEAST + "[[fallbacks]]\nmodel='a'\nwhen=['down']", "1 problem"),
        ("x = [", "is not TOML"),
    ],
)  # fmt: skip
def test_an_error_says_what_to_mend(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loads(text, env={})
    assert said in str(raised.value)


def test_a_policy_option_that_cannot_work_is_refused_by_the_policys_own_rule() -> None:
    said = errors(
        """
        [[upstreams]]
        name = "a"
        base_url = "http://127.0.0.1:1/v1"
        [scheduler]
        overload = { kind = "cost_ladder", defer_at = { tiny = 1 } }
        capacity = { kind = "fixed", window = 1.5 }
        """
    )

    assert any(
        line.startswith("scheduler.overload.defer_at.tiny = 1: no such rung: must be one of short")
        for line in said
    )
    assert any(
        line.startswith("scheduler.capacity.window = 1.5: must be a whole number >= 1")
        for line in said
    )


def test_keys_come_from_the_environment_alone() -> None:
    text = (
        LEAST
        + "api_key_env = 'UP'\n[[keys]]\nname='a'\nkey_env='A'\n[[keys]]\nname='b'\nkey_env='B'"
    )

    loaded = loads(text, env={"UP": "u" * 9, "A": "a" * 9, "B": "b" * 9})

    assert loaded.upstream_keys["default"].reveal() == "u" * 9
    assert {name: key.reveal()[0] for name, key in loaded.caller_keys.items()} == {
        "a": "a",
        "b": "b",
    }
    assert "must hold a key of its own" in errors(text, UP="u", A="same", B="same")[0]
    assert "printable ASCII" in errors(text, UP="two words", A="a", B="b")[0]


def test_a_file_that_is_not_there_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "binary.toml")


def test_policies_and_limits_reach_the_scheduler() -> None:
    loaded = loads(
        LEAST
        + """
        [upstreams.capacity]
        kind = "fixed"
        window = 3
        [upstreams.limits]
        tokens_per_min = 1000
        [upstreams.model_limits."gpt-5.mini"]
        requests_per_day = 9
        [scheduler]
        retry_share = 0.25
        ordering = "edf"
        """,
        env={},
    )
    upstream = loaded.settings.upstreams[0]
    assert upstream.capacity is not None
    assert (upstream.capacity.kind, dict(upstream.capacity.options)) == ("fixed", {"window": 3})
    assert upstream.limits.tokens_per_min == 1000
    assert upstream.model_limits == {"openai/gpt-5.mini": Limits(requests_per_day=9.0)}
    assert loaded.settings.retry_share == 0.25
    assert loaded.settings.stack.ordering.kind == "edf"


def test_every_key_has_a_rule_and_a_meaning() -> None:
    schema = schema_of(Config)
    tables = [schema, *schema["$defs"].values()]
    for table in tables:
        for name, node in table["properties"].items():
            node = resolved(schema, node)
            assert node.get("description", "items have one").endswith((".", "one")), name
            assert words(node) != "be of another kind", name
    assert schema["required"] == ["upstreams"]


_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(table=st.sampled_from(["server", "admin", "log", "anonymous", "scheduler"]), data=st.data())
def test_no_value_at_all_brings_the_check_down(table: str, data: st.DataObject) -> None:
    kind = type(getattr(loads(LEAST, env={}).config, table))
    names = st.sampled_from([*kind.model_fields, "odd"]) | st.text(max_size=3)
    given_table = data.draw(_VALUES | st.dictionaries(names, _VALUES))

    reading = read(Config, {"upstreams": [{"base_url": "http://h/v1"}], table: given_table})

    assert reading.table is not None
    for problem in reading.problems:
        assert str(problem).startswith(table)
