"""The command line of `python benchmarks/run.py`: which contests, how often, and where the numbers go."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import lightning as L
import transformers

from benchmarks import grpo_step, memory, pretraining, sampling
from benchmarks.floor import measured_peaks
from benchmarks.pairs import Contest, Result, compare
from benchmarks.setting import FULL, QUICK, World
from benchmarks.table import Machine, render, render_floors, write_between_markers, write_csv
from r1_lightning.run.build.torch_setup import keep_freed_memory
from r1_lightning.types.errors import InvalidInput, require, require_int

CONTESTS: dict[str, Callable[[World], Contest]] = {
    "pretraining": pretraining.contest,
    "sampling": sampling.contest,
    "grpo": grpo_step.even_contest,
    "grpo_uneven": grpo_step.uneven_contest,
    "grpo_long_prompts": grpo_step.long_prompt_contest,
    "memory": memory.contest,
}
DEFAULT_PAIRS = 5
BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the contests that the command line asks for; returns the exit code."""
    options = _options(arguments)
    try:
        require_int("--pairs", options.pairs, 1)
        partial = options.quick or options.only
        require(not (options.write and partial), "--write", True, "README.md shows whole runs: no --quick, no --only")
        _run(options)
    except InvalidInput as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python benchmarks/run.py", description=__doc__)
    parser.add_argument(
        "--pairs", type=int, default=DEFAULT_PAIRS, help="pairs (ours, theirs) per contest (%(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tiny rehearsal: its numbers mean nothing, and no file is written"
    )
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md, too")
    parser.add_argument("--only", choices=CONTESTS, help="one contest instead of all")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace) -> None:
    machine = Machine.here()
    results: list[Result] = []
    try:
        for name in [options.only] if options.only else CONTESTS:
            results.append(in_own_process(name, options.pairs, options.quick))
    finally:  # half an hour of pairs is kept when a later contest fails
        if results:
            table = "\n\n".join([render(results, machine), render_floors(results, measured_peaks())])
            print(f"\n{table}", flush=True)
        if results and not options.quick:
            print(f"\nevery pair: {write_csv(results, machine)}", flush=True)
    if options.write and not options.quick:
        write_between_markers(table)


def in_own_process(name: str, pairs: int, quick: bool) -> Result:
    """Measure a contest in a fresh process: one that has measured others is slower (`pairs.py`)."""
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as one:
        return one.submit(measured, name, pairs, quick).result()


def measured(name: str, pairs: int, quick: bool) -> Result:
    """Measure a contest here."""
    silence_warnings()
    keep_freed_memory()  # of the whole process: both sides gain from it
    contest = CONTESTS[name](World(QUICK if quick else FULL))
    print(contest.work, flush=True)
    return compare(contest, pairs, say=_say).told()


def _say(line: str) -> None:
    print(line, flush=True)


def silence_warnings() -> None:
    """Both trainers' advice (tips, workers, deprecations of theirs) out of the way; errors stay."""
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    L.seed_everything(0, verbose=False)
