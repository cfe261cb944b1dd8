"""When an account is spent every caller hears so at once, in the provider's words and in ours."""

import json

from tests.proxy.sidecars import call, in_front_of, sidecar
from tests.proxy.test_relay import scripted

SAID = "You exceeded your current quota, please check your plan and billing details."
SPENT = json.dumps(
    {"error": {"code": "insufficient_quota", "message": f"{SAID} Key sk-proj-abcdef123456"}}
).encode()


def test_later_calls_of_a_spent_account_repeat_the_providers_words() -> None:
    head = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\n"
    answer = head + b"content-length: %d\r\n\r\n" % len(SPENT) + SPENT
    with (
        scripted([answer]) as upstream,
        sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}")) as proxy,
    ):
        upstream.go()
        first, second = call(proxy.port), call(proxy.port)

    assert len(upstream.requests) == 1
    assert (first.status, first.body) == (429, SPENT)
    assert second.status == 429
    assert [each.headers["x-should-retry"] for each in (first, second)] == ["false"] * 2
    error = second.json()["error"]
    assert error["message"].startswith("penstock refused request")
    assert "add credit" in error["message"]
    assert SAID in error["penstock"]["provider_said"]
    assert SAID in error["message"]
    assert b"sk-proj" not in second.body
