"""Signals set a flag, and work ends at its next poll; the handlers that were there come back."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import pytest

from r1_lightning.types.errors import InvalidInput, Stopped
from r1_lightning.types.stopping import REPEATED_S, REQUEUE, SIGNALS, STOP, Stop

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)]


@pytest.fixture
def stop() -> Iterator[Stop]:
    listener = Stop()
    with listener.listening():
        yield listener


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_ends_work_at_its_next_poll(
    stop: Stop, capfd: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    stop.poll()
    with stop.between_polls():
        os.kill(os.getpid(), number)  # Python calls the handler before the next line
        assert stop.asked is not None
        with pytest.raises(Stopped) as stopped:
            stop.poll()
    assert stopped.value.code == code and str(stopped.value) == "interrupted"
    assert "saving and stopping; once more leaves at once" in capfd.readouterr().err


def test_one_of_several_processes_says_that_a_signal_came(stop: Stop, capfd: pytest.CaptureFixture[str]) -> None:
    stop.speaks = False
    with stop.between_polls():
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.asked is not None and capfd.readouterr().err == ""


@pytest.mark.parametrize(("number", "code"), CODES)
def test_outside_training_the_handler_raises_itself(stop: Stop, number: int, code: int) -> None:
    with pytest.raises(Stopped) as stopped:
        os.kill(os.getpid(), number)
    assert stopped.value.code == code
    with pytest.raises(Stopped):  # whoever swallowed it meets it again
        stop.poll()


def test_while_nothing_has_begun_the_handler_leaves(stop: Stop) -> None:
    """A stand-in for `os._exit`, so it raises what no package would know."""

    def leave(stopped: Stopped) -> NoReturn:
        raise SystemExit(stopped.code)

    stop.leave = leave
    with pytest.raises(SystemExit) as left:
        os.kill(os.getpid(), signal.SIGTERM)
    assert left.value.code == REQUEUE


def test_once_it_has_begun_the_handler_raises_as_ever(stop: Stop) -> None:
    stop.leave = lambda stopped: pytest.fail("it left")
    stop.begin()
    with pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_compiler_is_left_at_once(stop: Stop) -> None:
    with stop.between_polls():
        with pytest.raises(Stopped), stop.at_once():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert not stop.raises, "as it was before the block"
        with pytest.raises(Stopped), stop.at_once():
            pytest.fail("what has been asked before is met at the door")


def test_no_handler_raises_while_processes_work_together(stop: Stop) -> None:
    stop.alone = False
    with stop.at_once():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.asked is not None


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_leaves_at_once_unless_it_is_the_first_once_more(number: int) -> None:
    stop = Stop()
    with stop.listening(), stop.between_polls():
        for _ in range(3):
            os.kill(os.getpid(), number)
        stop.asked_s -= REPEATED_S  # that long ago
        with pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), number)
        assert stop.twice
    assert stopped.value.code == 128 + number and not stop.twice and stop.asked is None


def test_handlers_come_back_and_the_flag_is_new() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    listener = Stop()
    for _ in range(2):
        with listener.listening(), listener.between_polls():
            assert listener.asked is None
            os.kill(os.getpid(), signal.SIGTERM)
            with listener.listening():  # an inner one changes nothing
                assert listener.asked is not None
        assert [signal.getsignal(number) for number in SIGNALS] == before


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop().listening():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_forked_process_answers_as_any_other(stop: Stop) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"!")
        time.sleep(20)
        os._exit(0)
    os.read(reading, 1)  # Python forgets a signal that comes while it forks
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
    assert stop.asked is None


def test_what_one_process_refuses_is_raised_in_all(stop: Stop) -> None:
    def refuses() -> int:
        raise InvalidInput("no verdict")

    told: list[str] = []
    with pytest.raises(InvalidInput, match="no verdict"):  # the one that refuses, and tells the others
        stop.together(refuses, lambda here: here, lambda text: [told.append(text) or text, ""])
    with pytest.raises(InvalidInput, match="no verdict"):  # another one, whose own work is done
        stop.together(lambda: 7, lambda here: True, lambda text: [told.append(text) or text, "no verdict"])
    assert told == ["no verdict", ""]
    with pytest.raises(Stopped):  # nobody refused: one was stopped
        stop.together(lambda: 7, lambda here: True, lambda text: [text, ""])
    with pytest.raises(InvalidInput):
        stop.together(refuses, lambda here: pytest.fail("without `collect` it is this one's alone"))


def test_processes_leave_together(stop: Stop) -> None:
    def work() -> int:
        stop.poll()
        return 7

    assert stop.together(work) == stop.together(work, lambda here: here) == 7
    with pytest.raises(Stopped) as stopped:  # this process has heard nothing, another has
        stop.together(work, lambda here: True)
    assert stopped.value.code == REQUEUE
    told = []
    with stop.between_polls():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped) as stopped:
            stop.together(work, lambda here: bool(told.append(here)) or here)
    assert told == [True] and stopped.value.code == 130


def test_copies_hear_the_same_signal() -> None:
    assert copy.deepcopy({"a": STOP})["a"] is STOP


def test_a_signal_while_python_shuts_down_is_ignored_and_torch_is_not_needed() -> None:
    code = (
        "import atexit, os, signal, sys\n"
        "from r1_lightning.types.stopping import STOP\n"
        "class Late:\n"
        "    kill, given = os.kill, (os.getpid(), signal.SIGTERM)\n"
        "    def __del__(self): self.kill(*self.given)\n"  # among the last things that Python does
        "sys.late = Late()\n"
        "STOP.listen()\n"
        "assert 'torch' not in sys.modules\n"
    )
    for more, expected in (("", 0), ("atexit.unregister(STOP._ignore)", -signal.SIGTERM)):
        done = subprocess.run([sys.executable, "-c", code + more], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (expected, "")


def test_one_that_has_failed_waits_without_a_word_to_be_ended(stop: Stop, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGTERM ends the wait and not the process; the other signals change nothing."""
    waiter = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    waiter.start()
    begun_s = time.monotonic()
    assert stop.ended_within(30.0) and time.monotonic() - begun_s < 10
    waiter.join()
    waiter = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    waiter.start()
    begun_s = time.monotonic()
    assert not stop.ended_within(0.3) and time.monotonic() - begun_s >= 0.3
    waiter.join()
    assert stop.asked is None and capfd.readouterr().err == ""
