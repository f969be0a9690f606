"""What rank 0 finds or is refused, every process hears, however long rank 0 has to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from r1_lightning.run.build import agreeing
from r1_lightning.run.build.agreeing import by_main
from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.processes import ONE, Processes
from tests.support.processes import in_processes


def _found(processes: Processes) -> Any:
    return by_main(processes, lambda _: (f"found by {processes.rank}", True))


def test_one_process_asks_nobody() -> None:
    assert _found(ONE) == ("found by 0", True)
    with pytest.raises(InvalidInput, match="full"):
        by_main(ONE, _refused)


def _refused(_: Callable[[], None]) -> None:
    raise InvalidInput("the disk is full")


def _job(processes: Processes) -> list[Any]:
    """A value, a refusal, and a value after a wait with several words in between."""
    heard: list[Any] = [_found(processes)]
    try:
        by_main(processes, _refused)
    except InvalidInput as error:
        heard.append(str(error))
    agreeing.ALIVE_S = 0.02

    def wait(alive: Callable[[], None]) -> str:
        for _ in range(5):
            time.sleep(0.03)
            alive()
        return "late"

    return [*heard, by_main(processes, wait)]


def _stopped(processes: Processes) -> tuple[str, int, int | None]:
    def wait(_: Callable[[], None]) -> None:
        raise Stopped("interrupted", 130, 4)

    try:
        by_main(processes, wait)
    except Stopped as stopped:
        return stopped.reason, stopped.code, stopped.step
    return "nothing", 0, None


def test_all_stop_when_rank_0_is_told_to() -> None:
    assert in_processes(2, _stopped) == [("interrupted", 130, 4)] * 2


def test_all_hear_what_rank_0_found_or_was_refused() -> None:
    assert in_processes(2, _job) == [[("found by 0", True), "the disk is full", "late"]] * 2
