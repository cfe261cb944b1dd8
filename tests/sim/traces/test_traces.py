"""Recordings become workloads: by their columns, in their time, or with times lent to them."""

import gzip
import json
import math
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.sim.calls import Item
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one
from penstock.sim.traces.registry import read_trace

AZURE = "t,input_tokens,output_tokens\n0.0,4808,10\n1.0,3180,8\n3.0,110,600\n"
MOONCAKE = (
    "t,input_tokens,output_tokens,prefix_hit_tokens,first_block\n"
    "0.0,6758,500,0,17\n0.0,7322,490,512,17\n3.0,100,20,0,99\n"
)
VIDUR = "input_tokens,output_tokens\n3772,54\n2015,156\n100,20\n"
RATES = (
    "client,t,rate,cv,pat,p1,p2\n"
    "0,600,0.2,1.0,Gamma,1.0,5.0\n0,1200,2.0,0.5,Gamma,4.0,0.125\n"
    "7,1200,1.0,1.5,Weibull,0.7,0.8\n7,1800,0,0,,,\n"
)
QUANTILES = (
    "client,window,field,mean,q01,q05,q10,q25,q50,q75,q90,q95,q99,max\n"
    "0,0,input_tokens,50,10,20,30,40,50,60,70,80,90,100\n"
    "0,0,output_tokens,50,100,110,120,130,140,150,160,170,180,190\n"
)


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def items(path: Path, *, seed: int = 1, **more: Any) -> list[Item]:
    asked = {"count": None, "rate_per_s": None, "times": None, **more}
    return list(read_trace(path).items(Random(seed), **asked))


def test_azures_rows_come_at_their_times(tmp_path: Path) -> None:
    found = items(written(tmp_path, AZURE))

    assert [(i.at, i.prompt_tokens, i.output_tokens) for i in found] == [
        (0.0, 4808, 10),
        (1.0, 3180, 8),
        (3.0, 110, 600),
    ]


def test_a_column_that_is_not_read_is_named_and_one_in_quotes_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = '"t","prompt_tokens","output_tokens"\n0.0,4808,10\n7.0,3180,8\n'

    assert [item.at for item in items(written(tmp_path, text))] == [0.0, 7.0]
    assert "trace.csv: these columns are not read: prompt_tokens" in caplog.text


def test_a_gzipped_file_reads_the_same(tmp_path: Path) -> None:
    plain = written(tmp_path, AZURE)
    packed = tmp_path / "trace.csv.gz"
    packed.write_bytes(gzip.compress(AZURE.encode()))

    assert items(packed) == items(plain)


def test_a_wanted_rate_stretches_time(tmp_path: Path) -> None:
    found = items(written(tmp_path, AZURE), rate_per_s=10.0)

    assert [i.at for i in found] == pytest.approx([0.0, 0.1, 0.3])


def test_mooncakes_rounded_times_are_spread_over_their_three_seconds(tmp_path: Path) -> None:
    rows = "".join(f"{3 * (n // 50)}.0,1,1,0,{n}\n" for n in range(1000))
    path = written(tmp_path, MOONCAKE.splitlines()[0] + "\n" + rows)

    times = [i.at for i in items(path)]

    assert times == sorted(times)
    assert times[0] == 0.0
    assert max(b - a for a, b in pairwise(times)) < 1.5
    assert [i.at for i in items(path, seed=2)] != times


def test_mooncakes_first_block_is_the_conversation(tmp_path: Path) -> None:
    found = items(written(tmp_path, MOONCAKE))

    assert sorted(i.session for i in found) == ["17", "17", "99"]


def test_lengths_without_times_take_lent_times_and_start_anywhere(tmp_path: Path) -> None:
    path = written(tmp_path, VIDUR)
    assert not read_trace(path).timed

    found = items(path, count=5, times=iter([0.5, 1.0, 1.5, 2.0, 2.5]))

    assert [i.at for i in found] == [0.5, 1.0, 1.5, 2.0, 2.5]
    lengths = [i.output_tokens for i in found]
    assert lengths[0:2] == lengths[3:5]
    assert set(lengths) == {54, 156, 20}


def test_servegens_clients_send_at_their_own_rates_with_their_own_lengths(tmp_path: Path) -> None:
    written(tmp_path, QUANTILES, "x_length_quantiles.csv")
    found = items(written(tmp_path, RATES, "x_rates.csv"))

    first = [i for i in found if i.at < 600]
    second = [i for i in found if i.at >= 600]
    assert len(first) / 600 == pytest.approx(0.2, abs=4 * math.sqrt(0.2 / 600))
    assert len(second) / 600 == pytest.approx(3.0, rel=0.15)
    assert {i.tenant for i in first} == {"0"}
    assert {i.tenant for i in second} == {"0", "7"}
    assert all(100 <= i.output_tokens <= 190 and 10 <= i.prompt_tokens <= 100 for i in found)
    middle = sorted(i.output_tokens for i in found)[len(found) // 2]
    assert middle == pytest.approx(140, abs=3)


def test_of_servegen_a_few_requests_come_from_its_busiest_time(tmp_path: Path) -> None:
    written(tmp_path, QUANTILES, "x_length_quantiles.csv")

    found = items(written(tmp_path, RATES, "x_rates.csv"), count=300)

    assert len(found) == 300
    assert found[-1].at < 200


def request(id_: int, at: float, p50: float, deadline: float | None) -> dict[str, Any]:
    return {
        "id": id_,
        "traffic_class": "batch" if p50 > 64 else "chat",
        "arrived_at": at,
        "estimate": {"p50_tokens": p50, "p90_tokens": 2 * p50, "source": "table"},
        "deadline": deadline,
        "expires_at": None,
        "tenant": "t1",
        "model": "m",
        "prompt_tokens": 7,
        "session": "s",
    }


def decision_log(*lines: dict[str, Any], run: str = "r", **header_keys: Any) -> str:
    classes = [{"name": "chat", "weight": 3.0, "deadline_s": 2.0}]
    settings = {"classes": classes}
    header = {
        "penstock_decision_log": 1,
        "run": run,
        "started_unix_s": 0,
        "started_at": 0,
        "settings": settings,
        **header_keys,
    }
    return "".join(json.dumps(line) + "\n" for line in (header, *lines))


YESTERDAY = decision_log(
    {"now": 100.0, "event": "arrived", "request": request(1, 100.0, 30, 102.0)},
    {"now": 101.0, "event": "arrived", "request": request(2, 101.0, 500, None)},
    {"now": 101.5, "event": "completed", "request_id": 1, "output_tokens": 44},
)


def test_a_decision_log_is_yesterdays_traffic_from_zero(tmp_path: Path) -> None:
    one, two = items(written(tmp_path, YESTERDAY, "log.jsonl"))

    assert (one.at, one.output_tokens, one.deadline_s) == (0.0, 44, 2.0)
    assert (one.prompt_tokens, one.session, one.tenant) == (7, "s", "t1")
    assert (two.at, two.output_tokens, two.deadline_s) == (1.0, 500, math.inf)


def arrival(id_: int, at: float) -> dict[str, Any]:
    return {"now": at, "event": "arrived", "request": request(id_, at, 30, None)}


def completion(id_: int, at: float, output_tokens: int) -> dict[str, Any]:
    return {"now": at, "event": "completed", "request_id": id_, "output_tokens": output_tokens}


def test_a_logs_runs_come_one_after_the_other_with_the_calendars_gaps(tmp_path: Path) -> None:
    """Given three runs whose clocks and numbers start anew, 4 s and then a night apart."""
    log = (
        decision_log(arrival(1, 100.0), completion(1, 101.0, 9), started_unix_s=0, started_at=100)
        + decision_log(arrival(1, 7.0), run="s", started_unix_s=4, started_at=7)
        + decision_log(run="empty", started_unix_s=5, started_at=7)
        + decision_log(arrival(1, 50.0), run="t", started_unix_s=30_000, started_at=50)
    )

    found = items(written(tmp_path, log, "log.jsonl"))

    assert [(i.at, i.output_tokens) for i in found] == [(0.0, 9), (4.0, 30), (64.0, 30)]


def test_a_first_run_without_requests_does_not_hide_the_next(tmp_path: Path) -> None:
    found = items(written(tmp_path, decision_log(run="empty") + YESTERDAY, "log.jsonl"))

    assert len(found) == 2


def test_a_rotated_log_put_together_again_is_one_run(tmp_path: Path) -> None:
    log = decision_log(arrival(1, 5.0)) + decision_log(completion(1, 6.0, 9), arrival(2, 7.0))

    found = items(written(tmp_path, log, "log.jsonl"))

    assert [(i.at, i.output_tokens) for i in found] == [(0.0, 9), (2.0, 30)]


def test_a_last_line_that_a_crash_cut_is_passed_over_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = items(written(tmp_path, YESTERDAY + '{"now": 103.0, "eve', "log.jsonl"))

    assert len(found) == 2
    assert "log.jsonl: its last line, 5, is cut off and was passed over" in caplog.text


def changed(key: str, value: Any, *, within: str | None = None) -> str:
    """Return a log whose request has another value under a key, or none if that is `...`."""
    asked = request(1, 100.0, 30, None)
    table = asked[within] if within else asked
    table[key] = value
    if value is ...:
        del table[key]
    return decision_log({"now": 100.0, "event": "arrived", "request": asked})


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (changed("estimate", ...), "2: "),
        (decision_log({"event": "arrived"}), "2: "),
        (changed("id", "x"), "2: invalid literal for int()"),
        (changed("arrived_at", "x"), "2: could not convert string to float: 'x'"),
        (changed("arrived_at", None), "request 1: arrived_at and deadline must be finite numbers"),
        (
            changed("p50_tokens", -5, within="estimate"),
            "2: p50=-5.0, p90=60.0 tokens is no estimate",
        ),
        (changed("p90_tokens", 3, within="estimate"), "2: p50=30.0, p90=3.0 tokens is no estimate"),
        (changed("prompt_tokens", None), "2: int() argument must be"),
        (changed("prompt_tokens", -1), "prompt_tokens = -1: must be a whole number from 0 to"),
        (changed("deadline", "soon"), "2: could not convert string to float: 'soon'"),
        (
            decision_log(arrival(1, 0.0), completion(1, 1.0, -4)),
            "output_tokens = -4: must be a whole",
        ),
        (decision_log(settings=5), "1: 5: an object was expected"),
        (decision_log(settings={"classes": 5}), "1: 'int' object is not iterable"),
        (
            decision_log(settings={"classes": [{"name": "a", "weight": 0}]}),
            "1: class 'a': weight=0",
        ),
        (decision_log(started_unix_s="x"), "1: could not convert string to float: 'x'"),
        ("{}{\n" + decision_log(), "1 is no JSON object"),
        (decision_log() + "{oops\n" + decision_log(), "2 is no JSON object"),
    ],
)
def test_a_log_with_impossible_values_is_refused(tmp_path: Path, log: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_trace(written(tmp_path, log, "log.jsonl"))

    assert message in str(refused.value)
    assert "log.jsonl" in str(refused.value)


AZURES_OWN = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:47.1805900,12,7\n"
)
MOONCAKES_OWN = (
    '{"timestamp": 500, "input_length": 6755, "output_length": 500, "hash_ids": [46, 47]}\n'
    '{"timestamp": 2700, "input_length": 7319, "output_length": 490, "hash_ids": [46, 60]}\n'
)


@pytest.mark.parametrize("head", ["", "\ufeff"])
def test_azures_own_file_is_read(tmp_path: Path, head: str) -> None:
    found = items(written(tmp_path, head + AZURES_OWN))

    assert [(i.at, i.prompt_tokens, i.output_tokens) for i in found] == [
        (0.0, 374, 44),
        (0.5, 12, 7),
    ]


def test_mooncakes_own_file_is_read(tmp_path: Path) -> None:
    found = items(written(tmp_path, MOONCAKES_OWN, "trace.jsonl"))

    assert [(i.at, i.prompt_tokens, i.output_tokens, i.session) for i in found] == [
        (0.0, 6755, 500, "46"),
        (pytest.approx(2.2), 7319, 490, "46"),
    ]


def test_mooncakes_own_rounded_times_are_spread_too(tmp_path: Path) -> None:
    rows = "".join(
        f'{{"timestamp": {3000 * (n // 50)}, "input_length": 1, "output_length": 1}}\n'
        for n in range(200)
    )

    times = [i.at for i in items(written(tmp_path, rows, "trace.jsonl"))]

    assert max(b - a for a, b in pairwise(times)) < 1.5


def test_a_byte_order_mark_hides_no_column(tmp_path: Path) -> None:
    assert items(written(tmp_path, "\ufeff" + AZURE)) == items(written(tmp_path, AZURE, "b.csv"))


@pytest.mark.parametrize(
    ("text", "workload", "message"),
    [
        (AZURE, {"requests": 10}, "workload.requests = 10: must be at most 3: the trace has no"),
        (AZURE, {"prompt_tokens": 5}, "the trace has its own lengths"),
        (
            "t,output_tokens\n5,1\n5,2\n",
            {"rate_per_s": 3.0},
            "workload.rate_per_s = 3.0: must not stand beside a trace whose rows all have the time",
        ),
        (YESTERDAY, {"deadline_s": {"short": 3}}, "the decision log has each"),
    ],
)
def test_a_key_that_would_do_nothing_beside_the_trace_is_refused(
    tmp_path: Path, text: str, workload: dict[str, Any], message: str
) -> None:
    table = {"trace": written(tmp_path, text).name, **workload}

    with pytest.raises(ConfigError) as refused:
        read_scenario({"provider": {"model": "slots"}, "workload": table}, folder=tmp_path)

    assert message in str(refused.value)


def test_classes_beside_recorded_ones_are_refused(tmp_path: Path) -> None:
    workload = {"trace": written(tmp_path, YESTERDAY).name, "information": "recorded"}
    classes = {"a": {"buckets": ["short", "medium", "long", "xlong"]}}
    document = {"provider": {"model": "slots"}, "workload": workload, "classes": classes}

    with pytest.raises(ConfigError, match="classes: does nothing: information = 'recorded'"):
        read_scenario(document, folder=tmp_path)


def test_yesterdays_traffic_runs_with_what_was_told_at_the_time(tmp_path: Path) -> None:
    path = written(tmp_path, YESTERDAY, "log.jsonl")
    workload = {"trace": path.name, "information": "recorded"}
    plan = read_scenario({"provider": {"model": "slots"}, "workload": workload}, folder=tmp_path)

    loads = plan.workload.build(1, plan.classes).loads

    assert [(x.request.traffic_class, x.request.estimate.p50_tokens) for x in loads] == [
        ("chat", 30),
        ("batch", 500),
    ]
    assert [c.name for c in plan.workload.informant(plan.classes).classes()] == ["chat", "batch"]
    assert len(run_one(plan, "default", 1).records) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must not be empty"),
        ("a,b\n1,2\n", "must be the header of a CSV with the column output_tokens"),
        ("t,output_tokens\n", "must have at least one row"),
        ("t,output_tokens\n0.0,x\n", "line 2: output_tokens = 'x': must be a finite number >= 0"),
        ("t,output_tokens\n0.0,-1\n", "line 2: output_tokens = '-1': must be a finite"),
        ("t,output_tokens\nnan,1\n", "line 2: t = 'nan': must be a finite number >= 0"),
        ("t,output_tokens\n0.0\n", "line 2: must have a value for each column"),
        (AZURES_OWN + "yesterday,1,1\n", "line 4: TIMESTAMP = 'yesterday': must be a date and a t"),
        (AZURES_OWN.splitlines()[0] + "\n", "must have at least one row"),
        ("t,output_tokens\n0.0,1e300\n", "line 2: output_tokens = '1e300': must be at most 1,000"),
        (MOONCAKES_OWN.replace("500,", "null,", 1), "line 1: timestamp = None: must be a finite"),
        (MOONCAKES_OWN.replace("490", '"x"'), "line 2: output_length = 'x': must be a whole"),
        (RATES, "must be called *_rates.csv[.gz]"),
        ("{oops\n", "1 is no JSON object"),
        ('{"a": 1}\n', "1: the file does not start with a header"),
        (decision_log(), "must have at least one request that arrived"),
        (decision_log() + "[]\n" + decision_log(), "2 is no JSON object"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_line_and_rule(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_trace(written(tmp_path, text))

    assert message in str(refused.value)
    assert "trace.csv" in str(refused.value)


def test_a_broken_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(AZURE.encode())[:20])

    with pytest.raises(ConfigError, match="cannot be read"):
        read_trace(path)


def test_a_timed_trace_wants_no_arrival_process_and_no_mix(tmp_path: Path) -> None:
    written(tmp_path, AZURE)
    for extra in ({"arrivals": "poisson"}, {"mix": {"short": 1.0}}):
        with pytest.raises(ConfigError, match="the trace has its own"):
            read_scenario(
                {
                    "provider": {"model": "slots"},
                    "workload": {"trace": "trace.csv", "rate_per_s": 1.0, **extra},
                },
                folder=tmp_path,
            )


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("azure2023_code.csv.gz", 200),
        ("azure2023_conv.csv.gz", 200),
        ("mooncake_fast25_conversation.csv.gz", 200),
        ("mooncake_fast25_synthetic_POISSON.csv.gz", 200),
        ("servegen_deepseek-r1_rates.csv.gz", 200),
        ("vidur_arxiv_summarization_lengths_only.csv.gz", 200),
    ],
)
def test_the_public_traces_run(public_data: Path | None, name: str, rows: int) -> None:
    if public_data is None:
        pytest.skip(f"no public data: {name} was NOT read (PENSTOCK_DATA, CONTRIBUTING.md)")
    workload = {"trace": f"traces/{name}", "rate_per_s": 3.0, "requests": rows}
    plan = read_scenario({"provider": {"model": "slots"}, "workload": workload}, folder=public_data)

    records = run_one(plan, "default", 1).records

    assert len(records) == rows
    assert all(r.ended_at >= r.arrived_at for r in records)
