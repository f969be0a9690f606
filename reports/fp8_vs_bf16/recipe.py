"""Does a model pre-trained in FP8 reach the loss of BF16? The same batches and the same first weights in four precisions.

DeepSeek-V3 (arXiv:2412.19437, section 3.3 and figure 10) trains two models in BF16 and in FP8 with fine-grained scales, and finds
the relative difference of their losses below 0.25 % over the run. Its appendix B.2 cuts the gradients that go back through a linear
layer into blocks of 128 x 128, and that model diverges. Here every seed pre-trains the miniature on the same batches from the same
weights:

    bf16     the run that all others are compared with, window by window of their steps
    fp32     a control: how far apart do two runs get that only round differently?
    fp8      V3's recipe: tiles of 1 x 128 on activations and gradients, blocks of 128 x 128 on weights
    blocks   the same, with blocks of 128 x 128 on the gradients that go back

FP8 is emulated: bytes and scales are those of Transformer Engine's block scaling, products are summed in FP32. The paper's models
are more than ten thousand times as large and see a million times the tokens; an error that grows with either is not shown here.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import Artefact
from r1_lightning.artefacts.work import work_in
from r1_lightning.functional.intervals import mean_interval_t
from r1_lightning.run.commands.recipe import Made, Recipe, Row, read, spread, table_of, verdict
from r1_lightning.run.commands.report_runs import made_by, train

STEPS, WINDOW, POINT = 300, 50, 10  # steps of a run, of a window of the table, of a point of the curve
PAPER_PERCENT = 0.25
WORDS = (
    f"stage=pretrain model=tiny task=arithmetic optim=adamw optim.lr=3.0e-3 optim.warmup_steps=30 optim.final_lr_factor=0.1 "
    f"stage.max_steps={STEPS} stage.evaluation=null"
)
BF16, FP8, BLOCKS = "bf16", "fp8", "blocks"
ARMS = {
    BF16: "precision=bf16",
    "fp32": "precision=fp32",
    FP8: "precision=fp8_emulated",
    BLOCKS: "precision=fp8_emulated precision.gradient_blocks=true",
}
MINUTES = "minutes"
FIELDS = ("seed", "arm", "measure", "step", "value", "fingerprint", "commit")
CURVE_FIELDS = ("seed", "arm", "step", "loss")

Losses = Mapping[str, Mapping[str, Mapping[int, float]]]  # by seed, arm and first step of a window


def overrides(seed: int, arm: str) -> list[str]:
    """The arguments of `scripts/train.py` for one run."""
    return [*WORDS.split(), *ARMS[arm].split(), f"seed={seed}"]


def windows(losses: Sequence[float], size: int) -> Iterator[tuple[int, float]]:
    """The first step of every whole window of `size` steps, and the mean loss in it (nats per token)."""
    for first in range(0, len(losses) - size + 1, size):
        yield first, mean(losses[first : first + size])


def make(seed: int, arm: str, root: Path) -> Made:
    """The losses of one run, without the MTP module's."""
    trained, _ = train(overrides(seed, arm), root)
    losses = [float(row["train/loss"]) for row in read(trained.folder / METRICS) if row.get("train/loss")]
    return Made(
        list(_rows(seed, arm, losses, trained)),
        [{"seed": seed, "arm": arm, "step": first, "loss": f"{loss:.5f}"} for first, loss in windows(losses, POINT)],
    )


def _rows(seed: int, arm: str, losses: Sequence[float], trained: Artefact) -> Iterator[dict[str, Any]]:
    run = {"seed": seed, "arm": arm, **made_by(trained)}
    for first, loss in windows(losses, WINDOW):
        yield {**run, "measure": "loss", "step": first, "value": f"{loss:.6f}"}
    work = work_in(trained.folder)
    yield {**run, "measure": MINUTES, "value": "" if work is None else f"{work.seconds / 60:.2f}"}


def render(rows: Sequence[Row]) -> str:
    """Markdown: the difference from BF16 in each window, its interval over the last, the claims seed by seed, minutes."""
    losses = _losses(rows)
    minutes = {
        arm: [spread([float(r["value"]) for r in rows if (r["measure"], r["arm"]) == (MINUTES, arm) and r["value"]], 1)]
        for arm in ARMS
    }
    seeds = sorted(losses, key=int)
    claims = {
        f"FP8's loss is within {PAPER_PERCENT} % of BF16's in every window": [_stays(losses[s], FP8) for s in seeds],
        "blocks of 128 x 128 on gradients end with a higher loss than tiles": [_ends_higher(losses[s]) for s in seeds],
    }
    return "\n".join(
        [
            f"Loss relative to BF16's in windows of {WINDOW} steps, in percent: mean over seeds [smallest, largest].\n",
            _differences(losses),
            "The last window and the whole run, in percent: mean over seeds, paired 95 % interval of Student's t "
            f"(the paper: {PAPER_PERCENT}).\n",
            table_of(
                "",
                ["last loss (nats per token)", "relative to BF16", "whole run, relative to BF16"],
                {arm: _last(losses, arm) for arm in ARMS},
            ),
            table_of("claim", [f"seed {seed}" for seed in seeds], claims),
            table_of("", [MINUTES], minutes),
        ]
    )


def _losses(rows: Sequence[Row]) -> Losses:
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row["measure"] == "loss":
            found[row["seed"]][row["arm"]][int(row["step"])] = float(row["value"])
    return found


def relative(of_seed: Mapping[str, Mapping[int, float]], arm: str) -> dict[int, float]:
    """The loss of `arm` minus BF16's in percent of BF16's, by the first step of a window; empty if one of both is not run."""
    base, own = of_seed.get(BF16, {}), of_seed.get(arm, {})
    return {step: 100 * (own[step] - base[step]) / base[step] for step in base if step in own}


def _differences(losses: Losses) -> str:
    steps = range(0, STEPS, WINDOW)
    arms = [arm for arm in ARMS if arm != BF16]
    return table_of(
        "steps",
        arms,
        {
            f"{first} to {first + WINDOW - 1}": [
                spread([found[first] for s in losses.values() if first in (found := relative(s, arm))], 3, "+")
                for arm in arms
            ]
            for first in steps
        },
    )


def _last(losses: Losses, arm: str) -> list[str]:
    last = STEPS - WINDOW
    own = [of_seed[arm][last] for of_seed in losses.values() if last in of_seed.get(arm, {})]
    differences = [found[last] for of_seed in losses.values() if last in (found := relative(of_seed, arm))]
    whole = [total for of_seed in losses.values() if (total := whole_run(of_seed, arm)) is not None]
    return [spread(own, 4), *(["", ""] if arm == BF16 else map(t_interval, (differences, whole)))]


def whole_run(of_seed: Mapping[str, Mapping[int, float]], arm: str) -> float | None:
    """The loss of `arm` summed over all steps minus BF16's, in percent of BF16's; None if one of both is not run whole."""
    base, own = of_seed.get(BF16, {}), of_seed.get(arm, {})
    if len(base) != STEPS // WINDOW or base.keys() != own.keys():
        return None
    return 100 * (sum(own.values()) - sum(base.values())) / sum(base.values())


def t_interval(numbers: Sequence[float]) -> str:
    """`mean [low, high]`: the 95 % interval of the mean of independent, normal `numbers`; needs at least 2 of them."""
    if len(numbers) < 2:
        return "not run"
    found = mean_interval_t(numbers)
    return f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _stays(of_seed: Mapping[str, Mapping[int, float]], arm: str) -> str:
    found = relative(of_seed, arm)
    if not found:
        return "not run"
    farthest = max(found.values(), key=abs)
    return verdict(farthest, abs(farthest) <= PAPER_PERCENT)


def _ends_higher(of_seed: Mapping[str, Mapping[int, float]]) -> str:
    tiles, blocks = (relative(of_seed, arm).get(STEPS - WINDOW) for arm in (FP8, BLOCKS))
    return "not run" if tiles is None or blocks is None else verdict(blocks - tiles, blocks > tiles)


def draw(points: Sequence[Row], path: Path) -> None:
    """Left the losses, right their differences from BF16's in percent: a line per seed, a colour per precision."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
    for colour, arm in zip(("C7", "C2", "C0", "C3"), ARMS, strict=True):
        for seed in sorted({point["seed"] for point in points}, key=int):
            curves = {
                name: {int(p["step"]): float(p["loss"]) for p in points if (p["seed"], p["arm"]) == (seed, name)}
                for name in (BF16, arm)
            }
            left.plot(*zip(*curves[arm].items(), strict=True), color=colour, linewidth=1)
            if arm != BF16 and (found := relative(curves, arm)):
                right.plot(*zip(*found.items(), strict=True), color=colour, linewidth=1)
        left.plot([], [], color=colour, label=arm)
    for bound in (-PAPER_PERCENT, PAPER_PERCENT):
        right.axhline(bound, color="black", linewidth=0.7, linestyle="--")
    left.set(title="loss (nats per token)", xlabel="optimizer step")
    right.set(title="relative to BF16 (percent)", xlabel="optimizer step")
    left.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def runs(options: Namespace) -> Iterator[tuple[int, str]]:
    """Every precision of one seed after the other."""
    yield from ((seed, arm) for seed in options.seeds for arm in ARMS)


RECIPE = Recipe(
    seeds=[0, 1, 2],
    key={"seed": int, "arm": str},
    fields=FIELDS,
    runs=runs,
    overrides=overrides,
    make=make,
    table=render,
    curve_fields=CURVE_FIELDS,
    draw=draw,
)
