"""A provider model on an event loop that may be late."""

from penstock.sim.mock.serving import LiveJob, LiveProvider
from penstock.sim.providers.registry import build_provider
from tests.virtual_loop import run_virtual


class Busy(LiveProvider):
    """A live provider on a loop that has been held up for `late_s` seconds."""

    late_s = 0.0

    def now(self) -> float:
        return super().now() + self.late_s


def test_a_reply_that_ended_while_the_loop_was_busy_is_whole() -> None:
    async def story() -> int:
        table = {"model": "slots", "slots": 1, "tokens_per_s": 10.0, "ttft_s": 0.0}
        live = Busy(build_provider(table, seed=1), tick_s=0.02)
        ticket = live.submit(output_tokens=9, prompt_tokens=1, stream=True)
        assert isinstance(ticket, LiveJob)

        live.late_s = 5.0  # no timer has fired: looking is what brings the end

        done = ticket.tokens_done()
        assert ticket.end is not None
        live.release(ticket)
        return done

    assert run_virtual(story()) == 9
