"""Which upstreams may get a model, and how many names the scheduler is told."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.settings import fits
from penstock.proxy.routing import MOST_NAMES, Routing, patterns, serves


def test_a_star_is_any_text_and_everything_else_is_itself() -> None:
    assert fits("gpt-*", "gpt-5.2-mini")
    assert fits("*", "")
    assert fits("ft:*:[team]", "ft:gpt:[team]")
    assert not fits("gpt-4?", "gpt-4o")
    assert not fits("gpt-5", "gpt-5.2")
    assert not fits("gpt.5", "gptx5")


@given(parts=st.lists(st.text(max_size=4), min_size=1, max_size=4), fill=st.text(max_size=4))
def test_a_pattern_fits_what_it_was_made_from(parts: list[str], fill: str) -> None:
    stars_in_text = "".join(parts).replace("*", "+")
    clean = [part.replace("*", "+") for part in parts]
    assert fits("*".join(clean), fill.join(clean))
    assert fits(stars_in_text, stars_in_text)


def test_a_dialect_never_gets_the_others_models() -> None:
    routing = Routing([(patterns("openai", ["*"]), False), (patterns("anthropic", ["c*"]), True)])

    found = routing.resolve("openai", "claude")
    assert found is not None
    assert (found.name, found.needs_caller_key) == ("openai/claude", False)
    other = routing.resolve("anthropic", "claude")
    assert other is not None
    assert (other.name, other.needs_caller_key) == ("anthropic/claude", True)
    assert routing.resolve("anthropic", "gpt") is None


def test_callers_cannot_make_the_scheduler_learn_names_without_bound() -> None:
    served = [patterns("openai", ["gpt-*"]), patterns("openai", ["*"])]
    routing = Routing([(each, False) for each in served])

    found = [routing.resolve("openai", f"gpt-{n}") for n in range(3 * MOST_NAMES)]

    names = {target.name for target in found if target is not None}
    assert len(names) <= MOST_NAMES + 1
    limited = Routing([(each, False) for each in served], limited=["openai/gpt-1499"])
    last = [limited.resolve("openai", f"gpt-{n}") for n in range(3 * MOST_NAMES)][-1]
    assert last is not None
    assert last.name == "openai/gpt-1499"  # its limits are found by it
    for name in names:  # and every one of them may go where it may go
        assert all(serves(each, name) for each in served)
