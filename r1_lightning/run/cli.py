"""The command line: one line and exit code 2 for errors that the user can fix, a traceback for our own defects.

`main` wraps `hydra.main`, so that --help, --cfg job and -m keep working. Hydra prints its own errors over several lines
and exits with 1, unless HYDRA_FULL_ERROR is set: then it lets them through. So `main` sets it inside this process, and remembers
whether the user had set it (then they see the traceback before the line).

Help, typos and wrong types are answered before torch or Lightning is imported, which takes seconds: the top of this file imports
only Hydra, and the code that runs a stage is imported once a configuration is composed and `declared` has found no error.

A run of several processes (`config.place`) is started here, if nobody else has, and speaks with one voice (`config.speaking`).
Exit codes: `exit_codes`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig

from r1_lightning.run.checks.declared import check_declared
from r1_lightning.run.checks.processes import check_processes
from r1_lightning.run.config import machine, starting
from r1_lightning.run.config.compose import HYDRA_VERSION_BASE, composing, config_folder, from_hydra
from r1_lightning.run.config.exit_codes import BAD_INPUT, DEFECT, INTERRUPTED, LOST, bad_input_in, note
from r1_lightning.run.config.hydra_errors import explain
from r1_lightning.run.config.openmp import bound_spinning
from r1_lightning.run.config.place import ALONE, Place, asks_for_several, place_of, timeout_s, wanted
from r1_lightning.run.config.quoting import readable
from r1_lightning.run.config.speaking import LATER_S, LOST_LATER_S, Lost, is_another, speaking
from r1_lightning.run.config.targets import find_own_modules
from r1_lightning.types.errors import Stopped, require
from r1_lightning.types.stopping import STOP

if TYPE_CHECKING:
    from r1_lightning.run.config.stage_config import StageConfig
    from r1_lightning.run.graph.build import RunStage

FULL_ERROR = "HYDRA_FULL_ERROR"


def main(run_stage: RunStage | None = None, configs: Path | None = None, config_name: str = "train") -> int:
    """Run the stage that `sys.argv` asks for, by default with `stages.kinds.run_stage`; returns the exit code."""
    if refused := machine.set_up():
        return refused
    bound_spinning()  # before torch is imported
    starting.end_with_starter()
    find_own_modules()
    progress, folder = _Progress(tuple(sys.argv[1:]), dict(os.environ)), (configs or config_folder()).absolute()
    sys.argv[1:] = readable(sys.argv[1:])

    def task(config: DictConfig) -> None:
        progress.composed = True
        try:
            _run(config, run_stage, progress)
        except Exception as error:  # kept here, because Hydra would print its own lines about it
            progress.error = error
            raise _Ended from error

    hydra_main = hydra.main(version_base=HYDRA_VERSION_BASE, config_path=str(folder), config_name=config_name)

    def start() -> None:
        try:
            hydra_main(task)()
        except _Ended:
            assert progress.error is not None
            raise progress.error from progress.error.__cause__

    with _full_errors() as wants_all, STOP.listening():
        return _report(start, progress, folder, config_name, wants_all)


def sample() -> int:
    """Run `main` for the stage `sample`, unless the command line names another; returns the exit code."""
    if not any(argument.startswith("stage=") for argument in sys.argv[1:]):
        sys.argv.insert(1, "stage=sample")
    return main()


class _Ended(BaseException):
    """Passes through Hydra, which would launch the next job of a sweep (-m) after an `Exception`."""


@dataclass
class _Progress:
    """Progress of the command: before `composed`, an error is about the command line or a configuration file."""

    typed: tuple[str, ...]
    environment: Mapping[str, str]
    composed: bool = False
    place: Place = ALONE
    fresh: bool = False
    error: Exception | None = None


def _run(config: DictConfig, run_stage: RunStage | None, progress: _Progress) -> None:
    stage = from_hydra(config)
    check_declared(config)
    trainer = config.get("trainer") or {}
    place = progress.place = place_of(trainer)
    if place.count == 1 and asks_for_several(trainer) and not config.get("dry_run"):
        check_processes(config)  # before every process would say it
        _start(trainer, progress)
    STOP.speaks = place.is_main
    with speaking(place):
        _run_here(config, stage, place, run_stage, progress)


def _start(trainer: Mapping[str, Any], progress: _Progress) -> None:
    """Start the processes that `trainer` asks for, wait for them, and leave with their exit code; return if one is enough."""
    nodes, count = trainer.get("num_nodes", 1), wanted(trainer)
    allowed = "srun or torchrun starts the processes of several machines; nobody has started others beside this one"
    require(nodes == 1, "trainer.num_nodes", nodes, allowed)
    if count > 1:
        STOP.begin()  # what is started must be ended
        allowed = "a sweep (-m) runs its jobs in this process; start one command per job"
        require(HydraConfig.get().mode == RunMode.RUN, "trainer.devices", count, allowed)
        raise SystemExit(starting.start(count, progress.typed, progress.environment, timeout_s(trainer)))


def _run_here(
    config: DictConfig, stage: StageConfig, place: Place, run_stage: RunStage | None, progress: _Progress
) -> None:
    print(f"{stage.name}: planning (seed {config.get('seed')})", end="", flush=True)  # at once: torch takes seconds
    from r1_lightning.run.build import device, meeting
    from r1_lightning.run.checks.validate import validate

    asked, stage = stage, device.settled(stage)
    config = stage.config
    _say(f" {device.decision(asked, stage)}")
    if config.get("init_from") is None:  # else the folder decides the model, and with it how long rows may be
        validate(config)  # what needs no Lightning first: `plan` validates every stage of the graph
    from r1_lightning.run.graph.build import build
    from r1_lightning.run.graph.last_words import ending
    from r1_lightning.run.graph.node import part_of
    from r1_lightning.run.graph.plan import plan

    node = part_of(plan(stage), config.get("only"))
    if config.get("dry_run"):
        from r1_lightning.run.cost.dry_run import dry_run

        dry_run(node, _say, fresh=bool(config.fresh))
        return
    device.check_accelerator(config)
    run_stage = run_stage or _run_stage()
    progress.fresh = bool(config.fresh)
    STOP.begin()
    with meeting.met(place, config) as processes:
        meeting.compare(processes, config, node.fingerprint)
        made = build(node, run_stage, fresh=progress.fresh, say=_say)
        if made.complete and (words := ending(made)):
            _say(f"\n{words}")


def _run_stage() -> RunStage:
    from r1_lightning.run.stages.kinds import run_stage

    return run_stage


def _say(line: str) -> None:
    print(line, flush=True)


def _report(start: Callable[[], None], progress: _Progress, configs: Path, config_name: str, wanted: bool) -> int:
    try:
        start()
        return 0
    except Stopped as stopped:
        return _interrupted(progress, stopped.code, stopped)
    except KeyboardInterrupt:
        return _interrupted(progress)
    except SystemExit as leaving:  # argparse, --help, and Lightning's own answer to Ctrl-C
        if any(isinstance(error, KeyboardInterrupt) for error in _chain(leaving)):
            return _interrupted(progress)
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        note(code)
        return code
    except Exception as error:
        if STOP.asked is not None and not progress.composed:  # Hydra makes an error of its own of what ends its parser
            return _interrupted(progress, STOP.asked.code, STOP.asked)
        line = _line(error, progress, configs, config_name)
        code = DEFECT if line is None else LOST if isinstance(error, Lost) else BAD_INPUT
        if _is_ended_first(error, code, progress.place):
            return code
        if line is None:
            raise
        if wanted:
            traceback.print_exception(error)
        print(f"error: {line}", file=sys.stderr, flush=True)
        return code
    finally:
        GlobalHydra.instance().clear()


def _is_ended_first(error: Exception, code: int, place: Place) -> bool:
    """Note the code, and leave the word to the process in which the error happened first; True if that has ended this one."""
    if isinstance(error, Lost):  # a consequence: the code of the one that was lost comes first
        ended = STOP.ended_within(LOST_LATER_S)
        if not ended:
            note(code)
        return ended
    note(code)
    return is_another(place) and STOP.ended_within(LATER_S)


def _line(error: Exception, progress: _Progress, configs: Path, config_name: str) -> str | None:
    """Return the line for an error that the user can fix; None for a defect of ours."""
    line = bad_input_in(error)
    if line is not None:
        return line
    if isinstance(error, Lost):
        return str(error)
    if isinstance(error, InstantiationException) and "target 'r1_lightning." not in str(error):
        return " ".join(str(error).split())  # a library refuses its arguments (an unknown accelerator)
    if progress.composed:
        return None
    if isinstance(error, OSError) and error.filename:  # the folder of a sweep (-m)
        return f"the output folder {error.filename} cannot be written: {error.strerror}"
    overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    with composing(configs):  # hydra.main has cleared up already
        return explain(error, overrides, config_name)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes: the error it was raised from, or the one being handled when it was raised."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _interrupted(progress: _Progress, code: int = INTERRUPTED, stopped: Stopped | None = None) -> int:
    """Print the last line of an interrupted command: what is saved and how to resume; returns the exit code."""
    reason, step = ("interrupted", None) if stopped is None else (stopped.reason, stopped.step)
    note(code)
    again = "its folder keeps what was done" if progress.fresh else "the same command resumes"
    if is_another(progress.place):
        return code
    if step is not None and not progress.fresh:
        again = f"{again}, step {step} is saved" if step else f"{again}, from its start: no step is saved"
    print(f"{reason}; {again}", file=sys.stderr, flush=True)
    return code


@contextmanager
def _full_errors() -> Iterator[bool]:
    """Make Hydra let errors through; yields True if the user asked for tracebacks."""
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield before == "1"
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
        else:
            os.environ[FULL_ERROR] = before
