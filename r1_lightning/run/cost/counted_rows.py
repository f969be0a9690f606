"""The steps of data that are read or sampled as rows of their own: examples, a teacher's text, preferences.

The first micro-batches are made as a run makes them, and the largest counts. Of a large file only the first rows are read. If the
rows are not here (no file is named, or the stage that writes them has not run), every item is taken to fill a row.
"""

from __future__ import annotations

import io
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from itertools import islice
from statistics import mean
from typing import Any, cast

from torch import Tensor

from r1_lightning.data.chat_data import ChatDataModule
from r1_lightning.data.on_policy_data import OnPolicyDataModule
from r1_lightning.data.preference_data import PreferenceRowsDataModule
from r1_lightning.data.teacher_data import TeacherTracesDataModule
from r1_lightning.model.cost import MicroBatch
from r1_lightning.rollout.prompts import prompt_ids
from r1_lightning.run.cost.load import StepLoad, Wave
from r1_lightning.tasks.reading import Reading
from r1_lightning.types.text import ChatExample

ROWS_READ = 2_000  # of a file: enough for the largest of a step's batches, and read in seconds
STEPS_LOOKED_AT = 4
FULL_ROWS = "its rows are not here, so every item is taken to fill a row"


class RowData(ABC):
    """Base class: `items` items a step in `micro_batches` parts, packed in rows of `row_tokens`; `batches` are the first ones."""

    prompts: Sequence[Sequence[int]] = ()
    rows_per_item = 1

    def __init__(self, data: Any, is_here: bool = True) -> None:
        self.data, self.is_here = data, is_here
        with redirect_stdout(io.StringIO()):  # data modules say what they read, which is for a run
            self.batches = self.first_batches() if is_here else []

    @property
    def items(self) -> int:
        return int(self.data.items_per_batch)

    @property
    def assumption(self) -> str:
        return "" if self.batches else FULL_ROWS

    @abstractmethod
    def first_batches(self) -> list[Any]:
        """Return the micro-batches of the first steps."""

    def targets(self, batch: Any) -> int:
        """Return the number of tokens of a micro-batch with a loss."""
        return int(batch.tokens.token_ids.numel())

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        if not self.batches:
            rows = math.ceil(self.items / self.data.micro_batches) * self.rows_per_item
            return MicroBatch(rows, self.data.row_tokens, self._full_targets(rows), mtp_depth)
        largest = max(self.batches, key=lambda batch: batch.tokens.token_ids.numel())
        rows, length = largest.tokens.token_ids.shape
        return MicroBatch(rows, length, max(map(self.targets, self.batches)), mtp_depth)

    def _full_targets(self, rows: int) -> int:
        return rows * int(self.data.row_tokens)

    def load(self, new_tokens: float | None) -> StepLoad:
        parts = self.data.micro_batches
        if not self.batches:
            full = self.micro_batch(0)
            return StepLoad(parts * full.rows * full.row_tokens, parts * full.targets, full.row_tokens / 2)
        tokens = mean(float(batch.tokens.is_token.sum()) for batch in self.batches)
        targets = mean(float(self.targets(batch)) for batch in self.batches)
        seen: list[Tensor] = [batch.tokens.position_ids[batch.tokens.is_token].float().mean() for batch in self.batches]
        return StepLoad(parts * tokens, parts * targets, mean(map(float, seen)) + 1)

    def wave(self) -> Wave | None:
        return None


class FirstExamples:
    """The first `ROWS_READ` of a `ChatExamples`, from no cache; `is_whole` once it is known that there are no more."""

    key, size, reading = "", 0, Reading()

    def __init__(self, examples: Any) -> None:
        self.examples, self.is_whole = examples, False

    def stream(self) -> Iterator[ChatExample]:
        given = iter(self.examples.stream())
        yield from islice(given, ROWS_READ)
        self.is_whole = next(given, None) is None


class Examples(RowData):
    """Packed examples with their prompts: the loss is computed at every place."""

    data: ChatDataModule

    def __init__(self, data: ChatDataModule, is_here: bool = True) -> None:
        data.examples = self.given = cast(Any, FirstExamples(data.examples))
        super().__init__(data, is_here)

    @property
    def items(self) -> int:
        return self.data.examples_per_batch

    def steps(self) -> int | None:
        """Optimizer steps of all passes; None if not all of the rows were read."""
        return self.data.steps() if self.data.max_steps or self.given.is_whole else None

    def first_batches(self) -> list[Any]:
        dataset = self.data.train_dataloader().dataset
        looked_at = min(len(dataset), STEPS_LOOKED_AT * self.data.micro_batches)
        return [dataset[number] for number in range(looked_at)]


class TeachersText(RowData):
    """Documents or traces that a teacher scores."""

    data: TeacherTracesDataModule

    def first_batches(self) -> list[Any]:
        dataset = self.data.dataset_of(self.data.text())
        return [batch for step in range(min(STEPS_LOOKED_AT, self.data.max_steps)) for batch in dataset.batches(step)]

    def targets(self, batch: Any) -> int:
        return int(batch.target_mask.sum())


class StudentsText(TeachersText):
    """The student's own completions at a share of the steps, and text at the others."""

    data: OnPolicyDataModule

    def first_batches(self) -> list[Any]:
        self.prompts = self.data.prompts(0)
        return super().first_batches() if self.data.fraction < 1 else []

    @property
    def assumption(self) -> str:
        return ""

    @property
    def _longest(self) -> int:
        return max(map(len, self.prompts)) + self.data.rollout.max_new_tokens

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        """Return the larger of a micro-batch of text and one of completions at their limit, each behind the longest prompt."""
        per_row = max(1, self.data.row_tokens // self._longest)
        sampled = math.ceil(self.items / self.data.micro_batches)
        rows, new = math.ceil(sampled / per_row), self.data.rollout.max_new_tokens
        own = MicroBatch(rows, min(per_row, sampled) * self._longest, sampled * new, mtp_depth)
        text = [super().micro_batch(mtp_depth)] if self.batches else []
        return max([own, *text], key=lambda batch: batch.rows * batch.row_tokens)

    def load(self, new_tokens: float | None) -> StepLoad:
        new = self.data.rollout.max_new_tokens if new_tokens is None else new_tokens
        prompt = mean(map(len, self.prompts))
        length = prompt + new
        return StepLoad(self.items * length, self.items * new, length / 2, self.items, 1, prompt, new)

    def wave(self) -> Wave | None:
        rows = min(self.data.rollout.max_rows, self.items)
        return Wave(rows, rows, max(map(len, self.prompts)), self.data.rollout.max_new_tokens, self.items)


class Preferences(RowData):
    """Pairs or labelled responses. Whether their tokens have logits, or each response a score, is the stage's matter (`logits`)."""

    data: PreferenceRowsDataModule

    def first_batches(self) -> list[Any]:
        steps = min(STEPS_LOOKED_AT, self.data.max_steps)
        self.data.max_steps = steps
        self.data.setup("fit")
        dataset = self.data.train_dataloader().dataset
        return [dataset[number] for number in range(len(dataset))]

    def targets(self, batch: Any) -> int:
        return int(batch.completion_mask.sum())


class SampledPairs(Preferences):
    """Pairs of the model's own completions, sampled before training: two responses at their limit for each item."""

    rows_per_item = 2

    def first_batches(self) -> list[Any]:
        data: Any = self.data
        problems = [data.source.train_problem(data.seed, number) for number in range(data.items_per_batch)]
        self.prompts = prompt_ids(problems, data.tokenizer, data.template)
        return []

    @property
    def assumption(self) -> str:
        return ""

    @property
    def _new_tokens(self) -> int:
        data: Any = self.data
        return int(data.generate.config.max_new_tokens)

    def micro_batch(self, mtp_depth: int) -> MicroBatch:
        documents = 2 * math.ceil(self.items / self.data.micro_batches)
        longest = min(max(map(len, self.prompts)) + self._new_tokens + 1, self.data.row_tokens)  # 1: EOS
        per_row = self.data.row_tokens // longest
        rows = math.ceil(documents / per_row)
        return MicroBatch(rows, min(per_row, documents) * longest, documents * (self._new_tokens + 1), mtp_depth)

    def load(self, new_tokens: float | None) -> StepLoad:
        data: Any = self.data
        new = self._new_tokens if new_tokens is None else new_tokens
        prompt = mean(map(len, self.prompts))
        length = prompt + new
        return StepLoad(
            2 * self.items * length, 2 * self.items * new, length / 2, self.items, data.samples, prompt, new
        )

    def wave(self) -> Wave | None:
        data: Any = self.data
        drawn = data.max_steps * self.items * data.samples
        rows = min(data.generate.max_rows, drawn)
        return Wave(rows, math.ceil(rows / data.samples), max(map(len, self.prompts)), self._new_tokens, drawn)
