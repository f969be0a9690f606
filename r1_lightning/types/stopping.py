"""Stopping on request: signals set a flag, and work asks for it between two pieces (`poll`), where nothing is half done.

Batch systems warn by SIGUSR1 or SIGTERM before they take a machine away; a person presses Ctrl-C. `python` would end at once, in
the middle of whatever it does. `STOP` listens from the first line of a command on, before torch is imported (which takes seconds):

    before it has begun    (`STOP.leave`, until `STOP.begin()`) the handler ends the process: nothing could be lost, and packages
                           that are being imported swallow an exception that comes in their midst, or make another of it
    outside training       the handler itself raises `Stopped`, as Ctrl-C raises KeyboardInterrupt: everything that is written there
                           is written whole or not at all, so any place will do
    in training            (`STOP.between_polls()`) it only sets the flag. Optimizer, weights and counters change together, so
                           work ends at a poll: between decode steps, rewards, minibatches and problems
    first compilation      (`STOP.at_once()`) it raises again: a compiler does not poll, and a forward changes no weight

Several processes must leave together: one that raises alone leaves the others waiting in a collective call. So no handler raises
there, and what polls is work in which a process waits for no other. `together` wraps it: behind it the processes agree, and if one
of them has been stopped, all of them raise.

A second signal leaves at once, with what was saved before. Launchers and batch systems often deliver the same wish twice, so one
within `REPEATED_S` of the first is the same one. Processes that were forked from this one (a loader's workers) answer a signal as
they would without us. Python calls handlers in the main thread only, and only there can they be installed.

No torch here, and no import that takes time.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar

from r1_lightning.types.errors import InvalidInput, Stopped

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C"}
STDERR = 2
# The exit code of a run that a batch system asked to stop: EX_TEMPFAIL of sysexits.h, "the same command will work later".
REQUEUE = 75
REPEATED_S = 1.0
ENDED_POLL_S = 0.05  # how late `ended_within` hears, at most

T = TypeVar("T")


def code_of(number: int) -> int:
    """Return the exit code after the first signal `number`: 130 for Ctrl-C, as a shell reports it, else `REQUEUE`."""
    return 128 + number if number == signal.SIGINT else REQUEUE


class Stop:
    """A flag that signals set; `asked` is why, from the first signal on, and `twice` is True from the second on.

    A process listens with one of them, `STOP`.
    `alone` is False while several processes work together, in which no handler raises. `leave`, if set, ends the process at the
    first signal.
    """

    def __init__(self) -> None:
        self.asked: Stopped | None = None
        self.asked_s, self.twice = 0.0, False
        self.raises = self.alone = True
        self.leave: Callable[[Stopped], NoReturn] | None = None
        self.speaks = True  # False in all processes of a run but the first
        self.owner = os.getpid()
        self.before: dict[int, Any] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Stop:
        """Return this very flag: a process has one, and copies of what polls it must hear the same signal."""
        return self

    def poll(self) -> None:
        """Raise `Stopped` if a signal has come. Call it where nothing is half done."""
        if self.asked is not None:
            raise self.asked

    def together(
        self,
        work: Callable[[], T],
        anywhere: Callable[[bool], bool] = bool,
        collect: Callable[[str], list[str]] | None = None,
    ) -> T:
        """Return what `work`, in which this process calls no other, returns; all processes raise `Stopped` if it did so in one.

        `anywhere` tells all processes whether a value is true in any of them; without it there is one process. With `collect`,
        which returns the texts of all processes, an `InvalidInput` of one is raised in all as well, by its own line.
        """
        result: list[T] = []
        stopped: Stopped | None = None
        refused: InvalidInput | None = None
        try:
            result.append(work())
        except Stopped as error:
            stopped = error
        except InvalidInput as error:
            if collect is None:
                raise
            refused = error
        if anywhere(stopped is not None or refused is not None):
            texts = [] if collect is None else collect("" if refused is None else str(refused))
            if any(texts):
                raise refused or InvalidInput(next(filter(None, texts)))
            raise stopped or self.asked or Stopped("interrupted", REQUEUE)
        return result[0]

    def listen(self) -> None:
        """Install the handlers, for the rest of the process; a signal that comes while Python shuts down is ignored."""
        if self._install():
            atexit.register(self._ignore)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen within the block; the handlers that were there come back after it. Does nothing where `listen` came before."""
        installed = self._install()
        try:
            yield
        finally:
            if installed:
                self._restore()

    def begin(self) -> None:
        """Say that from now on there is something that could be lost: no signal ends the process by `leave`."""
        self.leave = None

    @contextmanager
    def between_polls(self) -> Iterator[None]:
        """Only set the flag within the block, so that work ends where it polls."""
        yield from self._raising(False)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise from the handler within the block, which nothing that is half done may outlive."""
        self.poll()
        yield from self._raising(True)

    def _raising(self, raises: bool) -> Iterator[None]:
        before, self.raises = self.raises, raises
        try:
            yield
        finally:
            self.raises = before

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """Handle signal `number`. Raises `Stopped` at a second one, and at the first where work need not come to a poll."""
        if os.getpid() != self.owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now_s = time.monotonic()
        if self.asked is not None:
            if now_s - self.asked_s >= REPEATED_S:
                self.twice = True
                raise Stopped("interrupted", 128 + number)
            return
        self.asked, self.asked_s = Stopped("interrupted", code_of(number)), now_s
        if self.leave is not None:
            self.leave(self.asked)
        if self.speaks:
            name = NAMES.get(number, signal.Signals(number).name)
            # Not `print`: the signal may have come in the middle of one, whose buffer cannot be entered twice.
            with suppress(OSError):
                os.write(STDERR, f"\n{name}: saving and stopping; once more leaves at once\n".encode())
        if self.raises and self.alone:
            raise self.asked

    def ended_within(self, seconds: float) -> bool:
        """Sleep so long, or until SIGTERM comes; returns True if it came. Says nothing, and other signals change nothing.

        For a process that has failed and waits for whoever started it to end it: it must not answer as one that has saved. The
        handlers stay so to its end.
        """
        ended: list[int] = []

        def hear(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGTERM:
                ended.append(number)

        for number in self.before:
            signal.signal(number, hear)
        until_s = time.monotonic() + seconds
        while not ended and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, ENDED_POLL_S))
        return bool(ended)

    def _install(self) -> bool:
        if self.before or threading.current_thread() is not threading.main_thread():
            return False
        self.asked, self.twice, self.raises, self.owner = None, False, True, os.getpid()
        # What the shell starts in the background has Ctrl-C ignored: that is meant for another process.
        heard = [number for number in SIGNALS if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
        self.before = {number: signal.signal(number, self.hear) for number in heard}
        return True

    def _restore(self) -> None:
        for number, handler in self.before.items():
            if handler is not None:  # None: a handler that was not installed from Python, which cannot be put back
                signal.signal(number, handler)
        self.before = {}
        self.asked, self.twice, self.raises = None, False, True

    def _ignore(self) -> None:
        if os.getpid() == self.owner:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)


STOP = Stop()
