"""A graph of stages that is told to stop in every phase and started again: it ends at once, and nothing is lost.

The signals are real, `SIGUSR1` to the process itself in the middle of a function; after it, what samples or judges takes `SLOW_S` a
call, so that a phase that did not poll would take longer than `LIMIT_S`.
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from r1_lightning.run.config.exit_codes import REQUEUE
from r1_lightning.types.stopping import STOP
from tests.run.test_graph_kills import assert_same_graph
from tests.support.commands import overrides, start
from tests.support.kills import LIMIT_S as START_LIMIT_S
from tests.support.stage_graph import command, main, write_configs

LIMIT_S = 10.0  # from the signal to the end of the command
SLOW_S = 2.0
SLOW = (("r1_lightning.rollout.sampler", "Sampler._has_ended"), ("tests.support.miniature", "HashReward.__call__"))
# Phase -> the function in whose call, counted in its own process, the signal comes; in the order in which the graph comes by them.
PHASES: dict[str, tuple[str, str, int]] = {
    "pre-training, in a step": ("r1_lightning.stages.pretrain", "PretrainModule.training_step", 7),
    "periodic evaluation": ("r1_lightning.evaluation.runner", "Evaluator.completions", 2),
    "evaluation after the last step": ("r1_lightning.callbacks.evaluation", "Evaluation.on_train_batch_end", 30),
    "building a model": ("r1_lightning.run.stages.train", "fold_adapters", 1),
    "rollout": ("r1_lightning.rollout.sampler", "Sampler._has_ended", 5),
    "rewards": ("tests.support.miniature", "HashReward.__call__", 5),
    "GRPO, in a step": ("r1_lightning.stages.grpo", "GRPOModule.training_step", 3),
    "final evaluation": ("r1_lightning.run.stages.train", "_evaluate", 1),
    "sampling a data set": ("r1_lightning.rollout.rejection_sampling", "BlockMaker.__call__", 2),
    "fine-tuning, in a step": ("r1_lightning.stages.sft", "SFTModule.training_step", 3),
    "comparison": ("r1_lightning.evaluation.comparison", "Comparison.__call__", 2),
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_configs(tmp_path_factory.mktemp("graph") / "configs")


def graph(configs: Path, root: Path) -> int:
    """One command for the whole graph, in this process; returns its exit code."""
    words = command(configs, root)[4:]
    try:
        return main(configs, [*words, "callbacks.evaluation.every_steps=4", "callbacks.evaluation.problems=4"])
    finally:
        torch.use_deterministic_algorithms(False)


class Struck:
    """Signals this process in one call of a function, and slows down what comes after it; `struck_s` is when."""

    def __init__(self, patch: pytest.MonkeyPatch, module: str, name: str, call: int) -> None:
        self.struck_s, calls = 0.0, itertools.count(1)

        def strike() -> None:
            if next(calls) == call:
                self.struck_s = time.monotonic()
                os.kill(os.getpid(), signal.SIGUSR1)

        for where, what in SLOW:
            _wrap(patch, where, what, lambda: time.sleep(SLOW_S) if STOP.asked else None)
        _wrap(patch, module, name, strike)


def _wrap(patch: pytest.MonkeyPatch, module: str, name: str, first: Callable[[], None]) -> None:
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)

    def wrapped(*given: Any, **named: Any) -> Any:
        first()
        return original(*given, **named)

    patch.setattr(owner, last, wrapped)


@pytest.mark.slow
def test_told_to_stop_in_every_phase_the_graph_ends_the_same(
    configs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    for phase, (module, name, call) in PHASES.items():
        with monkeypatch.context() as patch:
            struck = Struck(patch, module, name, call)
            code = graph(configs, tmp_path / "parts")
        ended_s = time.monotonic() - struck.struck_s
        assert struck.struck_s, f"{phase}: {name} was not called {call} times"
        said = capfd.readouterr().err
        assert code == REQUEUE and "interrupted; the same command resumes" in said, (phase, code, said)
        assert ended_s < LIMIT_S, phase
        record_property(phase, round(ended_s, 2))
    assert graph(configs, tmp_path / "parts") == 0
    assert graph(configs, tmp_path / "whole") == 0
    assert_same_graph(tmp_path / "parts", tmp_path / "whole")


def wait_until_it_listens(pid: int, number: int) -> None:
    """Wait until the process has a handler for signal `number`; before that, the signal would kill it."""
    end_s = time.monotonic() + START_LIMIT_S
    while not handled_signals(pid) >> (number - 1) & 1:
        assert time.monotonic() < end_s
        time.sleep(0.02)


def handled_signals(pid: int) -> int:
    """The signals that a process handles, signal 1 in bit 0: the line `SigCgt` of /proc/PID/status, in hexadecimal."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return int(line.split()[1], 16)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc, which Linux has")
@pytest.mark.parametrize(("number", "after_s"), [(signal.SIGUSR1, 0.0), (signal.SIGTERM, 1.5)])
def test_a_process_that_is_still_importing_ends_at_once(tmp_path: Path, number: int, after_s: float) -> None:
    """A real process: importing torch takes seconds. The signal comes `after_s` seconds after it has begun to listen."""
    process = start(overrides(tmp_path))
    try:
        wait_until_it_listens(process.pid, number)
        time.sleep(after_s)
        struck_s = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=START_LIMIT_S) == REQUEUE
        assert time.monotonic() - struck_s < LIMIT_S
    finally:
        process.kill()
    assert not list(tmp_path.glob("*/artefact.json"))
