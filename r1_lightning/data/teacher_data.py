"""Distillation data: text that the teacher scores at every step (`data=teacher_traces`) or once, on disk (`data=teacher_cache`).

The text is the task's documents. If `traces` names a source, or the stage has an input `data` (a data set), it is questions with
completions, and the loss is on the completions. Step s takes the next `items_per_batch` items. All rows are a function of
(seed, step), so a resumed run makes the same rows again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from r1_lightning.artefacts.progress import progress
from r1_lightning.data.step_loader import FromSeed, StepLoader
from r1_lightning.rollout.distill_rows import DistillRow, collate_distill, document_rows, trace_rows
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.rollout.teacher import Teacher
from r1_lightning.rollout.teacher_cache import TeacherCache
from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.tasks.keyed import row_of_passes
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require, require_int, require_number
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import DistillBatch
from r1_lightning.types.text import Need, ProblemSource, Trace, TraceSource


class StepRows(NamedTuple):
    """The rows that one step trains on; `is_on_policy` is True if the student sampled them itself."""

    rows: Sequence[DistillRow]
    is_on_policy: bool = False


class Steps(Protocol):
    """A function from the step number to its rows, at least `items_per_batch` of them."""

    def __call__(self, step: int) -> StepRows: ...


class DocumentSteps:
    """Rows of the task's documents from number `first_document` on; documents longer than a row are cut into pieces."""

    def __init__(
        self,
        source: ProblemSource,
        tokenizer: TextTokenizer,
        seed: int,
        items_per_batch: int,
        row_tokens: int,
        first_document: int,
    ) -> None:
        self.source, self.tokenizer, self.seed = source, tokenizer, seed
        self.items_per_batch, self.row_tokens, self.first_document = items_per_batch, row_tokens, first_document

    def __call__(self, step: int) -> StepRows:
        start = self.first_document + step * self.items_per_batch
        texts = list(self.source.documents(self.seed, start, self.items_per_batch))
        if len(texts) < self.items_per_batch:
            raise InvalidInput(f"task: the problem source has no documents from number {start + len(texts)} on")
        return StepRows(document_rows(texts, self.tokenizer, self.row_tokens))


class TraceSteps:
    """Rows of traces, pass after pass, each pass in its own order, drawn from (seed, pass)."""

    def __init__(self, rows: Sequence[DistillRow], seed: int, items_per_batch: int) -> None:
        self.rows, self.seed, self.items_per_batch = rows, seed, items_per_batch

    def __call__(self, step: int) -> StepRows:
        places = range(step * self.items_per_batch, (step + 1) * self.items_per_batch)
        n_rows = len(self.rows)
        return StepRows([self.rows[row_of_passes(f"{self.seed}", place, n_rows, digest_size=64)] for place in places])


class DistillDataset(FromSeed):
    """The micro-batches of steps 0 .. max_steps - 1: number i is part i mod `micro_batches` of its step.

    `finish` is applied to each; it adds the teacher's log-probs from a cache. An item then holds this process's share of its rows.
    """

    def __init__(
        self,
        steps: Steps,
        max_steps: int,
        micro_batches: int,
        row_tokens: int,
        pad_id: int,
        finish: Callable[[DistillBatch], DistillBatch] = lambda batch: batch,
        processes: Processes = ONE,
    ) -> None:
        self.processes = processes
        self.steps, self.max_steps, self.micro_batches = steps, max_steps, micro_batches
        self.row_tokens, self.pad_id = row_tokens, pad_id
        self.finish = finish
        self.newest: tuple[int, list[DistillBatch]] | None = None

    def __len__(self) -> int:
        return self.max_steps * self.micro_batches

    def __getitem__(self, item: int) -> DistillBatch:
        step, part = divmod(item, self.micro_batches)
        if self.newest is None or self.newest[0] != step:  # the student samples its completions once per step
            self.newest = (step, self.batches(step))
        return share_of_rows(self.finish(self.newest[1][part]), self.processes)

    def batches(self, step: int) -> list[DistillBatch]:
        """All micro-batches of a step, without the teacher's log-probs."""
        rows, is_on_policy = self.steps(step)
        n_tokens = sum(row.n_targets for row in rows)
        parts = [rows[start :: self.micro_batches] for start in range(self.micro_batches)]
        return [collate_distill(part, self.row_tokens, self.pad_id, n_tokens, is_on_policy) for part in parts]


class TeacherTracesDataModule(L.LightningDataModule):
    """`items_per_batch` documents or traces per optimizer step, in `micro_batches` parts, packed in rows of `row_tokens`.

    The text comes from `traces`, else from the data set of the artefact in `data_folder`, else from the task's documents, beginning
    at number `first_document`. (`run` refuses `traces` beside a data set.) Traces longer than a row are left out and counted.
    """

    batch_type = DistillBatch
    needs: ClassVar[tuple[Need, ...]] = ("text",)

    def __init__(
        self,
        source: ProblemSource,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        seed: int,
        max_steps: int,
        traces: TraceSource | None = None,
        items_per_batch: int = 64,
        micro_batches: int = 1,
        row_tokens: int = 128,
        first_document: int = 0,
        data_folder: Path | None = None,
        processes: Processes = ONE,
    ) -> None:
        super().__init__()
        self.processes = processes
        require_int("data.items_per_batch", items_per_batch, 1)
        require_int("data.micro_batches", micro_batches, 1)
        allowed = f"it must be at most items_per_batch = {items_per_batch}"
        require(micro_batches <= items_per_batch, "data.micro_batches", micro_batches, allowed)
        require_int("data.row_tokens", row_tokens, 2)
        require_int("data.first_document", first_document, 0)
        self.source, self.tokenizer, self.template, self.seed = source, tokenizer, template, seed
        self.data_folder = data_folder
        self.max_steps, self.traces, self.first_document = max_steps, traces, first_document
        self.items_per_batch, self.micro_batches, self.row_tokens = items_per_batch, micro_batches, row_tokens
        self.dataset: DistillDataset | None = None

    def setup(self, stage: str) -> None:
        self.dataset = self.dataset_of(self.text())

    def dataset_of(self, steps: Steps) -> DistillDataset:
        sizes = (self.max_steps, self.micro_batches, self.row_tokens, self.tokenizer.pad_id)
        return DistillDataset(steps, *sizes, processes=self.processes)

    def text(self) -> Steps:
        """Return the text, not scored yet. InvalidInput if no trace fits into a row."""
        if self.traces is None and self.data_folder is None:
            sizes = (self.items_per_batch, self.row_tokens, self.first_document)
            return DocumentSteps(self.source, self.tokenizer, self.seed, *sizes)
        rows = trace_rows(self._traces(), self.tokenizer, self.template)
        kept = [row for row in rows if len(row.ids) <= self.row_tokens]
        longest = max(len(row.ids) for row in rows)
        allowed = f"no trace fits into a row; the longest takes {longest} tokens"
        require(bool(kept), "data.row_tokens", self.row_tokens, allowed)
        left_out = len(rows) - len(kept)
        rank_zero_only(print)(
            f"traces: {len(kept)}; left out: {left_out} (longer than row_tokens = {self.row_tokens})", flush=True
        )
        return TraceSteps(kept, self.seed, self.items_per_batch)

    def _traces(self) -> Sequence[Trace]:
        if self.traces is not None:
            return self.traces.traces()
        assert self.data_folder is not None, "without traces the text comes from data_folder"
        return [
            Trace(row.question, row.completion, row.earlier) for row in ChatExamples.of_folder(self.data_folder).read()
        ]

    def train_dataloader(self) -> StepLoader:
        assert self.dataset is not None, "setup comes first"
        return StepLoader(self.dataset)


class CachedTeacherDataModule(TeacherTracesDataModule):
    """`TeacherTracesDataModule` with a cache in `cache_folder`: the `top_k` likeliest tokens under `distill_temperature`.

    The cache is filled before training, after its size has been printed. Existing shards are reused; if all exist, the teacher is
    not even loaded.
    """

    def __init__(
        self,
        source: ProblemSource,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        teacher: Teacher,
        seed: int,
        max_steps: int,
        cache_folder: str,
        top_k: int,
        distill_temperature: float,
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
        require_int("data.top_k", top_k, 1)
        require_number("data.distill_temperature", distill_temperature, 0.0, open_minimum=True)
        self.teacher, self.folder, self.top_k = teacher, Path(cache_folder), top_k
        self.distill_temperature = distill_temperature

    def setup(self, stage: str) -> None:
        cache = TeacherCache(self.folder, self.teacher, self.top_k, self.distill_temperature)
        dataset = self.dataset_of(self.text())
        self._fill(cache, dataset)
        dataset.finish = cache.read
        self.dataset = dataset

    def _fill(self, cache: TeacherCache, dataset: DistillDataset) -> None:
        """Print the size of the cache, then write the missing shards, each process its share of them."""
        missing = self.processes.from_main(lambda: self._missing(cache, dataset))  # before anybody writes one
        own = set(self.processes.share(missing))
        batches = (batch for number, batch in enumerate(self._batches(dataset)) if number in own)
        if missing:
            with self.teacher.gathered(), progress(len(own), "asking the teacher", "shard") as bar:
                STOP.together(lambda: _write(cache, batches, bar.update), self.processes.any)
            self.teacher.release()

    def _missing(self, cache: TeacherCache, dataset: DistillDataset) -> list[int]:
        """Print the size of the cache and return the numbers of the missing shards, which count batches from 0."""
        shards, tokens, missing_tokens = 0, 0, 0
        missing: list[int] = []
        for batch in self._batches(dataset):
            count = int(batch.target_mask.sum())
            for _ in cache.missing([batch]):
                missing.append(shards)
                missing_tokens += count
            shards, tokens = shards + 1, tokens + count
        sizes = [cache.bytes_of(n) / 1e6 for n in (tokens, missing_tokens)]
        say = rank_zero_only(print)
        say(
            f"teacher cache: {tokens:,} tokens x {self.top_k} of {self.teacher.vocabulary:,}, {sizes[0]:,.1f} MB in {shards} "
            f"shards, of which {len(missing)} ({sizes[1]:,.1f} MB) are to be written to {self.folder}",
            flush=True,
        )
        return missing

    def _batches(self, dataset: DistillDataset) -> Iterator[DistillBatch]:
        return (batch for step in range(self.max_steps) for batch in dataset.batches(step))


def _write(cache: TeacherCache, batches: Iterable[DistillBatch], done: Callable[[], object]) -> None:
    for batch in cache.missing(batches):  # asked again: a batch may come twice
        STOP.poll()
        cache.write(batch)
        done()
