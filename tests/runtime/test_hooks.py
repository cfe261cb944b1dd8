"""Plain functions can watch what the scheduler is told and decides."""

from penstock.calls.factory import RequestFactory
from penstock.core.events import Action, Event
from penstock.core.model import TrafficClass
from penstock.runtime.driver import Driver
from penstock.runtime.gate import Gate
from penstock.runtime.telemetry import Hooks
from tests.runtime.window import Window
from tests.virtual_loop import run_virtual


def test_hooks_are_plain_functions() -> None:
    seen: list[str] = []

    def on_event(now: float, event: Event) -> None:
        seen.append(type(event).__name__)

    def on_action(now: float, action: Action) -> None:
        seen.append(type(action).__name__)

    async def main() -> None:
        driver = Driver(Window(1), observers=[Hooks(on_event, on_action), Hooks()])
        async with Gate(driver, RequestFactory((TrafficClass("all"),), run="run")).admit():
            pass

    run_virtual(main())
    assert seen == ["Arrived", "Dispatch", "Completed"]
