"""One program's penstock: gates, decorator, defaults, snapshot, logs."""

import asyncio
import contextvars
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

import penstock
from penstock import Penstock, Usage
from penstock.core.events import Completed, Dispatch
from penstock.errors import ConfigError, Refused
from penstock.integrations import default
from penstock.log.reader import read_log
from tests.integrations.http.rig import BODY, CHAT, REPLY, Tape, assert_idle, penstock_with
from tests.virtual_loop import run_virtual


@pytest.fixture(autouse=True)
def fresh_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "_default", None)


async def test_the_gate_takes_the_blocks_wishes_where_the_call_says_nothing() -> None:
    tape = Tape()
    gate = penstock_with(tape=tape).gate()
    with penstock.request(class_="batch", tenant="reports", deadline_s=9.0):
        async with gate.admit(prompt="hello", max_tokens=40, tenant="mine") as slot:
            slot.settle(Usage(10))
    (dispatch,) = tape.of(Dispatch)
    request = dispatch.request
    assert (request.traffic_class, request.tenant) == ("batch", "mine")
    assert request.estimate.p90_tokens == 40
    assert request.expires_at == request.deadline == request.arrived_at + 9.0


def test_a_blocks_tokens_are_the_gates_estimate_unless_the_call_brings_one() -> None:
    tape = Tape()
    gate = penstock_with(tape=tape).sync_gate()
    own = penstock.TokenEstimate(5, 6)
    with penstock.request(tokens=(20, 45)):
        for words in ({}, {"max_tokens": 30}, {"tokens": own}, {"tokens": 7, "max_tokens": 6}):
            with gate.admit(**words) as slot:
                slot.settle(Usage(10))
    assert [d.request.estimate for d in tape.of(Dispatch)] == [
        penstock.TokenEstimate(20, 45, "caller"),
        penstock.TokenEstimate(20, 30, "caller"),
        own,
        penstock.TokenEstimate(6, 6, "caller"),
    ]


def test_tokens_that_are_no_length_are_refused_on_entry() -> None:
    gate = penstock_with().sync_gate()
    with pytest.raises(ValueError, match="tokens=0 is no length of a reply"), gate.admit(tokens=0):
        pytest.fail("it cannot be entered")


def test_the_sync_gate_is_its_twin() -> None:
    tape = Tape()
    gate = penstock_with(tape=tape).sync_gate()
    with gate.admit(class_="batch", max_tokens=40) as slot:
        slot.settle(Usage(10))
    assert tape.of(Completed) == [Completed(1, 10, None, reported=True)]


def test_a_class_said_twice_is_refused() -> None:
    with pytest.raises(TypeError, match="not both"):
        penstock_with().gate().admit(class_="batch", traffic_class="batch")


async def test_the_decorator_schedules_coroutines_and_reads_their_usage() -> None:
    tape = Tape()
    scheduled = penstock_with(window=1, tape=tape)

    @penstock.scheduled(class_="batch", penstock=scheduled)
    async def call(text: str) -> Any:
        await asyncio.sleep(0)
        return SimpleNamespace(text=text, usage=SimpleNamespace(output_tokens=4, input_tokens=2))

    replies = await asyncio.gather(call("a"), call("b"))
    assert [r.text for r in replies] == ["a", "b"]
    assert tape.of(Completed) == [Completed(1, 4, 2), Completed(2, 4, 2)]
    assert {d.request.traffic_class for d in tape.of(Dispatch)} == {"batch"}


def test_the_decorator_schedules_functions_and_leaves_unknown_usage_unknown() -> None:
    tape = Tape()

    @penstock.scheduled(penstock=penstock_with(tape=tape))
    def call() -> str:
        """Say so."""
        return "done"

    assert (call(), call.__name__, call.__doc__) == ("done", "call", "Say so.")
    assert tape.of(Completed) == [Completed(1, None, None, reported=False)]


def test_the_decorator_raises_the_refusal() -> None:
    scheduled = penstock_with()
    scheduled.outlet().gate.drain()

    @penstock.scheduled(penstock=scheduled)
    def call() -> None:
        pytest.fail("it was refused")

    with pytest.raises(Refused, match="draining"):
        call()


def test_the_program_has_one_penstock() -> None:
    made = penstock.configure(default_class="batch")
    assert penstock.default() is made
    assert penstock.gate("x") is made.gate("x")
    assert penstock.sync_gate("x") is made.sync_gate("x")
    assert list(penstock.snapshot()) == ["x"]


def test_a_cell_that_configures_may_be_run_again() -> None:
    penstock.configure(classes=(penstock.TrafficClass("old"),))
    gate = penstock.sync_gate("x")
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, json=REPLY))
    client = penstock.client(transport=transport)
    client.post(CHAT, json=BODY)
    with gate.admit() as slot:
        with pytest.raises(RuntimeError, match="1 calls of this program wait or fly"):
            penstock.configure()
        assert slot.request.traffic_class == "old"

    penstock.configure(classes=(penstock.TrafficClass("new"),))
    client.post(CHAT, json=BODY)
    with gate.admit() as slot:
        assert slot.request.traffic_class == "new"
        assert penstock.snapshot()["x"].in_flight == 1
    assert [*penstock.snapshot()["provider.example"].lanes[0].classes] == ["new"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"default_class": "bulk"}, "traffic class 'bulk' is not configured"),
        ({"predictor": "oracle"}, "predictor='oracle' is not known"),
        ({"queue_limit": 0}, "queue_limit=0: must be a whole number >= 1"),
        ({"max_attempts": 1.5}, "max_attempts=1.5: must be a whole number"),
        ({"retry_share": 2}, "retry_share=2: must be a finite number >= 0 and <= 1"),
        ({"max_pause_s": 0}, "max_pause_s=0: must be a finite number > 0"),
    ],
)
def test_impossible_options_are_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Penstock(**options)


def test_an_argument_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(TypeError, match=r"have no 'tenantturns': .*tenant_turns"):
        penstock.configure(tenantturns=True)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"upstream": {"base_url": "http://x"}}, r"is a dict: .*penstock\.UpstreamSettings\("),
        ({"stack": "aimd"}, r"is a str: .*penstock\.Stack\("),
        ({"classes": ({"name": "chat"},)}, r"is a dict: .*penstock\.TrafficClass\("),
        ({"classes": penstock.TrafficClass("chat")}, r"a tuple of penstock\.TrafficClass\("),
    ],
)
def test_a_table_where_an_object_belongs_is_told_which(wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(TypeError, match=rule):
        penstock.Penstock(**wrong)


def test_a_policys_bare_name_or_a_table_of_limits_is_told_what_belongs_there() -> None:
    with pytest.raises(TypeError, match=r"capacity='aimd' .*penstock\.PolicySpec\("):
        penstock.UpstreamSettings(capacity="aimd")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"limits=\{'requests_per_min': 3\} .*penstock\.Limits\("):
        penstock.UpstreamSettings(limits={"requests_per_min": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize(("turns", "order"), [(True, ["b", "a", "a"]), (False, ["a", "a", "b"])])
async def test_tenants_take_turns_unless_the_program_says_otherwise(
    turns: bool, order: list[str]
) -> None:
    tape = Tape()
    scheduled = penstock_with(window=1, tape=tape, tenant_turns=turns)
    gate = scheduled.gate()

    async def ask(tenant: str) -> None:
        async with gate.admit(tenant=tenant):
            await asyncio.sleep(0)

    async with gate.admit(tenant="a"):
        calls = [
            asyncio.create_task(ask(tenant), context=contextvars.Context())
            for tenant in ("a", "a", "b")
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    sent = [each.request.tenant for each in tape.of(Dispatch)][1:]
    assert sent == order


def test_a_class_may_refuse_what_can_no_longer_be_on_time() -> None:
    strict = penstock.TrafficClass("chat", deadline_s=0.001, hopeless="refuse")
    scheduled = penstock.Penstock(classes=(strict,), tracer=None)
    with pytest.raises(penstock.Refused) as refused:
        scheduled.sync_gate().enter(penstock.RequestSpec())
    assert refused.value.reason == "hopeless"
    assert_idle(scheduled)


def test_limits_by_the_second_the_minute_and_the_day_hold_in_process() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        limits = penstock.Limits(requests_per_s=2, requests_per_day=5)
        scheduled = penstock.Penstock(
            upstream=penstock.UpstreamSettings(limits=limits), clock=loop, tracer=None,
            queue_ttl_s=100_000.0,
        )  # fmt: skip
        sent_at = []
        for _ in range(6):
            async with scheduled.gate().admit(tokens=1):
                sent_at.append(loop.time())
        return sent_at

    sent_at = run_virtual(main())
    assert sent_at[4] >= 2.0
    assert sent_at[4] < 60.0
    assert sent_at[5] >= 86_400.0


def test_limits_of_one_model_hold_in_process() -> None:
    async def main() -> dict[str, list[float]]:
        loop = asyncio.get_running_loop()
        by_model = {"small": penstock.Limits(requests_per_min=1)}
        scheduled = penstock.Penstock(
            upstream=penstock.UpstreamSettings(model_limits=by_model), clock=loop, tracer=None
        )
        sent_at: dict[str, list[float]] = {"small": [], "big": []}

        async def send(model: str) -> None:
            async with scheduled.gate().admit(model=model, tokens=1):
                sent_at[model].append(loop.time())

        await asyncio.gather(*(send(model) for model in ("small", "small", "big", "big")))
        return sent_at

    sent_at = run_virtual(main())
    assert sent_at["small"][1] - sent_at["small"][0] >= 60.0
    assert max(sent_at["big"]) < 1.0


def test_an_unknown_policy_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="magic"):
        Penstock(stack=penstock.Stack(capacity=penstock.PolicySpec("magic")))


def test_each_provider_has_a_decision_log_of_its_own(tmp_path: Path) -> None:
    with Penstock(decision_log=tmp_path / "d.jsonl", tracer=None) as scheduled:
        for name in ("default", "api.example:8080"):
            with scheduled.sync_gate(name).admit() as slot:
                slot.settle(Usage(3))
    one, other = read_log(tmp_path / "d.jsonl"), read_log(tmp_path / "d.api.example_8080.jsonl")
    ids = [{record.id for record in log} - {None} for log in (one, other)]
    assert ids == [{f"{scheduled.factory.run}-1"}, {f"{scheduled.factory.run}-2"}]


def test_the_learned_predictor_takes_over_when_it_knows_enough() -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape, predictor="learned")
    gate = scheduled.sync_gate()
    for _ in range(60):
        with gate.admit(prompt="Name a colour.", model="m", route="colours") as slot:
            slot.settle(Usage(5))
    last = tape.of(Dispatch)[-1].request.estimate
    assert last.source.startswith("predictor")
    assert last.p50_tokens < 100
    assert_idle(scheduled)


def test_logs_are_silent_by_default() -> None:
    handlers = logging.getLogger("penstock").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)


def test_importing_penstock_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import penstock; "
        "print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['penstock']"


def test_every_public_name_can_be_loaded() -> None:
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        penstock.nothing  # noqa: B018
