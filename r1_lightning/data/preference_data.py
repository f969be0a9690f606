"""Data of reward models and DPO: preferences as token ids, filtered with counts of the dropped items, ordered by (seed, pass).

An item is dropped if it is longer than a row (R1v2 section 3.1 trains with at most 8,192 tokens), if a response lacks the part
to be scored, if a judge's scores differ by no more than `min_score_gap`, and, with `max_length_ratio`, if one response of a pair is
much longer than the other: the paper keeps the lengths of chosen and rejected responses comparable, so that the model does not
learn length. The mean lengths are printed and stand in the artefact's table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from r1_lightning.data.step_loader import FromSeed, StepLoader
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.judged_preferences import JudgedPreferences
from r1_lightning.rollout.pair_judge import JudgingModel, PairJudge
from r1_lightning.rollout.preference_rows import (
    COMPLETION,
    TRAINED_PARTS,
    PreferenceRow,
    collate_share,
    preference_rows,
)
from r1_lightning.rollout.sampled_preferences import SampledPreferences
from r1_lightning.tasks.keyed import row_of_passes
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int, require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import GenerateFn, PreferenceBatch
from r1_lightning.types.text import Need, Preference, PreferenceItem, PreferenceSource, ProblemSource

SHOWN_CHARS = 60  # of a question in an error line
Kept = tuple[list[PreferenceRow], Counter[str]]  # rows, and the number of dropped items by reason


class PreferenceDataset(FromSeed):
    """Batches of `items_per_batch` items for steps 0 .. max_steps - 1, each in `micro_batches` equal parts.

    A step takes the next items, pass after pass; each pass has its own order. Of a part, an item of the data set holds this
    process's share.
    """

    def __init__(
        self,
        rows: Sequence[PreferenceRow],
        seed: int,
        max_steps: int,
        items_per_batch: int,
        micro_batches: int,
        row_tokens: int,
        pad_id: int,
        processes: Processes = ONE,
    ) -> None:
        self.rows = rows
        self.processes = processes
        self.seed = seed
        self.length = max_steps * micro_batches
        self.items = items_per_batch // micro_batches
        self.row_tokens, self.pad_id = row_tokens, pad_id

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> PreferenceBatch:
        places = range(item * self.items, (item + 1) * self.items)
        rows = [self.rows[self.row_of(place)] for place in places]
        return collate_share(rows, self.processes, self.row_tokens, self.pad_id)

    def row_of(self, place: int) -> int:
        """Return the number of the row at `place` in the endless sequence of passes."""
        return row_of_passes(f"{self.seed}", place, len(self.rows), digest_size=64)


@dataclass(kw_only=True, eq=False, repr=False)
class PreferenceRowsDataModule(L.LightningDataModule):
    """Base class of all preference data; a subclass provides `preferences`.

    The model scores the `part` of each response (see `text.response_parts`), or learns all of it ("completion"). `row_tokens` is
    the width of a packed row and limits a prompt with its response; a batch of `items_per_batch` items has `micro_batches` parts.
    """

    batch_type: ClassVar[type] = PreferenceBatch

    tokenizer: TextTokenizer
    template: ChatTemplate
    seed: int
    max_steps: int
    part: str = "summary"
    items_per_batch: int = 32
    micro_batches: int = 1
    row_tokens: int = 128
    max_length_ratio: float | None = None
    processes: Processes = ONE
    min_score_gap: float = field(
        init=False, default=1.0
    )  # of pairs with a judge's scores: settable where there may be any
    preferences: PreferenceSource = field(init=False)
    dataset: PreferenceDataset | None = field(init=False, default=None)
    first_too_long: str = field(init=False, default="")

    def __post_init__(self) -> None:
        super().__init__()
        require_choice("data.part", self.part, TRAINED_PARTS)
        require_int("data.items_per_batch", self.items_per_batch, 1)
        require_int("data.micro_batches", self.micro_batches, 1)
        divides = self.items_per_batch % self.micro_batches == 0
        allowed = f"it must divide items_per_batch = {self.items_per_batch}"
        require(divides, "data.micro_batches", self.micro_batches, allowed)
        require_int("data.row_tokens", self.row_tokens, 2)
        require_number("data.min_score_gap", self.min_score_gap, 0.0)
        if self.max_length_ratio is not None:
            require_number("data.max_length_ratio", self.max_length_ratio, 1.0)

    def setup(self, stage: str) -> None:
        items = self.preferences.training_items(self.seed, self.max_steps * self.items_per_batch)
        rows, left_out = self.keep(items)
        first = f"; the first that is too long: {self.first_too_long}" if self.first_too_long else ""
        rank_zero_only(print)(f"preferences: {describe(rows, left_out)}{first}", flush=True)
        sizes = (self.items_per_batch, self.micro_batches, self.row_tokens, self.tokenizer.pad_id)
        self.dataset = PreferenceDataset(rows, self.seed, self.max_steps, *sizes, self.processes)

    def train_dataloader(self) -> StepLoader:
        assert self.dataset is not None, "setup comes first"
        return StepLoader(self.dataset)

    def held_out_rows(self, count: int) -> list[PreferenceRow]:
        """Held-out items as rows, filtered like training items. Call it before training: a model's own samples change with it."""
        return self.keep(self.preferences.held_out_items(count))[0]

    def keep(self, items: Sequence[PreferenceItem]) -> Kept:
        """Return the usable items as rows, with the counts of the dropped ones. InvalidInput if none is left."""
        left_out: Counter[str] = Counter()
        rows = []
        for item, row in zip(items, preference_rows(items, self.tokenizer, self.template, self.part), strict=True):
            reason = self._reason(item, row)
            if reason:
                left_out[reason] += 1
                if row is not None and row.longest > self.row_tokens and not self.first_too_long:
                    self.first_too_long = f"{item.question[:SHOWN_CHARS]!r}, {row.longest} tokens"
            elif row is not None:
                rows.append(row)
        if not rows:
            raise InvalidInput(f"data: no preference can be used; left out: {_counts(left_out)}")
        return rows, left_out

    def _reason(self, item: PreferenceItem, row: PreferenceRow | None) -> str:
        """Return the reason to drop an item; empty if it is kept."""
        if row is None:
            return f"a response without a {self.part}" if self.part == "summary" else "a response without text"
        if row.longest > self.row_tokens:
            return f"longer than row_tokens = {self.row_tokens}"
        if isinstance(item, Preference):
            if item.score_gap is not None and not item.score_gap > self.min_score_gap:
                return f"the judge's scores differ by no more than {self.min_score_gap:g}"
            lengths = [len(document) for document in row.documents]
            if self.max_length_ratio is not None and max(lengths) > self.max_length_ratio * min(lengths):
                return "one response is much longer than the other"
        return ""


def describe(rows: Sequence[PreferenceRow], left_out: Counter[str]) -> str:
    """Return a line with the number of items, the mean lengths of good and other responses (tokens with prompt), and the drops."""
    lengths: dict[float, list[int]] = {1.0: [], 0.0: []}
    for row in rows:
        for document, label in zip(row.documents, row.labels, strict=True):
            lengths[label].append(len(document))
    means = [f"{sum(found) / len(found):.1f}" if found else "-" for found in lengths.values()]
    kind = "pairs" if len(rows[0].documents) == 2 else "responses"
    return f"{len(rows)} {kind}, good ones {means[0]} tokens long, others {means[1]}; left out: {_counts(left_out)}"


def _counts(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} ({reason})" for reason, count in sorted(left_out.items())) or "none"


@dataclass(kw_only=True, eq=False, repr=False)
class PreferenceDataModule(PreferenceRowsDataModule):
    """Serves the items of a given source of preferences."""

    preferences: PreferenceSource
    min_score_gap: float = 1.0


@dataclass(kw_only=True, eq=False, repr=False)
class SampledPreferenceDataModule(PreferenceRowsDataModule):
    """Pairs of the model's own completions (`rollout.sampled_preferences`), `samples` of each problem.

    The stage's initial weights sample them, also when the stage resumes.
    """

    content_version: ClassVar[str] = SampledPreferences.content_version
    needs: ClassVar[tuple[Need, ...]] = ("problems",)

    source: ProblemSource
    generate: GenerateFn
    reward: WeightedSum
    samples: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("data.samples", self.samples, 2)
        given = (self.source, self.generate, self.tokenizer, self.template, self.reward, self.samples, self.processes)
        self.preferences = SampledPreferences(*given)


@dataclass(kw_only=True, eq=False, repr=False)
class JudgedPreferenceDataModule(PreferenceRowsDataModule):
    """Pairs that another model, `judge`, compares (`rollout.judged_preferences`): R1's helpful data.

    The judge takes `judge_calls` calls per pair with at most `judge_new_tokens` each. If the stage resumes, its initial weights
    sample, and the judge judges, all pairs again.
    """

    content_version: ClassVar[str] = JudgedPreferences.content_version
    needs: ClassVar[tuple[Need, ...]] = ("problems",)

    source: ProblemSource
    generate: GenerateFn
    judge: JudgingModel
    samples: int = 2
    judge_calls: int = 4
    judge_new_tokens: int = 512
    min_score_gap: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_int("data.samples", self.samples, 2)
        asked = PairJudge(self.judge, self.judge_calls, self.judge_new_tokens)
        shown = "whole" if self.part == COMPLETION else self.part
        given = (self.source, self.generate, self.tokenizer, self.template, asked, self.samples, shown)
        self.preferences = self.judged = JudgedPreferences(*given, self.min_score_gap, self.processes)

    def keep(self, items: Sequence[PreferenceItem]) -> Kept:
        """As in the base class; first prints how many pairs the judge dropped and why."""
        rank_zero_only(print)(f"judge: {len(items)} pairs; {self.judged.account()}", flush=True)
        return super().keep(items)
