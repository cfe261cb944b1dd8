"""A limit that nobody states is found from what passes, and what is no limit is left alone."""

import math
import pickle
import random
from itertools import pairwise

import pytest

from penstock.core.upstream.rate import Blame, LearntRate, RateRefusal


def _told(wait_s: float = 0.0, *, lone: bool = False, again: int = 0) -> RateRefusal:
    return RateRefusal(wait_s, wait_s, lone, again)


class Bucket:
    """A provider's bucket of `full` requests at `per_s`, and a sender that always has another."""

    def __init__(self, per_s: float, full: float) -> None:
        self.per_s, self.full, self.level, self.at = per_s, full, full, 0.0
        self.pace = LearntRate()
        self.sent = self.refused = 0
        self.blamed: list[Blame] = []
        self.now = 0.0

    def _let_pass(self) -> float:
        """Return how long one more has to wait, 0 if it passes."""
        self.level = min(self.full, self.level + (self.now - self.at) * self.per_s)
        self.at = self.now
        if self.level < 1.0 - 1e-9:
            return (1.0 - self.level) / self.per_s
        self.level -= 1.0
        return 0.0

    def run(self, until: float, *, demand_per_s: float, says: bool = True) -> None:
        while self.now < until:
            open_at = self.pace.open_at(1.0, now=self.now)
            if open_at > self.now:
                self.now = open_at
                continue
            self.sent += 1
            sent = self.pace.sent(1.0, 1.0, now=self.now)
            wait_s = self._let_pass()
            if wait_s > 0.0:
                self.refused += 1
                told_s = wait_s if says else 0.0
                self.blamed.append(self.pace.refused(sent, _told(told_s), now=self.now))
                self.now += max(wait_s, 0.2)
            else:
                self.now += 1.0 / demand_per_s


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize(("per_s", "full"), [(1.0, 5.0), (10.0, 10.0), (50.0, 50.0), (10.0, 300.0)])
def test_the_pace_ends_just_below_a_hidden_limit(per_s: float, full: float, says: bool) -> None:
    provider = Bucket(per_s, full)
    provider.run(120.0, demand_per_s=2.0 * per_s, says=says)
    sent, refused = provider.sent, provider.refused

    provider.run(480.0, demand_per_s=2.0 * per_s, says=says)
    passed = provider.sent - sent - (provider.refused - refused)
    assert passed >= 0.95 * per_s * 360.0
    assert provider.refused <= 0.1 * provider.sent


def test_a_limit_that_rises_is_found_again() -> None:
    provider = Bucket(10.0, 10.0)
    provider.run(60.0, demand_per_s=50.0)
    provider.per_s = 20.0
    provider.run(180.0, demand_per_s=50.0)

    assert 17.0 < provider.pace.per_s < 23.0


def test_a_limit_that_falls_costs_a_few_refusals() -> None:
    provider = Bucket(40.0, 40.0)
    provider.run(60.0, demand_per_s=80.0)
    refused = provider.refused
    provider.per_s = provider.full = 10.0
    provider.run(70.0, demand_per_s=80.0)

    assert provider.pace.per_s < 11.5
    assert provider.refused - refused < 12


@pytest.mark.parametrize("says", [True, False])
@pytest.mark.parametrize("demand_per_s", [8.0, 20.0, 60.0])
def test_a_limit_that_falls_by_more_than_half_is_not_taken_for_chance(
    demand_per_s: float, says: bool
) -> None:
    provider = Bucket(10.0, 10.0)
    for per_s in (10.0, 4.0, 10.0, 4.0):
        provider.per_s = provider.full = per_s
        refused = provider.refused
        provider.run(provider.now + 60.0, demand_per_s=demand_per_s, says=says)

        assert not provider.pace.evidence.refuted
        assert provider.refused - refused <= 25


def test_what_was_refused_has_taken_nothing_of_the_pace() -> None:
    provider = Bucket(1.0, 1.0)
    provider.run(240.0, demand_per_s=2.0)
    sent, refused, at = provider.sent, provider.refused, provider.now
    provider.run(at + 240.0, demand_per_s=2.0)

    passed = provider.sent - sent - (provider.refused - refused)
    assert passed >= 0.95 * 240.0


def test_where_nothing_passes_there_is_no_pace_to_learn() -> None:
    pace = LearntRate()
    for now in (10.0, 15.0, 20.0):
        sent = pace.sent(1.0, 1.0, now=now)
        assert pace.refused(sent, _told(5.0), now=now) is Blame.UPSTREAM


def test_what_turns_out_not_to_have_passed_proves_nothing() -> None:
    pace = LearntRate()
    sends = [pace.sent(1.0, 1.0, now=0.1 * number) for number in range(12)]
    for first_and_last in (sends[0], sends[-1]):
        pace.refused(first_and_last, _told(lone=True), now=2.0)
    assert pace.evidence.proven_per_s > 0.0

    for late in sends[1:-1]:
        pace.refused(late, _told(lone=True), now=2.1)

    assert pace.evidence.proven_per_s == 0.0


def test_what_the_same_request_meets_again_lowers_no_pace_while_few_pass() -> None:
    ends: dict[bool, float] = {}
    for again in (False, True):
        pace, now = LearntRate(), 0.0
        pace.refused(pace.sent(1.0, 1.0, now=now), _told(), now=now)
        for _ in range(4):
            pace.sent(1.0, 1.0, now=now + 0.4)
            now += 0.8
            sent = pace.sent(1.0, 1.0, now=now)
            pace.refused(sent, _told(again=int(again)), now=now)
        ends[again] = pace.per_s

    assert ends[False] < 2.0 <= ends[True]


def test_what_is_refused_a_fourth_time_while_others_pass_lowers_no_pace_however_many_pass() -> None:
    ends: dict[int, float] = {}
    for again in (3, 4):
        pace, now = LearntRate(), 0.0
        pace.refused(pace.sent(1.0, 1.0, now=now), _told(), now=now)
        for _ in range(12):
            for _ in range(12):
                now += 1.0
                pace.sent(1.0, 1.0, now=now)
            pace.refused(pace.sent(1.0, 1.0, now=now), _told(again=again), now=now)
        ends[again] = pace.per_s

    assert ends[3] < 2.0 <= ends[4]


def test_a_storm_of_refusals_takes_no_more_and_more_memory() -> None:
    pace, sizes = LearntRate(), []
    for count in (200, 2000):
        for _ in range(count):
            now = 10.0 + 0.01 * count
            pace.refused(pace.sent(1.0, 1.0, now=now), _told(), now=now)
        sizes.append(len(pickle.dumps(pace)))

    assert sizes[1] < 1.1 * sizes[0]


def test_after_a_first_refusal_sends_go_one_by_one_and_ever_faster() -> None:
    pace, now = LearntRate(), 1.0
    sends: list[float] = []
    pace.refused(pace.sent(1.0, 1.0, now=now), _told(1.0), now=now)
    while len(sends) < 40:
        open_at = pace.open_at(1.0, now=now)
        if open_at > now:
            now = open_at
            continue
        pace.sent(1.0, 1.0, now=now)
        sends.append(now)

    gaps = [later - sooner for sooner, later in pairwise(sends)]
    assert sends[0] == 2.0
    assert gaps == sorted(gaps, reverse=True)
    assert sends[-1] < 7.0


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2, 0.5])
def test_refusals_that_do_not_depend_on_the_pace_are_found_out(share: float, seed: int) -> None:
    dice, pace, now, sent, refused = random.Random(seed), LearntRate(), 0.0, 0, 0
    while not pace.evidence.refuted and now < 600.0:
        open_at = pace.open_at(1.0, now=now)
        if open_at > now:
            now = open_at
            continue
        it = pace.sent(1.0, 1.0, now=now)
        sent += 1
        if dice.random() < share:
            refused += 1
            pace.refused(it, _told(), now=now)
        now += 0.1

    assert pace.evidence.refuted
    assert refused <= 40


@pytest.mark.parametrize("full", [1.0, 10.0, 300.0])
def test_a_true_limit_is_not_refuted_by_its_own_refusals(full: float) -> None:
    provider = Bucket(10.0, full)
    provider.run(900.0, demand_per_s=25.0)

    assert not provider.pace.evidence.refuted
    assert Blame.REQUEST not in provider.blamed


def test_a_pace_that_nobody_waits_for_does_not_move() -> None:
    provider = Bucket(10.0, 10.0)
    provider.run(60.0, demand_per_s=20.0)
    learnt = provider.pace.per_s
    provider.run(300.0, demand_per_s=2.0)

    assert provider.pace.per_s == learnt < math.inf


def test_nobody_is_held_for_longer_than_the_longest_gap_however_dear() -> None:
    pace = LearntRate()
    for now in (0.0, 0.5):  # one has passed in between: a pace is begun
        sent = pace.sent(1.0, 1.0, now=now)
        pace.sent(1.0, 1.0, now=now + 0.1)
        pace.refused(sent, _told(), now=now)

    assert pace.per_s < math.inf
    assert 25.0 <= pace.open_at(1e8, now=1.0) <= 1.0 + 30.0


def test_a_ramp_that_meets_no_refusal_ends_in_no_pace_at_all() -> None:
    pace = LearntRate()
    pace.refused(pace.sent(1.0, 1.0, now=0.0), _told(), now=0.0)
    for tick in range(1, 401):
        pace.sent(1.0, 1.0, now=0.05 * tick)

    assert pace.per_s == math.inf


def test_a_ramp_goes_on_by_what_is_sent_and_not_by_an_idle_hour() -> None:
    pace = LearntRate()
    pace.refused(pace.sent(1000.0, 1.0, now=0.0), _told(), now=0.0)
    begun = pace.per_s
    pace.sent(1000.0, 1.0, now=3600.0)

    assert begun < pace.per_s <= 2.0 * begun


@pytest.mark.parametrize(("per_s", "calm_s"), [(10.0, 30.0), (0.2, 150.0)])
def test_what_was_proven_is_forgotten_with_the_episode(per_s: float, calm_s: float) -> None:
    """An episode is over after 30 s, and after 30 sends at the pace, without a refusal."""
    for share, forgotten in ((0.8, False), (1.3, True)):
        provider = Bucket(per_s, 5.0)
        provider.run(300.0 / per_s, demand_per_s=3.0 * per_s)
        pace, now = provider.pace, provider.now
        pace.refused(pace.sent(1.0, 1.0, now=now), _told(), now=now)
        assert pace.evidence.proven_per_s > 0.0
        now += share * calm_s
        pace.refused(pace.sent(1.0, 1.0, now=now), _told(), now=now)

        assert (pace.evidence.proven_per_s == 0.0) is forgotten


def test_few_that_passed_lower_the_pace_by_a_quarter_at_most() -> None:
    pace, now = LearntRate(), 0.0
    pace.refused(pace.sent(1.0, 1.0, now=now), _told(), now=now)
    learnt: list[float] = []
    for _ in range(6):
        pace.sent(1.0, 1.0, now=now + 0.4)
        now += 0.8
        sent = pace.sent(1.0, 1.0, now=now)
        before = pace.per_s
        pace.refused(sent, _told(), now=now)
        learnt.append(pace.per_s / before)

    assert 0.7 <= min(learnt) <= 0.8


def test_a_pace_that_is_waited_for_grows_by_half_at_a_time_at_most() -> None:
    provider = Bucket(10.0, 10.0)
    provider.run(60.0, demand_per_s=50.0)
    provider.per_s = provider.full = 1e6
    paces = [provider.pace.per_s]
    while paces[-1] < 200.0:
        provider.run(provider.now + 0.5, demand_per_s=1000.0)
        paces.append(provider.pace.per_s)

    assert max(later / sooner for sooner, later in pairwise(paces)) == pytest.approx(1.5)


def test_the_wait_of_a_refusal_that_is_no_longer_kept_is_not_counted() -> None:
    """Nothing passed since but 64 more refusals: what passes then is measured from those kept."""
    paces = set()
    for wait_s in (0.0, 8.0):
        provider = Bucket(10.0, 10.0)
        provider.run(60.0, demand_per_s=20.0)
        pace, now = provider.pace, provider.now + 40.0  # the next refusal begins a new episode
        for number in range(65):
            sent = pace.sent(1.0, 1.0, now=now)
            pace.refused(sent, _told(10.0 if number else wait_s), now=now)
            now += 0.001
        now += 9.95  # nobody asks, so the pace makes no step
        for _ in range(12):
            sent = pace.sent(1.0, 1.0, now=now)
            now += 0.11
        pace.refused(sent, _told(1.0), now=now)
        paces.add(round(pace.per_s, 9))

    assert len(paces) == 1
