"""Does RL bear FP8? Rollouts in FP8 with a BF16 update, both in FP8, both in BF16, from the same weights.

Rollouts are most of RL's time, so users compute them in FP8 and update in BF16. Then the policy that samples is not the one that is
trained. Jet-RL (Xi et al. 2026, arXiv:2601.14243) reports that this loses over 10 % of the accuracy, or collapses, where
completions are long, and that one flow of FP8 for both stays within about 1 %. Here every seed pre-trains one base in FP32, from
which three GRPO runs of R1-Zero's miniature start:

    bf16           sampler and update in BF16
    fp8            both in FP8, as DeepSeek-V3 trains
    fp8_rollouts   the sampler in FP8, the update in BF16

FP8 is emulated: bytes and scales are those of Transformer Engine's block scaling, products are summed in FP32. Completions have
about 30 tokens, those of the paper up to 16,000: a mismatch that grows with the length is not shown here.

A rollout feeds two minibatches. In the first no weight has changed since sampling, so all of `policy/kl_old` and every clipped
token there come from the mismatch of sampler and update.
"""

from __future__ import annotations

from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from r1_lightning.artefacts.file_names import METRICS
from r1_lightning.artefacts.store import CONFIG, Artefact, open_artefact
from r1_lightning.artefacts.work import work_in
from r1_lightning.callbacks.self_check import Agreement, measure_agreement, small_rollout
from r1_lightning.functional.intervals import mean_interval_t
from r1_lightning.rollout.groups import RolloutMaker
from r1_lightning.run.build.parts import build_parts
from r1_lightning.run.checks.stored_config import read_config
from r1_lightning.run.commands.recipe import Made, Recipe, Row, read, spread, table_of, verdict
from r1_lightning.run.commands.report_runs import made_by, train

STEPS, LAST_STEPS, PROMPTS = 100, 20, 32  # steps of a run, its last ones, prompts of the measured agreement
WORDS = f'stage=grpo model=tiny task=arithmetic stage.max_steps={STEPS} stage.parent_overrides=["precision=fp32"]'
BF16, FP8, ROLLOUTS = "bf16", "fp8", "fp8_rollouts"
ARMS = {
    BF16: "precision=bf16",
    FP8: "precision=fp8_emulated",
    ROLLOUTS: "precision=fp8_emulated precision.rollouts_only=true",
}
FIELDS = ("seed", "arm", "measure", "value", "fingerprint", "commit")
CURVE_FIELDS = ("seed", "arm", "step", "reward_mean", "completion_tokens_mean", "kl_old", "clip_fraction")
ACCURACY, REWARD, MISMATCH, MINUTES = "eval/arithmetic/pass_at_1", "reward", "kl_old, first minibatch", "minutes"
# Log-probs are compared up to the first token of a completion that is routed differently.
LARGEST, AVERAGE, FLIPPED = (
    "largest difference of log-probs",
    "mean difference of log-probs",
    "tokens routed differently",
)
WHEN = ("before RL", "after RL")
SHOWN = {
    ACCURACY: ("strict accuracy, held out", 4),
    REWARD: (f"reward, mean of the last {LAST_STEPS} steps", 4),
    MISMATCH: ("KL from sampler to update, per token, no weight changed yet (nats)", 6),
    "clip_fraction, first minibatch": ("tokens clipped there", 5),
    "clip_fraction, second minibatch": ("tokens clipped in the second minibatch", 5),
    **{f"{what}, {when}": (f"{what}, {when}", 4) for when in WHEN for what in (LARGEST, AVERAGE, FLIPPED)},
    MINUTES: ("minutes", 1),
}
ROLLOUTS_LOSE, UNIFIED_LOSES = 10.0, 1.0  # percent of the accuracy in BF16, which Jet-RL's abstract and figures report

Values = Mapping[str, Mapping[str, Mapping[str, float]]]  # by seed, arm and measure


def overrides(seed: int, arm: str) -> list[str]:
    """The arguments of `scripts/train.py` for one run."""
    return [*WORDS.split(), *ARMS[arm].split(), f"seed={seed}"]


def make(seed: int, arm: str, root: Path) -> Made:
    """The measures and the curve of one run."""
    trained, _ = train(overrides(seed, arm), root)
    rows = [row for row in read(trained.folder / METRICS) if row.get("train/loss")]
    run = {"seed": seed, "arm": arm, **made_by(trained)}
    measures = measures_of(trained, rows)
    names = ("rollout/reward_mean", "rollout/completion_tokens_mean", "policy/kl_old", "policy/clip_fraction")
    points = [
        {"seed": seed, "arm": arm, "step": row["step"]}
        | {column: f"{float(row[name]):.5g}" for column, name in zip(CURVE_FIELDS[3:], names, strict=True)}
        for row in first_minibatches(rows)
    ]
    return Made([{**run, "measure": name, "value": f"{value:.6g}"} for name, value in measures.items()], points)


def first_minibatches(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows of steps on the first of a rollout's two minibatches: every second one."""
    return rows[::2]


def measures_of(trained: Artefact, rows: Sequence[Row]) -> dict[str, float]:
    """What one finished run shows, by the names of `SHOWN`."""
    found = {ACCURACY: float(trained.metrics[ACCURACY] or 0.0)}
    found[REWARD] = mean(float(row["rollout/reward_mean"]) for row in rows[-LAST_STEPS:])
    found[MISMATCH] = mean(float(row["policy/kl_old"]) for row in first_minibatches(rows))
    for number, which in enumerate(("first", "second")):
        clipped = [float(row["policy/clip_fraction"]) for row in rows[number::2]]
        found[f"clip_fraction, {which} minibatch"] = mean(clipped)
    base = open_artefact((trained.folder / trained.inputs["base"]["folder"]).resolve())
    for when, weights in zip(WHEN, (base, trained), strict=True):
        agreement = agreement_of(trained, weights)
        found[f"{LARGEST}, {when}"] = agreement.max_difference
        found[f"{AVERAGE}, {when}"] = agreement.mean_difference
        found[f"{FLIPPED}, {when}"] = agreement.flipped_fraction
    if (work := work_in(trained.folder)) is not None:
        found[MINUTES] = work.seconds / 60
    return found


def agreement_of(trained: Artefact, weights: Artefact) -> Agreement:
    """What the check at step 0 measures, on more prompts: the configuration of `trained`, the policy of `weights`."""
    config = read_config(trained.folder / CONFIG, trust_targets=False)
    parts = build_parts(config, weights)
    maker = RolloutMaker(*(parts[name] for name in ("generate", "tokenizer", "template", "reward", "rollout")))
    rollout = small_rollout(maker, parts["source"], config.seed, PROMPTS, version=0)
    return measure_agreement(rollout, maker, config.seed, parts["backbone"], None, parts["sampling_temperature"])


def render(rows: Sequence[Row]) -> str:
    """Markdown: the measures of each arm, the loss of accuracy against BF16 with its interval, the claims seed by seed."""
    values = _values(rows)
    seeds = sorted(values, key=int)
    measures = {
        label: [spread([values[s][arm][name] for s in seeds if name in values[s].get(arm, {})], digits) for arm in ARMS]
        for name, (label, digits) in SHOWN.items()
    }
    losses = {arm: [found for s in seeds if (found := lost(values[s], arm)) is not None] for arm in (FP8, ROLLOUTS)}
    claims = {
        f"FP8 rollouts with an update in BF16 lose more than {ROLLOUTS_LOSE:g} % of the accuracy": [
            _claim(lost(values[s], ROLLOUTS), above=ROLLOUTS_LOSE) for s in seeds
        ],
        f"FP8 in both loses at most {UNIFIED_LOSES:g} %": [
            _claim(lost(values[s], FP8), at_most=UNIFIED_LOSES) for s in seeds
        ],
        "sampler and update are further apart with FP8 rollouts alone than with FP8 in both": [
            _claim(_wider(values[s]), above=0.0) for s in seeds
        ],
    }
    return "\n".join(
        [
            f"Seeds {', '.join(seeds)}; {STEPS} steps of GRPO. Mean over seeds [smallest, largest].\n",
            table_of("", list(ARMS), measures),
            "Lost strict accuracy against BF16, in percent of it: mean over seeds, paired 95 % interval of Student's t.\n",
            table_of("", ["lost, %"], {arm: [_interval(found)] for arm, found in losses.items()}),
            table_of("claim", [f"seed {seed}" for seed in seeds], claims),
        ]
    )


def _values(rows: Sequence[Row]) -> Values:
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["seed"]][row["arm"]][row["measure"]] = float(row["value"])
    return found


def lost(of_seed: Mapping[str, Mapping[str, float]], arm: str) -> float | None:
    """How much of BF16's strict accuracy `arm` loses, in percent of it; None if one of both is not run or BF16 has none."""
    base, own = (of_seed.get(name, {}).get(ACCURACY) for name in (BF16, arm))
    return None if not base or own is None else 100 * (base - own) / base


def _wider(of_seed: Mapping[str, Mapping[str, float]]) -> float | None:
    both, rollouts = (of_seed.get(name, {}).get(MISMATCH) for name in (FP8, ROLLOUTS))
    return None if both is None or rollouts is None else rollouts - both


def _claim(value: float | None, above: float | None = None, at_most: float | None = None) -> str:
    if value is None:
        return "not run"
    return verdict(value, value > above if above is not None else value <= (at_most or 0.0))


def _interval(numbers: Sequence[float]) -> str:
    """`mean [low, high]` of at least two seeds."""
    if len(numbers) < 2:
        return "not run"
    found = mean_interval_t(numbers)
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def draw(points: Sequence[Row], path: Path) -> None:
    """Left the reward, right the mismatch of sampler and update: a line per seed, a colour per arm."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3), constrained_layout=True)
    for colour, arm in zip(("C7", "C0", "C3"), ARMS, strict=True):
        for seed in sorted({point["seed"] for point in points}, key=int):
            own = [point for point in points if (point["seed"], point["arm"]) == (seed, arm)]
            steps = [int(point["step"]) for point in own]
            left.plot(steps, [float(point["reward_mean"]) for point in own], color=colour, linewidth=1)
            right.plot(steps, [float(point["kl_old"]) for point in own], color=colour, linewidth=1)
        left.plot([], [], color=colour, label=arm)
    left.set(title="reward", xlabel="optimizer step")
    right.set(title="KL from sampler to update (nats per token)", xlabel="optimizer step", yscale="log")
    left.legend(fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def runs(options: Namespace) -> Iterator[tuple[int, str]]:
    """Every arm of one seed after the other."""
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
