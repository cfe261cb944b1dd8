"""What callers may ask for by header: worse treatment always, better only if configured."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.calls.hints import Hints, hints_of
from penstock.core.model import TokenEstimate
from penstock.proxy.config import loads
from penstock.proxy.declined import Declined
from penstock.proxy.request_reader import Callers, Treatment

CLASSES = ("gold", "silver", "bronze")


def callers(caller: str = "") -> Callers:
    return Callers(
        loads(
            f"""
[anonymous]
{caller}
[[upstreams]]
base_url = "http://h/v1"
[[classes]]
name = "gold"
buckets = ["short"]
deadline_s = 1
[[classes]]
name = "silver"
buckets = ["medium", "long"]
deadline_s = 10
[[classes]]
name = "bronze"
buckets = ["xlong"]
""",
            env={},
        )
    )


def treat(who: Callers, bucket: str = "medium", **asked: Any) -> Treatment:
    return who.treat(who.identify([]), Hints(**asked), bucket)


def test_without_a_word_the_predicted_bucket_decides() -> None:
    who = callers()
    assert [treat(who, b).traffic_class for b in ("short", "medium", "long", "xlong")] == [
        "gold",
        "silver",
        "silver",
        "bronze",
    ]
    assert treat(who, "short").deadline_s == 1


def test_worse_is_always_granted_and_better_is_refused() -> None:
    who = callers()

    assert treat(who, traffic_class="bronze").traffic_class == "bronze"
    assert treat(who, deadline_s=99.0).deadline_s == 99.0
    for asked in ({"traffic_class": "gold"}, {"deadline_s": 9.0}, {"tenant": "other"}):
        with pytest.raises(Declined) as declined:
            treat(who, **asked)
        assert declined.value.status == 403
        assert "in [anonymous] allows it" in declined.value.message


def test_better_is_granted_where_the_configuration_says_so() -> None:
    who = callers('may_ask = ["gold"]\nshortest_deadline_s = 0.5\nmay_name_tenant = true')

    found = treat(who, traffic_class="gold", deadline_s=0.5, tenant="t")

    assert (found.traffic_class, found.deadline_s, found.tenant) == ("gold", 0.5, "t")
    with pytest.raises(Declined):
        treat(who, deadline_s=0.4)


def test_a_class_of_its_own_wins_over_the_bucket() -> None:
    who = callers('traffic_class = "bronze"')
    assert treat(who, "short").traffic_class == "bronze"
    with pytest.raises(Declined):
        treat(who, "short", traffic_class="silver")


def test_a_class_that_does_not_exist_is_a_400() -> None:
    with pytest.raises(Declined) as declined:
        treat(callers(), traffic_class="platinum")
    assert declined.value.status == 400


@given(
    own=st.sampled_from([None, *CLASSES]),
    may_ask=st.sets(st.sampled_from(CLASSES)),
    bucket=st.sampled_from(["short", "medium", "long", "xlong"]),
    asked=st.none() | st.sampled_from(CLASSES),
    deadline_s=st.none() | st.floats(0.001, 1000),
)
def test_nobody_is_ever_treated_better_than_allowed(
    own: str | None, may_ask: set[str], bucket: str, asked: str | None, deadline_s: float | None
) -> None:
    lines = [f"may_ask = {sorted(may_ask)}"]
    if own is not None:
        lines.append(f'traffic_class = "{own}"')
    who = callers("\n".join(lines))
    plain = treat(who, bucket)
    try:
        found = treat(who, bucket, traffic_class=asked, deadline_s=deadline_s)
    except Declined as declined:
        assert declined.status == 403  # noqa: PT017 - or it is granted: both are good
        return

    better = CLASSES.index(found.traffic_class) < CLASSES.index(plain.traffic_class)
    assert not better or found.traffic_class in may_ask
    assert found.deadline_s >= treat(who, bucket, traffic_class=asked).deadline_s


def test_how_long_replies_will_be_is_believed_only_of_those_who_may_say_so() -> None:
    stated = hints_of([(b"x-penstock-tokens", b"40,90")])
    assert stated.tokens == TokenEstimate(40, 90, "caller")
    assert hints_of([(b"x-penstock-tokens", b"40")]).tokens == TokenEstimate(40, 40, "caller")

    who = callers("may_state_tokens = true")
    assert who.treat(who.identify([]), stated, "short").traffic_class == "gold"
    with pytest.raises(Declined) as declined:
        treat(callers(), tokens=stated.tokens)
    assert (declined.value.status, declined.value.code) == (403, "tokens_not_allowed")
