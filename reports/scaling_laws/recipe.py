"""Does the miniature obey Hoffmann's law? Five sizes pre-trained on four amounts of text, and E + A / N^alpha + B / D^beta fitted.

Every cell of the ladder (a size N, an amount D) is a run of its own, whose learning rate is warmed up and decays to its end. To
read a long run off on its way would be cheaper and is not honest: its learning rate is still high there, so its loss is above that
of a run that ends there. Hoffmann et al. 2022 (arXiv:2203.15556, section 2) name this as one reason why Kaplan et al. let N grow
faster than D. A constant rate would treat all D alike, but measures a loss with which nobody stops.

    N       weights that work on a token: chosen experts, projections, router and head; not the embedding, which is looked up
    D       tokens that were predicted in training, each once: the text is made anew and never repeats
    C       6 N D
    loss    nats per token of 1,024 held-out rows, the same for all runs of a seed

Rules, written before the first run, for fits over all runs:

    the form fits          the median relative error of the loss is at most 1 %, and the largest of a cell's mean at most 5 %
    it extrapolates        fitted without the largest D, it predicts every cell of that D within 5 %
    N grows as C^0.5       the interval of a = beta / (alpha + beta) holds 0.5, and is at most 0.2 wide (wider: cannot tell)
    counting is the floor  every cell is below the 5-gram's loss from the same tokens
"""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import mean, median

import numpy as np

from r1_lightning.artefacts.store import TOKENIZER, Artefact
from r1_lightning.artefacts.work import work_in
from r1_lightning.functional.intervals import Interval
from r1_lightning.functional.scaling_fits import bootstrap, fit_loss_law, fit_power_law, frontier
from r1_lightning.functional.scaling_laws import LossLaw, training_flops
from r1_lightning.model.cost import count_parameters, meta_backbone
from r1_lightning.run.commands.recipe import Made, Recipe, Row, spread, table_of
from r1_lightning.run.commands.report_runs import made_by, planned, train
from r1_lightning.run.config.inject import inject
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput

LAYERS = {32: 2, 64: 2, 96: 3, 128: 4, 160: 5}  # of each width; 128 is model=tiny
STEPS = (100, 200, 400, 800)  # of about 3,900 tokens
WORDS = (
    "stage=pretrain model=tiny task=arithmetic stage.mtp_loss_weight=0 model.mtp_depth=0 optim.warmup_steps=20 "
    "callbacks.evaluation.text_rows=1024 logger=none"
)
HEAD = 32  # width of a head: as many heads as fit into the model's width
FIELDS = ("seed", "width", "steps", "parameters", "tokens", "loss", "ngram", "minutes", "fingerprint", "commit")
POINT = ("seed", "width", "steps", "parameters", "tokens", "loss")
RESAMPLES = 100
MEDIAN_ERROR, CELL_ERROR, AHEAD_ERROR = 0.01, 0.05, 0.05
HOFFMANN_EXPONENT, WIDEST = 0.5, 0.2


@dataclass(frozen=True)
class Run:
    """One row: N, D, the loss and that of the 5-gram (nats per token)."""

    width: int
    steps: int
    parameters: float
    tokens: float
    loss: float
    ngram: float

    @property
    def flops(self) -> float:
        return training_flops(self.parameters, self.tokens)


def overrides(seed: int, width: int, steps: int) -> list[str]:
    """The arguments of `scripts/train.py` for one run: model=tiny with everything in proportion to its width."""
    shape = (
        f"d_model={width} n_layers={LAYERS[width]} n_heads={width // HEAD} q_lora_rank={width // 2} "
        f"kv_lora_rank={3 * width // 8} d_ff_dense={2 * width} d_ff_expert={width // 2}"
    )
    return [*WORDS.split(), *(f"model.{size}" for size in shape.split()), f"stage.max_steps={steps}", f"seed={seed}"]


def make(seed: int, width: int, steps: int, root: Path) -> Made:
    """Train one run and read its loss off the artefact."""
    words = overrides(seed, width, steps)
    trained, _ = train(words, root)
    text = {name: float(value or "nan") for name, value in trained.metrics.items() if name.startswith("eval/text/")}
    loss, ngram = (math.log(2) * text[f"eval/text/{of}bits_per_token"] for of in ("", "ngram_5_"))
    tokens = int(text["eval/text/trained_tokens"])
    values = (seed, width, steps, active_parameters(words, trained), tokens, f"{loss:.6f}")
    run = dict(zip(POINT, values, strict=True))
    work = work_in(trained.folder)
    minutes = "" if work is None else f"{work.seconds / 60:.2f}"
    return Made([{**run, "ngram": f"{ngram:.6f}", "minutes": minutes, **made_by(trained)}], [run])


def active_parameters(words: Sequence[str], trained: Artefact) -> int:
    """Weights that work on a token of this run's model."""
    vocab_size = TextTokenizer.load(trained.folder / TOKENIZER).vocab_size
    config = inject(planned(words).stage.config.model, {"vocab_size": vocab_size})
    return count_parameters(meta_backbone(config)).activated


def runs_of(rows: Sequence[Row]) -> tuple[Run, ...]:
    numbers = ("parameters", "tokens", "loss", "ngram")
    return tuple(Run(int(r["width"]), int(r["steps"]), *(float(r[name]) for name in numbers)) for r in rows)


def cells(runs: Sequence[Run]) -> dict[tuple[int, int], list[Run]]:
    """The runs of all seeds, by width and steps."""
    found: dict[tuple[int, int], list[Run]] = defaultdict(list)
    for run in runs:
        found[run.width, run.steps].append(run)
    return found


def is_whole(runs: Sequence[Run]) -> bool:
    """True if every cell of the ladder has a run."""
    return set(cells(runs)) >= {(width, steps) for width in LAYERS for steps in STEPS}


NAMES = ("E", "A", "B", "alpha", "beta", "a of N = G (C/6)^a")
CONSTANTS = dict(zip(("irreducible", "a_scale", "b_scale", "alpha", "beta", "exponent"), NAMES, strict=True))


def law_of(runs: Sequence[Run], weights: np.ndarray | None = None, start: LossLaw | None = None) -> LossLaw:
    n, d, loss = ([getattr(run, name) for run in runs] for name in ("parameters", "tokens", "loss"))
    return fit_loss_law(n, d, loss, weights, start=start)


@cache
def fitted(runs: tuple[Run, ...]) -> tuple[LossLaw, dict[str, Interval]]:
    """The law of all runs, and its constants with intervals. `InvalidInput` if there is none, such as of a loss that rises."""
    law = law_of(runs)

    def constants(weights: np.ndarray) -> list[float]:
        found = law_of(runs, weights, law)
        return [getattr(found, name) for name in CONSTANTS]

    return law, dict(zip(CONSTANTS, bootstrap(constants, len(runs), RESAMPLES), strict=True))


def slices(runs: Sequence[Run]) -> dict[str, tuple[str, list[Run]]]:
    """The runs that each of Kaplan's laws is fitted to: the longest training, the largest model, the best of each budget."""
    widest, longest = max(run.width for run in runs), max(run.steps for run in runs)
    best = frontier([run.flops for run in runs], [run.loss for run in runs])
    return {
        f"L(N) at {longest} steps": ("parameters", [run for run in runs if run.steps == longest]),
        f"L(D) at width {widest}": ("tokens", [run for run in runs if run.width == widest]),
        "L(C) of the runs that none with less C beats": ("flops", [runs[place] for place in best]),
    }


def power(runs: Sequence[Run], name: str) -> Interval:
    """The exponent of (x_c / x)^exponent over these runs."""
    x, losses = [getattr(run, name) for run in runs], [run.loss for run in runs]
    return bootstrap(lambda weights: [fit_power_law(x, losses, weights).exponent], len(runs), RESAMPLES)[0]


def errors(law: LossLaw, runs: Sequence[Run]) -> list[float]:
    """Relative error of the law's loss for each run."""
    return [law.loss(run.parameters, run.tokens) / run.loss - 1 for run in runs]


def worst_cell(law: LossLaw, runs: Sequence[Run]) -> float:
    """The largest error of a cell's mean."""
    return max(abs(mean(errors(law, cell))) for cell in cells(runs).values())


def claims(runs: tuple[Run, ...]) -> dict[str, list[str]]:
    """A verdict per rule of the module's docstring, with the number that it rests on."""
    law, intervals = fitted(runs)
    middle, worst = median(map(abs, errors(law, runs))), worst_cell(law, runs)
    ahead = [run for run in runs if run.steps == max(STEPS)]
    shorter = law_of([run for run in runs if run.steps < max(STEPS)])
    missed = worst_cell(shorter, ahead)
    a = intervals["exponent"]
    holds = a.low <= HOFFMANN_EXPONENT <= a.high
    below = sum(run.loss < run.ngram for run in runs)
    return {
        "E + A / N^alpha + B / D^beta fits": [
            _verdict(middle <= MEDIAN_ERROR and worst <= CELL_ERROR),
            f"median error {middle:.2%}, largest of a cell {worst:.2%}",
        ],
        "fitted without the largest D, it predicts it": [
            _verdict(missed <= AHEAD_ERROR),
            f"largest error {missed:.2%}",
        ],
        "the best N grows as C^0.5": [
            "cannot tell" if holds and a.high - a.low > WIDEST else _verdict(holds),
            f"a = {a}",
        ],
        "every cell is below the 5-gram": [_verdict(below == len(runs)), f"{below} of {len(runs)} runs"],
    }


def _verdict(holds: bool) -> str:
    return "supported" if holds else "not supported"


def render(rows: Sequence[Row]) -> str:
    """Markdown: the loss of every cell, the constants with intervals, the power laws, the verdicts, minutes."""
    runs = runs_of(rows)
    of_cell = cells(runs)
    grid = {
        f"{width} x {LAYERS[width]}, N = {_mean('parameters', runs, width=width):,.0f}": [
            spread([run.loss for run in of_cell.get((width, steps), [])], 3) for steps in STEPS
        ]
        for width in LAYERS
    }
    heads = [f"{steps} steps, D = {_mean('tokens', runs, steps=steps) / 1e6:.2f} million" for steps in STEPS]
    minutes = [float(row["minutes"]) for row in rows if row["minutes"]]
    parts = [
        "Held-out loss (nats per token): mean over seeds [smallest, largest].\n",
        table_of("width x layers", heads, grid),
        *_fitted(runs),
        f"{len(rows)} runs in {sum(minutes):.0f} minutes.\n",
    ]
    return "\n".join(parts)


def _fitted(runs: tuple[Run, ...]) -> list[str]:
    if not is_whole(runs):
        return ["The fits wait for a whole ladder: every width with every number of steps.\n"]
    try:
        constants = {CONSTANTS[name]: [_three(interval)] for name, interval in fitted(runs)[1].items()}
        powers = {name: [_three(power(found, x))] for name, (x, found) in slices(runs).items()}
        judged = claims(runs)
    except InvalidInput as error:
        return [f"No law could be fitted: {error}\n"]
    return [
        "Constants with 95 % intervals, by resampling runs.\n",
        table_of("E + A / N^alpha + B / D^beta", ["value"], constants),
        table_of("(x_c / x)^exponent", ["exponent"], powers),
        table_of("claim", ["verdict", "by"], judged),
    ]


def _three(interval: Interval) -> str:
    return f"{interval.estimate:.3g} [{interval.low:.3g}, {interval.high:.3g}]"


def _mean(name: str, runs: Sequence[Run], **of: int) -> float:
    found = [getattr(run, name) for run in runs if all(getattr(run, key) == value for key, value in of.items())]
    return mean(found) if found else math.nan


def more_files(rows: Sequence[Row], points: Sequence[Row]) -> Mapping[str, str]:
    """The fit as a file, from which `scripts/plan.py` takes our law; none before the ladder is whole."""
    runs = runs_of(rows)
    try:
        law = fitted(runs)[0] if is_whole(runs) else None
    except InvalidInput:
        law = None
    if law is None:
        return {}
    constants = {name: float(f"{value:.5g}") for name, value in asdict(law).items()}
    return {"fit.json": json.dumps({"law": constants, "runs": len(runs)}, indent=1) + "\n"}


def draw(points: Sequence[Row], path: Path) -> None:
    """The loss over D, a line per width: means over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = cells(runs_of([{**point, "ngram": "nan"} for point in points]))
    figure, axes = pyplot.subplots(figsize=(6, 4), constrained_layout=True)
    for width in LAYERS:
        mine = [cell for (w, _), cell in sorted(found.items()) if w == width]
        if mine:
            tokens, losses = ([mean(getattr(r, n) for r in cell) for cell in mine] for n in ("tokens", "loss"))
            axes.plot(tokens, losses, "o-", label=f"N = {mine[0][0].parameters:,.0f}", markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="D (tokens)", ylabel="held-out loss (nats per token)")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def runs(options: Namespace) -> Iterator[tuple[int, int, int]]:
    """The whole ladder of one seed after the other, the short runs first."""
    yield from ((seed, width, steps) for seed in options.seeds for steps in STEPS for width in LAYERS)


RECIPE = Recipe(
    seeds=[0, 1, 2],
    key={"seed": int, "width": int, "steps": int},
    fields=FIELDS,
    runs=runs,
    overrides=overrides,
    make=make,
    table=render,
    curve_fields=POINT,
    draw=draw,
    more_files=more_files,
)
