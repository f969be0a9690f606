"""Evaluation: samples k completions per held-out problem, measures them, and renders models side by side in a table.

Processes evaluate together: each samples and grades its share of the problems, and every one of them gets all measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from r1_lightning.evaluation.kept import Kept, Sampled
from r1_lightning.evaluation.metrics import Measure, measure_samples
from r1_lightning.rewards.format import FormatReward
from r1_lightning.rollout.groups import own_rows, rollout_keys
from r1_lightning.rollout.native_sampler import NativeSampler
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.sampler import SamplerSettings, SamplingConfig
from r1_lightning.rollout.shared_sampling import sample_together
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require_int, require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import Backbone, GenerateFn
from r1_lightning.types.text import Completion, Problem, RewardFunction

# The rollout number in the random keys of evaluation samples; no training rollout has it, so the draws are independent.
EVALUATION_ROLLOUT = 2**31


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings: `samples` completions for each of `problems` held-out problems, drawn with the sampling settings below."""

    problems: int = 500
    samples: int = 16
    sampling_temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 64
    max_rows: int = 1024

    def __post_init__(self) -> None:
        require_int("stage.evaluation.problems", self.problems, 1)
        require_int("stage.evaluation.samples", self.samples, 1)
        require_int("stage.evaluation.max_rows", self.max_rows, 1)
        require_number("stage.evaluation.sampling_temperature", self.sampling_temperature, 0.0, open_minimum=True)
        require_number("stage.evaluation.top_p", self.top_p, 0.0, 1.0, open_minimum=True)
        require_int("stage.evaluation.max_new_tokens", self.max_new_tokens, 1)

    @property
    def sampling(self) -> SamplingConfig:
        return SamplingConfig(self.sampling_temperature, self.top_p, self.max_new_tokens)


@dataclass(frozen=True)
class Evaluator:
    """Measures any backbone on the same problems with the same random numbers.

    `forced_prefix` follows every prompt and counts as part of the completion: " <think></think><answer>" forces an empty think,
    which shows how much the model knows without reasoning. `accuracy` judges answers; None is the exact rule. `kept` gets samples
    to write down.
    """

    problems: Sequence[Problem]
    tokenizer: TextTokenizer
    template: ChatTemplate
    config: EvaluationConfig
    seed: int
    forced_prefix: str = ""
    accuracy: RewardFunction | None = None
    processes: Processes = ONE
    kept: Kept | None = None

    def prompts(self) -> list[list[int]]:
        """Return the prompts as token ids, forced prefix included."""
        return prompt_ids(self.problems, self.tokenizer, self.template, self.forced_prefix)

    def completions(
        self,
        backbone: Backbone,
        progress: Callable[[int], None] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[list[Completion]]:
        """Sample `samples` completions for each problem, or for those of `numbers`, which get the draws that they get among all.

        `progress` is called with the size of each finished batch. Of several processes, each takes its own batches for those of
        all, which advance with it.
        """
        config, tokenizer = self.config, self.tokenizer
        ids = (tokenizer.eos_ids, tokenizer.pad_id)
        sampler = NativeSampler(backbone, SamplerSettings(config.sampling, *ids, self.seed, config.max_rows))
        chosen = range(len(self.problems)) if numbers is None else numbers
        prompts = replace(self, problems=[self.problems[number] for number in chosen]).prompts()
        keys = rollout_keys(EVALUATION_ROLLOUT, len(self.problems), config.samples)[own_rows(chosen, config.samples)]
        told = None if progress is None else lambda rows: progress(rows * self.processes.count)
        generate: GenerateFn = partial(sampler, progress=told)
        drawn = sample_together(generate, self.processes, prompts, config.samples, keys, tokenizer)
        flat = [replace(completion, text=self.forced_prefix + completion.text) for completion in drawn]
        return [flat[start : start + config.samples] for start in range(0, len(flat), config.samples)]

    def __call__(self, backbone: Backbone, progress: Callable[[int], None] | None = None) -> dict[str, Measure]:
        """Return the measures by name (see `evaluation.metrics`)."""
        completions = self.completions(backbone, progress)
        rules = (bool(self.forced_prefix), self.accuracy, self.template.form)
        see = None if self.kept is None else partial(self._keep, self.kept)
        return measure_samples(self.problems, completions, *rules, self.processes, see)

    def _keep(self, kept: Kept, judged: Sequence[tuple[int, Sampled]]) -> None:
        """Hand over the samples of the problems that are kept, of all processes; the main one writes."""
        chosen = kept.records.chosen(len(self.problems))
        found = dict(self.processes.gather([(number, of) for number, of in judged if number in chosen]))
        if not self.processes.is_main or not found:
            return
        prompts = replace(self, problems=[self.problems[number] for number in chosen]).prompts()
        texts = self.tokenizer.decode_batch(prompts, skip_special=False)
        form = FormatReward(allow_empty_think=bool(self.forced_prefix), form=self.template.form)
        kept.write([(number, text, found[number]) for number, text in zip(chosen, texts, strict=True)], form)


# Explanations printed below the table, for measures whose names do not explain themselves.
MEANINGS = {
    "pass_at_1": "share of samples that are right, in the form asked for; lenient: the right answer at the end, in any form; "
    "pass_at_k: the chance that at least one of k samples is right",
    "language_consistency": "share of the thinking's words that are in the question's language; 1 where it has none (wordless)",
    "pair_accuracy": "share of pairs whose better response has the higher score (a tie counts half); 0.5 is chance",
    "margin": "mean difference of their scores, in nats of the odds that it is preferred",
    "cons_at_": "share of problems whose most frequent answer is right, any form counted; programs vote by their "
    "outputs where samples are written down, and are left out elsewhere",
}


def render_table(title: str, columns: Mapping[str, Mapping[str, Measure]]) -> str:
    """Return a table with a line per measure and a column per model, each value with its 95 % interval."""
    names = list(next(iter(columns.values())))
    cells = [["", *columns]]
    cells += [[name, *(_cell(measures[name]) for measures in columns.values())] for name in names]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    legend = [f"{name}: {meaning}" for name, meaning in MEANINGS.items() if any(n.startswith(name) for n in names)]
    return "\n".join([title, *lines, "", *legend])


def _cell(measure: Measure) -> str:
    digits = 1 if measure.value > 1.5 else 3  # lengths in tokens, or shares in 0..1
    low, high = measure.interval.low, measure.interval.high
    return f"{measure.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
