"""The command `r1 plan-pipeline`: bubble, memory and timelines of pipeline schedules, and what a layout of many GPUs takes.

DeepSeek-V3 (arXiv:2412.19437) compares 1F1B, ZB1P and DualPipe by formulas. Here each schedule
(`functional/pipeline_schedules.py`) is worked off chunk by chunk, and both numbers are printed. Nothing is run: durations are what
the reader gives, in any unit. With `--gpus` it prints what a published model takes on such a layout (`cluster`).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from r1_lightning.functional.pipeline import ChunkTimes, Slot, Timeline
from r1_lightning.functional.pipeline_schedules import SCHEDULES, Schedule
from r1_lightning.model.cost import meta_backbone
from r1_lightning.run.config.machine import run_as_command
from r1_lightning.run.cost import cluster_report
from r1_lightning.run.cost.cluster import WEIGHT_TYPES, Cluster, Layout
from r1_lightning.run.cost.model_sizes import PUBLISHED, shape_of
from r1_lightning.types.errors import require, require_int

DEFAULT_BATCHES = 20
DEFAULT_COLUMNS = 200
IDLE, FILL = ".", "-"
LEGEND = (
    "F forward, B backward, I backward of inputs, W of weights, F&b a forward and a backward overlapped; small letters are\n"
    "micro-batches that enter at the last rank; . is the bubble"
)


def main() -> int:
    """The command line of `r1 plan-pipeline`."""
    return run_as_command(_print)


def _print() -> int:
    options = _parser().parse_args()
    overlapped = options.forward + options.backward if options.overlapped is None else options.overlapped
    times = ChunkTimes(options.forward, options.backward, options.weights, overlapped)
    require_int("--columns", options.columns, 0)
    if options.gpus is None:
        batches, names = options.micro_batches or DEFAULT_BATCHES, options.schedule or list(SCHEDULES)
        lines = report(names, options.ranks, batches, times, options.columns)
    else:
        lines = _cluster(options, times)
    for line in lines:
        print(line)
    return 0


def _cluster(options: argparse.Namespace, times: ChunkTimes) -> Iterator[str]:
    allowed = "with --gpus it follows from --sequences: one sequence is a micro-batch"
    require(options.micro_batches is None, "--micro-batches", options.micro_batches, allowed)
    schedules = options.schedule or ["dualpipe"]
    require(len(schedules) == 1, "--schedule", schedules, "with --gpus it is one")
    layout = Layout(
        options.gpus,
        options.ranks,
        options.expert_ranks,
        schedules[0],
        options.weights_type,
        options.sequences,
        options.tokens,
    )
    backbone = meta_backbone(shape_of(options.model))
    return cluster_report.lines(
        options.model, Cluster(backbone, layout), times, options.sampling_gpus, options.gpu_hours
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0].partition(": ")[2])
    add = parser.add_argument
    add("--schedule", action="append", choices=list(SCHEDULES), help="one schedule; may be repeated; by default all")
    add("--ranks", type=int, default=8, help="PP, the number of stages and of ranks (8)")
    add("--micro-batches", type=int, help=f"micro-batches of an optimizer step ({DEFAULT_BATCHES})")
    add("--forward", type=float, metavar="TIME", default=1.0, help="F, time of a forward of one stage (1)")
    add("--backward", type=float, metavar="TIME", default=2.0, help="B, time of a full backward (2)")
    add("--weights", type=float, metavar="TIME", default=1.0, help="W, the part of B for gradients of weights (1)")
    add("--overlapped", type=float, metavar="TIME", help="F&B, time of a forward and a backward overlapped (F + B)")
    add("--columns", type=int, default=DEFAULT_COLUMNS, help=f"width of the drawings ({DEFAULT_COLUMNS}); 0: none")
    many = parser.add_argument_group("a model on many GPUs")
    add = many.add_argument
    add("--gpus", type=int, help="print what pre-training on so many GPUs takes, --ranks stages of them")
    add("--model", choices=list(PUBLISHED), default="v3_671b", help="a published model (v3_671b)")
    add("--expert-ranks", type=int, default=64, help="EP, GPUs of a stage over which its experts stand (64)")
    add("--weights-type", choices=list(WEIGHT_TYPES), default="bf16", help="of linear layers (bf16)")
    add("--sequences", type=int, default=15360, help="sequences of an optimizer step (15360)")
    add("--tokens", type=int, default=4096, help="tokens of a sequence (4096)")
    add("--sampling-gpus", type=int, default=32, help="GPUs of one engine that samples (32)")
    add("--gpu-hours", type=float, help="of a trillion tokens, to compare with; V3 says 180000")
    return parser


def report(names: list[str], ranks: int, batches: int, times: ChunkTimes, columns: int) -> Iterator[str]:
    """Yield a table with a row per schedule, then a drawing of each. `InvalidInput` for what no schedule named can do."""
    timelines = {name: SCHEDULES[name].run(ranks, batches, times) for name in names}
    yield (
        f"{ranks} ranks, {batches} micro-batches, F={times.forward:g} B={times.backward:g} W={times.weights:g} "
        f"F&B={times.overlapped:g}; sending takes no time"
    )
    yield ""
    yield f"{'schedule':<10}{'bubble by formula':<32}{'simulated':>10}{'of the step':>13}{'stages held':>13}{'activations':>13}"
    for name, timeline in timelines.items():
        yield _row(SCHEDULES[name], ranks, times, timeline)
    yield "bubble: time in which a rank stands idle; activations: most micro-batches, of one stage each, that a rank keeps"
    for name, timeline in timelines.items() if columns else ():
        yield ""
        yield f"{SCHEDULES[name].name}: {timeline.end:g} from first to last"
        yield from drawing(timeline, columns)
    if columns:
        yield LEGEND


def _row(schedule: Schedule, ranks: int, times: ChunkTimes, timeline: Timeline) -> str:
    formula = f"{schedule.formula} = {schedule.bubble(ranks, times):g}"
    most = max(timeline.activations(rank) for rank in range(ranks))
    share = timeline.bubble / timeline.end
    return f"{schedule.name:<10}{formula:<32}{timeline.bubble:>10g}{share:>13.2%}{schedule.parameters:>12}x{most:>13}"


def drawing(timeline: Timeline, columns: int) -> Iterator[str]:
    """Yield a line per rank, at most `columns` wide: time runs to the right, the shortest chunk is as wide as its name."""
    lasting = [timed.end - timed.start for timed in timeline.ranks[0] if timed.end > timed.start]
    batches = 1 + max(chunk.batch for rank in timeline.ranks for timed in rank for chunk in timed.slot)
    per_time = (1 + len(str(batches - 1))) / min(lasting)
    head = len(f"rank {len(timeline.ranks) - 1} ")
    for rank, row in enumerate(timeline.ranks):
        cells = [IDLE] * round(timeline.end * per_time)
        for timed in row:
            start, end = round(timed.start * per_time), round(timed.end * per_time)
            cells[start:end] = _label(timed.slot)[: end - start].ljust(end - start, FILL)
        line = f"{f'rank {rank}':<{head}}{''.join(cells)}"
        yield line if len(line) <= columns else line[: columns - 1] + "…"


def _label(slot: Slot) -> str:
    names = ((chunk.kind.lower() if chunk.is_reverse else chunk.kind) + str(chunk.batch) for chunk in slot)
    return "&".join(names)
