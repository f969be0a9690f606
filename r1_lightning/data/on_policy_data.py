"""On-policy distillation data: completions that the student samples (GKD, Agarwal et al. 2023, arXiv:2306.13649, Algorithm 1).

With probability `on_policy_fraction` (their lambda), drawn from (seed, step), a step learns from one completion of the student to
each of the next `items_per_batch` problems; otherwise from given text, as in `data.teacher_data`. No gradient flows through
sampling. The student samples its completions at the very step that learns from them, with its current weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from lightning.pytorch.utilities import rank_zero_only

from r1_lightning.data.teacher_data import StepRows, Steps, TeacherTracesDataModule
from r1_lightning.rollout.distill_rows import DistillRow
from r1_lightning.rollout.groups import RolloutConfig, rollout_keys
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.rollout.room import PromptRoom
from r1_lightning.tasks.keyed import keyed_random
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import GenerateFn
from r1_lightning.types.text import Need, Problem, ProblemSource, TraceSource


class OnPolicySteps:
    """Rows of the student's completions at a random share of the steps, and of `text` at the others.

    Each process samples its share of a step's prompts; all get all rows.
    """

    def __init__(
        self,
        text: Steps,
        prompts: Callable[[int], list[list[int]]],
        generate: GenerateFn,
        seed: int,
        fraction: float,
        optimizer_steps: Callable[[], int],
        processes: Processes = ONE,
    ) -> None:
        self.text, self.prompts, self.generate = text, prompts, generate
        self.seed, self.fraction = seed, fraction
        self.optimizer_steps, self.processes = optimizer_steps, processes

    def is_on_policy(self, step: int) -> bool:
        return keyed_random("on-policy", self.seed, step).random() < self.fraction

    def __call__(self, step: int) -> StepRows:
        if not self.is_on_policy(step):
            return self.text(step)
        taken = self.optimizer_steps()
        if taken != step:
            raise RuntimeError(f"text for step {step} asked for after {taken} optimizer steps: it would be stale")
        prompts = self.prompts(step)
        own = self.processes.share(range(len(prompts)))
        keys = rollout_keys(step, len(prompts), 1)[list(own)]
        work = partial(self.generate, [prompts[place] for place in own], 1, keys)
        generation = STOP.together(work, self.processes.any)
        lengths = generation.completion_mask.sum(1).tolist()
        share = [row[:length] for row, length in zip(generation.completion_ids.tolist(), lengths, strict=True)]
        completions = self.processes.gather(share)
        rows = [DistillRow((*p, *c), len(p)) for p, c in zip(prompts, completions, strict=True)]
        return StepRows(rows, is_on_policy=True)


class OnPolicyDataModule(TeacherTracesDataModule):
    """`TeacherTracesDataModule` with a share of the student's own completions, sampled with the settings of `rollout`."""

    needs: ClassVar[tuple[Need, ...]] = ("problems", "text")

    def __init__(
        self,
        source: ProblemSource,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        generate: GenerateFn,
        rollout: RolloutConfig,
        seed: int,
        max_steps: int,
        on_policy_fraction: float = 1.0,
        traces: TraceSource | None = None,
        items_per_batch: int = 64,
        micro_batches: int = 1,
        row_tokens: int = 128,
        first_document: int = 0,
        data_folder: Path | None = None,
        processes: Processes = ONE,
    ) -> None:
        sizes = (items_per_batch, micro_batches, row_tokens, first_document, data_folder, processes)
        super().__init__(source, tokenizer, template, seed, max_steps, traces, *sizes)
        require_number("data.on_policy_fraction", on_policy_fraction, 0.0, 1.0)
        self.generate, self.rollout, self.fraction = generate, rollout, on_policy_fraction

    @cached_property
    def room(self) -> PromptRoom:
        """The check that a prompt leaves room for an answer in its row."""
        limits = ("data.row_tokens", self.row_tokens, self.rollout.max_new_tokens)
        return PromptRoom(self.tokenizer, self.template, *limits)

    def setup(self, stage: str) -> None:
        given = (self.text(), self.prompts, self.generate, self.seed, self.fraction, self._optimizer_steps)
        steps = OnPolicySteps(*given, self.processes)
        self._check_prompts([step for step in range(self.max_steps) if steps.is_on_policy(step)])
        self.dataset = self.dataset_of(steps)

    def prompts(self, step: int) -> list[list[int]]:
        """The prompts of a step's problems, as token ids."""
        return prompt_ids(self.problems(step), self.tokenizer, self.template)

    def problems(self, step: int) -> list[Problem]:
        """The step's `items_per_batch` problems of the training stream, each with room for an answer (`rollout/room.py`)."""
        places = range(step * self.items_per_batch, (step + 1) * self.items_per_batch)
        return self.room.problems(self.source, self.seed, places)

    def _check_prompts(self, steps: Sequence[int]) -> None:
        """Check all prompts before sampling and print how many leave no room. InvalidInput if most of them do not."""
        for step in steps:
            self.problems(step)
        said = self.room.check(self.source) if steps else ""
        if said:
            rank_zero_only(print)(said, flush=True)

    def _optimizer_steps(self) -> int:
        assert self.trainer is not None, "the data module is not attached to a Trainer yet"
        return self.trainer.global_step
