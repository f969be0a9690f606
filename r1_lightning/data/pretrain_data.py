"""Pre-training data: numbered documents of a problem source, tokenized and packed, one batch per optimizer step.

All rows are a function of (seed, document number), so nothing is stored: a resumed run makes the same rows again.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import lightning as L

from r1_lightning.data.step_loader import FromSeed, StepLoader
from r1_lightning.rollout.packing import PackedRows, cut_long
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require_int
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import TokenBatch
from r1_lightning.types.text import Need, ProblemSource

DOCUMENTS_PER_CALL = 2048  # tokenized at once, so that memory stays bounded and both cores tokenize
HELD_OUT_PER_CALL = 64  # of which few are needed
HELD_OUT_DOCUMENT = 2**40  # documents from this number on are held out: training never gets there


class PackedTextDataset(FromSeed):
    """Batches of `rows_per_batch` packed rows for steps 0 .. max_steps - 1: each process's share of them."""

    def __init__(
        self,
        source: ProblemSource,
        tokenizer: TextTokenizer,
        seed: int,
        row_tokens: int,
        rows_per_batch: int,
        max_steps: int,
        first_document: int = 0,
        processes: Processes = ONE,
    ) -> None:
        self.rows_per_batch = rows_per_batch
        self.processes = processes
        self.max_steps = max_steps
        n_rows = rows_per_batch * max_steps
        self.rows = _pack_enough(source, tokenizer, seed, row_tokens, n_rows, first_document, DOCUMENTS_PER_CALL)

    def __len__(self) -> int:
        return self.max_steps

    def __getitem__(self, step: int) -> TokenBatch:
        whole = self.rows.batch(slice(step * self.rows_per_batch, (step + 1) * self.rows_per_batch))
        return share_of_rows(whole, self.processes)


def _pack_enough(
    source: ProblemSource,
    tokenizer: TextTokenizer,
    seed: int,
    row_tokens: int,
    n_rows: int,
    first_document: int,
    per_call: int,
) -> PackedRows:
    """Pack documents, from number `first_document` on, `per_call` at a time, until they fill at least `n_rows` rows."""
    documents: list[list[int]] = []
    n_tokens, start = 0, first_document
    while n_tokens < n_rows * row_tokens:
        texts = list(source.documents(seed, start, per_call))
        if not texts:
            raise InvalidInput("task: the problem source has no pre-training documents")
        encoded = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]
        documents.extend(encoded)
        n_tokens += sum(map(len, encoded))
        start += len(texts)
    return PackedRows(cut_long(documents, row_tokens), row_tokens, tokenizer.pad_id)


class PretrainDataModule(L.LightningDataModule):
    """`row_tokens` x `rows_per_batch` tokens per optimizer step, from document number `first_document` on."""

    batch_type = TokenBatch
    needs: ClassVar[tuple[Need, ...]] = ("documents",)

    def __init__(
        self,
        source: ProblemSource,
        tokenizer: TextTokenizer,
        seed: int,
        max_steps: int,
        row_tokens: int = 96,
        rows_per_batch: int = 64,
        first_document: int = 0,
        processes: Processes = ONE,
    ) -> None:
        super().__init__()
        require_int("data.row_tokens", row_tokens, 2)
        require_int("data.rows_per_batch", rows_per_batch, 1)
        require_int("data.first_document", first_document, 0)
        self.row_tokens, self.rows_per_batch = row_tokens, rows_per_batch
        self.arguments = (source, tokenizer, seed, row_tokens, rows_per_batch, max_steps, first_document, processes)

    @cached_property
    def dataset(self) -> PackedTextDataset:
        return PackedTextDataset(*self.arguments)

    def train_dataloader(self) -> StepLoader:
        return StepLoader(self.dataset)

    def trained_rows(self) -> PackedRows:
        """The rows of all steps, in their order."""
        return self.dataset.rows.first(self.dataset.max_steps * self.rows_per_batch)

    def held_out_rows_of_text(self, count: int) -> PackedRows | None:
        """Return `count` rows of documents that are not trained on; None if the source has none of so high a number."""
        source, tokenizer, seed, row_tokens, *_ = self.arguments
        if not any(source.documents(seed, HELD_OUT_DOCUMENT, 1)):
            return None
        rows = _pack_enough(source, tokenizer, seed, row_tokens, count, HELD_OUT_DOCUMENT, HELD_OUT_PER_CALL)
        return rows.first(count)
