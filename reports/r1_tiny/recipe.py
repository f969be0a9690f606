"""R1 in miniature over seeds: the table of stages, what each stage took, and whether the paper's claims hold.

One run is `experiment=r1_tiny` (the stages of R1) or `experiment=r1_family_tiny` (with students and ablations) for one seed. Its
rows are what `stage=compare` measured of each model, and the minutes of each stage; its points are the rollouts of the RL stages. A
claim is read off the rows of one seed alone, and stands in the table for every seed, also where it does not hold. The claims:

    R1-Zero is better than its base                     DeepSeek-R1, arXiv:2501.12948v2, section 2
    Dev1 is readable, Dev2 reasons better than Dev1     section 3, table 3
    R1 does not mix languages, R1-Zero does             sections 2.3 and 3
    a small student learns more from R1 than by RL      v1 section 4.1
    the vote of k samples is better than one sample     appendix D.1
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1_lightning.artefacts import data_set
from r1_lightning.artefacts.store import Artefact, open_artefact
from r1_lightning.artefacts.work import work_in
from r1_lightning.run.commands.recipe import Made, Recipe, Row, spread, table_of, verdict
from r1_lightning.run.commands.report_runs import made_by, rollout_means, train

EXPERIMENTS = ("r1_tiny", "r1_family_tiny")
FIELDS = ("experiment", "seed", "model", "measure", "value", "low", "high", "fingerprint", "commit")
MEANS = ("accuracy_mean", "completion_tokens_mean", "mixed_language_fraction")
CURVE_FIELDS = ("experiment", "seed", "stage", "step", *MEANS)
MINUTES = "minutes"
PARTLY = "minutes at least"  # of a stage of which a process was killed
SHOWN = {
    "pass_at_1": "accuracy, strict",
    "pass_at_1_lenient": "accuracy, lenient",
    "cons_at_8": "cons@8",
    "pass_at_1_arithmetic": "arithmetic",
    "pass_at_1_equations": "equations",
    "pass_at_1_comparison": "comparison and logic",
    "pass_at_1_programs": "programs (executed)",
    "format_rate": "well formed",
    "language_consistency": "language consistency (eq 7)",
    "mixed_language_rate": "completions that mix languages",
    "completion_tokens_mean": "tokens per completion",
    "quality_general": "quality of general replies",
    "quality_safety": "safe replies",
}
MIXES_RARELY = 0.05  # of completions: what "near 0" means here

Values = Mapping[tuple[str, str], float]  # (model, measure) of one seed


@dataclass(frozen=True)
class Claim:
    """What the paper says, in words; the `difference` of a seed's values that it is about, and whether it is as claimed."""

    words: str
    difference: Callable[[Values], float]
    holds: Callable[[float], bool] = lambda difference: difference > 0


def _gain(words: str, after: str, before: str, measure: str = "pass_at_1") -> Claim:
    return Claim(words, lambda values: values[after, measure] - values[before, measure])


CLAIMS = (
    _gain("R1-Zero is more accurate than the base", "r1_zero", "base"),
    Claim(
        f"Dev1 is readable: at most {MIXES_RARELY:.0%} of its completions mix languages",
        lambda values: values["dev1", "mixed_language_rate"],
        lambda rate: rate <= MIXES_RARELY,
    ),
    _gain("Dev2 is more accurate than Dev1", "dev2", "dev1"),
    Claim(
        f"R1-Zero mixes languages: in more than {MIXES_RARELY:.0%} of its completions",
        lambda values: values["r1_zero", "mixed_language_rate"],
        lambda rate: rate > MIXES_RARELY,
    ),
    Claim(
        f"R1 does not: in at most {MIXES_RARELY:.0%}",
        lambda values: values["r1", "mixed_language_rate"],
        lambda rate: rate <= MIXES_RARELY,
    ),
    _gain("R1's replies to general requests are better than Dev3's", "r1", "dev3", "quality_general"),
    Claim(
        "R1: the vote of 8 samples is right more often than one of them",
        lambda values: values["r1", "cons_at_8"] - values["r1", "pass_at_1_lenient"],
    ),
    _gain("the distilled student is more accurate than the same student under RL alone", "student", "student_rl"),
)


def overrides(experiment: str, seed: int) -> list[str]:
    """The arguments of `scripts/train.py` for one run."""
    return [f"experiment={experiment}", f"seed={seed}"]


def stages_of(artefact: Artefact) -> dict[str, Artefact]:
    """Everything the artefact was made from, by the name of its folder, in the order of making, itself last."""
    found: dict[str, Artefact] = {}
    for record in artefact.inputs.values():
        source = open_artefact(Path(artefact.folder, record["folder"]).resolve())
        found.update({name: stage for name, stage in stages_of(source).items() if name not in found})
    return {**found, artefact.folder.name: artefact}


def rows_of(experiment: str, seed: int, artefact: Artefact) -> Iterator[dict[str, Any]]:
    """The measures of every model, and the minutes of every stage."""
    made = {"experiment": experiment, "seed": seed, **made_by(artefact)}
    for path in data_set.parts_of(artefact.folder):
        for row in data_set.read_lines(path):
            numbers = {name: "nan" if row[name] is None else f"{row[name]:.6g}" for name in ("value", "low", "high")}
            yield {**made, "model": row["model"], "measure": row["measure"], **numbers}
    for stage in stages_of(artefact).values():
        if (work := work_in(stage.folder)) is not None:
            measure = PARTLY if work.n_unknown else MINUTES
            name = stage_name(stage, artefact)
            yield {
                **made,
                "model": name,
                "measure": measure,
                "value": f"{work.seconds / 60:.2f}",
                "low": "",
                "high": "",
            }


def stage_name(stage: Artefact, target: Artefact) -> str:
    """What a stage is called in the comparison `target`; else the role it has for a stage that is called something."""
    if stage.folder == target.folder:
        return "the comparison"
    names = {Path(target.folder, record["folder"]).resolve(): role for role, record in target.inputs.items()}
    if stage.folder.resolve() in names:
        return names[stage.folder.resolve()]
    for user in stages_of(target).values():
        for role, record in user.inputs.items():
            if Path(user.folder, record["folder"]).resolve() == stage.folder.resolve():
                return f"{stage_name(user, target)}: {role}"
    return stage.stage


def curve_of(experiment: str, seed: int, artefact: Artefact) -> Iterator[dict[str, Any]]:
    """Accuracy, length and mixing of languages of the rollouts over the steps of every RL stage."""
    for stage in stages_of(artefact).values():
        if stage.stage == "grpo":
            name = stage_name(stage, artefact)
            for point in rollout_means(stage, MEANS):
                yield {"experiment": experiment, "seed": seed, "stage": name, **point}


def render(rows: Sequence[Row]) -> str:
    """Markdown: the stages, the claims seed by seed, and the minutes."""
    by_seed: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in rows:  # a family's rows of a seed come after those of its R1 and are the same numbers
        by_seed[row["seed"]][row["model"], row["measure"]] = float(row["value"])
    seeds = sorted(by_seed, key=int)
    return "\n".join((_stages(by_seed, seeds), _claims(by_seed, seeds), _minutes(by_seed, seeds)))


def _stages(by_seed: Mapping[str, Values], seeds: Sequence[str]) -> str:
    models = list(dict.fromkeys(m for seed in seeds for m, measure in by_seed[seed] if measure in SHOWN))
    lines = [
        f"Held out; seeds {', '.join(seeds)}; mean [smallest, largest].",
        "",
        "| | " + " | ".join(models) + " |",
        "|---" * (len(models) + 1) + "|",
    ]
    for measure, words in SHOWN.items():
        digits = 1 if measure == "completion_tokens_mean" else 3
        values = {model: [v[model, measure] for v in by_seed.values() if (model, measure) in v] for model in models}
        if any(values.values()):
            lines.append(f"| {words} | " + " | ".join(spread(values[model], digits) for model in models) + " |")
    return "\n".join(lines) + "\n"


def _claims(by_seed: Mapping[str, Values], seeds: Sequence[str]) -> str:
    cells = {claim.words: [_verdict(claim, by_seed[seed]) for seed in seeds] for claim in CLAIMS}
    return table_of("claim", [f"seed {seed}" for seed in seeds], cells)


def _verdict(claim: Claim, values: Values) -> str:
    try:
        difference = claim.difference(values)
    except KeyError:
        return "not run"
    return verdict(difference, claim.holds(difference))


def _minutes(by_seed: Mapping[str, Values], seeds: Sequence[str]) -> str:
    names = list(dict.fromkeys(m for seed in seeds for m, measure in by_seed[seed] if measure in (MINUTES, PARTLY)))
    totals = [sum(v for (_, m), v in by_seed[seed].items() if m in (MINUTES, PARTLY)) for seed in seeds]
    cells = {name: [_time(name, by_seed[seed]) for seed in seeds] for name in names}
    cells["together"] = [f"{total:.1f}" for total in totals]
    return table_of("minutes", [f"seed {seed}" for seed in seeds], cells)


def _time(name: str, values: Values) -> str:
    if (name, MINUTES) in values:
        return f"{values[name, MINUTES]:.1f}"
    return f"over {values[name, PARTLY]:.1f}" if (name, PARTLY) in values else "-"


def levels_of(points: Sequence[Row], stage: str, seed: str, mean: str) -> dict[int, float]:
    """Step -> level. A family repeats the points of its R1's stages: each step has one level."""
    own = (point for point in points if (point["stage"], point["seed"]) == (stage, seed))
    return {int(point["step"]): float(point[mean]) for point in own}


def draw(points: Sequence[Row], path: Path) -> None:
    """Accuracy, length and mixing over the steps of the RL stages: a column per stage, a line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages = list(dict.fromkeys(point["stage"] for point in points))
    shape = (len(MEANS), max(1, len(stages)))
    figure, axes = pyplot.subplots(*shape, figsize=(3.2 * shape[1], 7), constrained_layout=True, squeeze=False)
    for column, stage in enumerate(stages):
        for line, mean in enumerate(MEANS):
            axis = axes[line][column]
            for seed in sorted({point["seed"] for point in points}, key=int):
                levels = levels_of(points, stage, seed, mean)
                axis.plot(list(levels), list(levels.values()), linewidth=1, label=f"seed {seed}")
            axis.set_title(f"{stage}: {mean.removesuffix('_mean').replace('_', ' ')}", fontsize=9)
            axis.set_xlabel("optimizer step")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def make(experiment: str, seed: int, root: Path) -> Made:
    """The rows and the curves of one run."""
    artefact, _ = train(overrides(experiment, seed), root)
    return Made(list(rows_of(experiment, seed, artefact)), list(curve_of(experiment, seed, artefact)))


def runs(options: Namespace) -> Iterator[tuple[str, int]]:
    """One experiment, seed by seed."""
    return ((options.experiment, seed) for seed in options.seeds)


def add_options(parser: ArgumentParser) -> None:
    """Which experiment runs."""
    parser.add_argument("--experiment", choices=EXPERIMENTS, default=EXPERIMENTS[0], help="with or without students")


RECIPE = Recipe(
    seeds=[0, 1, 2],
    key={"experiment": str, "seed": int},
    fields=FIELDS,
    runs=runs,
    overrides=overrides,
    make=make,
    table=render,
    curve_fields=CURVE_FIELDS,
    draw=draw,
    add_options=add_options,
)
