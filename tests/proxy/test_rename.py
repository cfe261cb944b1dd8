"""A model's other name at an upstream: nothing but the name changes on the way."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.proxy.routing import renamed
from tests.proxy.sidecars import CHAT, GOOD_REPLY, call, sidecar
from tests.proxy.test_relay import scripted

WHOLE = GOOD_REPLY


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"a"}', b'{"model":"x-\xc3\xa9"}'),
        (b' { "model" :\n"a" , "n":1e2 } ', b' { "model" :\n"x-\xc3\xa9" , "n":1e2 } '),
        (b'{"m":[{"model":"a"}],"k":"model","model":"a"}',
         b'{"m":[{"model":"a"}],"k":"model","model":"x-\xc3\xa9"}'),
        (b'{"t":"\\"model\\":\\"a\\" }{","model":"a"}',
         b'{"t":"\\"model\\":\\"a\\" }{","model":"x-\xc3\xa9"}'),
        (b'{"model":"a","model":"a"}', b'{"model":"x-\xc3\xa9","model":"x-\xc3\xa9"}'),
        (b'{"mod\\u0065l":"\\u0061"}', b'{"mod\\u0065l":"x-\xc3\xa9"}'),
        (b'\xef\xbb\xbf{"\\ud83d":"k","model":"a"}',
         b'\xef\xbb\xbf{"\\ud83d":"k","model":"x-\xc3\xa9"}'),
        (b'{"model":"b","x":{"model":"a"}}', b'{"model":"b","x":{"model":"a"}}'),
        ('{"model":"a"}'.encode("utf-16"), b'{"model":"x-\xc3\xa9"}'),
        ('{"model":"a"}'.encode("utf-32-be"), b'{"model":"x-\xc3\xa9"}'),
    ],
)  # fmt: skip
def test_only_the_models_own_value_is_replaced(body: bytes, sent: bytes) -> None:
    assert renamed(body, {"a": "x-\u00e9"}) == sent


_JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", '"', "{"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(
    fields=st.dictionaries(st.sampled_from(["a", "messages", "}", "\\"]), _JSON),
    at_end=st.booleans(),
)
def test_any_body_means_the_same_with_another_model(fields: Any, at_end: bool) -> None:
    data = {**fields, "model": "a"} if at_end else {"model": "a", **fields}

    for body in (orjson.dumps(data), json.dumps(data, indent=1).encode()):
        assert orjson.loads(renamed(body, {"a": "b"})) == {**data, "model": "b"}


def test_one_name_is_served_by_upstreams_that_call_it_otherwise() -> None:
    with scripted([WHOLE]) as first:
        first.go(10)
        toml = f"""
[server]
port = 0
[admin]
port = 0
[[upstreams]]
base_url = "http://127.0.0.1:{first.port}/v1"
auth = "none"
models = ["gpt-4o", "other"]
rename = {{ "gpt-4o" = "my-deployment" }}
"""
        with sidecar(toml) as proxy:
            for body in (
                b'{ "messages":[],"model": "gpt-4o" }',
                b'{"model":"other","messages":[]}',
            ):
                assert call(proxy.port, CHAT, body=body).status == 200
            assert call(proxy.port, "/v1/models/gpt-4o", method="GET", body=None).status == 200
    sent = [request.partition(b"\r\n\r\n") for request in first.requests]
    assert sent[0][2] == b'{ "messages":[],"model": "my-deployment" }'
    assert b"content-length: 42" in sent[0][0].lower()
    assert sent[1][2] == b'{"model":"other","messages":[]}'
    assert sent[2][0].startswith(b"GET /v1/models/my-deployment HTTP/1.1")
