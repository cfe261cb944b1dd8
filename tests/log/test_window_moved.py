"""A window that moves says so: in the decision log, which replays exactly, and in words."""

from itertools import pairwise
from pathlib import Path

import pytest

from penstock.core.events import Action, Event, WindowMoved
from penstock.log.explain import explain, explain_window
from penstock.log.reader import read_log, replayed
from penstock.log.writer import DecisionLog
from penstock.sim.scenario import read_scenario, settings_of
from penstock.sim.simulate import run_one

FULL = {
    "seeds": [1],
    "provider": {"model": "slots", "slots": 4},
    "workload": {"requests": 200, "rate_per_s": 6.0},
    "policies": {"it": {}},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the decision log of a run against four places, with more asked for than they serve."""
    scenario = read_scenario(FULL)
    workload = scenario.workload.build(1, scenario.classes)
    settings = settings_of(scenario.policies["it"], workload.classes, scenario.upstreams)
    log = DecisionLog(tmp_path / "log.jsonl", run="r", now=0.0, settings=settings)

    def note(now: float, event: Event, actions: list[Action]) -> None:
        log.event(now, event)
        for action in actions:
            log.action(now, action)

    run_one(scenario, "it", 1, watch=note)
    log.close()
    return log.path


def test_the_log_tells_every_move_and_replays_exactly(path: Path) -> None:
    records = list(read_log(path))
    moves = [each.what for each in records if isinstance(each.what, WindowMoved)]

    assert moves
    assert moves[0].before == 16.0
    for earlier, later in pairwise(moves):
        assert earlier.after == later.before
    assert all(recorded == decided for _, recorded, decided in replayed(records))


def test_explain_puts_every_move_in_words(path: Path) -> None:
    records = list(read_log(path))
    lines = explain_window(records)

    assert len(lines) == sum(isinstance(each.what, WindowMoved) for each in records)
    assert "default: 16 -> " in lines[0]
    assert explain_window(records, "elsewhere") == []


def test_in_a_terminal_lines_break_between_words(path: Path) -> None:
    records = list(read_log(path))
    ids = [each.id for each in records if each.id is not None]

    for id_ in dict.fromkeys(ids[:200:20]):
        whole, narrow = explain(records, id_), explain(records, id_, columns=80)
        assert max(map(len, narrow)) <= 80
        assert " ".join(" ".join(narrow).split()) == " ".join(" ".join(whole).split())
    moves = explain_window(records, columns=80)
    assert max(map(len, moves)) <= 80
    assert " ".join(" ".join(moves).split()) == " ".join(" ".join(explain_window(records)).split())
