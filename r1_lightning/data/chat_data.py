"""SFT data: worked examples as token ids, a batch of whole documents per optimizer step.

A step takes the next `examples_per_batch` examples, pass after pass. Each pass has its own order, keyed by (seed, pass), so
batch number i is a function of (seed, i) and nothing has to be stored to resume. The documents of a batch are packed into
rows: none crosses a row's border, and positions and attention begin anew with each document.

The length of training is given in steps (`stage.max_steps`) or in passes (`epochs`); the last step of the last pass is filled up
from the next pass. The examples come from a file, the hub, or the stage's input `data`, an artefact that holds a data set.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, NoReturn

import lightning as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from r1_lightning.artefacts.progress import settings_for
from r1_lightning.data.step_loader import FromSeed, StepLoader
from r1_lightning.rollout.chat_rows import ChatRows, collate_chat
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.rollout.token_cache import Table, TokenCache, table_of
from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.tasks.keyed import row_of_passes
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import ChatBatch
from r1_lightning.types.text import ChatExample, Need

TOO_LONG = ("refuse", "drop")
SHOWN_AFTER_S = 5.0  # no progress bar for shorter work
LEAST_CACHED_BYTES = 1_000_000  # a smaller file is read and tokenised in a second


class ChatDataset(FromSeed):
    """Batches of `examples_per_batch` documents for steps 0 .. max_steps - 1, each in `micro_batches` equal parts.

    Of a part, an item holds this process's share of the packed rows.
    """

    def __init__(
        self,
        rows: ChatRows,
        seed: int,
        max_steps: int,
        examples_per_batch: int,
        micro_batches: int,
        row_tokens: int,
        pad_id: int,
        chosen: Sequence[int] | None = None,
        processes: Processes = ONE,
    ) -> None:
        self.processes = processes
        self.rows = rows
        self.chosen = range(len(rows)) if chosen is None else chosen  # the numbers of the rows to train on
        self.seed = seed
        self.examples_per_batch, self.micro_batches = examples_per_batch, micro_batches
        self.length = max_steps * micro_batches
        self.row_tokens, self.pad_id = row_tokens, pad_id

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, item: int) -> ChatBatch:
        step, part = divmod(item, self.micro_batches)
        first, size = step * self.examples_per_batch, self.examples_per_batch // self.micro_batches
        chosen = [self.rows[self.row_of(place)] for place in range(first, first + self.examples_per_batch)]
        parts = [chosen[start : start + size] for start in range(0, self.examples_per_batch, size)]
        return share_of_rows(collate_chat(parts, part, self.row_tokens, self.pad_id), self.processes)

    def row_of(self, place: int) -> int:
        """Return the number of the row at `place` in the endless sequence of passes."""
        return self.chosen[row_of_passes(f"chat/{self.seed}", place, len(self.chosen), digest_size=64)]


class ChatDataModule(L.LightningDataModule):
    """Serves `examples`, or those of the artefact in `data_folder`, in the form of `template`.

    `row_tokens` is the width of a packed row; a longer prompt with completion is refused, or with `too_long: drop` left out and
    counted. A batch has `micro_batches` parts. `max_steps` None trains for `epochs` passes. Token ids of large files are kept in
    `token_cache`. `validation_rows` of the rows, drawn by the seed, are held out for `val/loss`.

    Raises InvalidInput for bad settings; in `setup` for broken data, and if no example is left.
    """

    batch_type = ChatBatch
    needs: ClassVar[tuple[Need, ...]] = ("examples",)

    def __init__(
        self,
        examples: ChatExamples,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        seed: int,
        max_steps: int | None,
        data_folder: Path | None = None,
        epochs: int | None = None,
        examples_per_batch: int = 32,
        micro_batches: int = 1,
        row_tokens: int = 256,
        too_long: str = "refuse",
        token_cache: Path | None = None,
        validation_rows: int = 0,
        processes: Processes = ONE,
    ) -> None:
        super().__init__()
        self.processes = processes
        require_int("data.examples_per_batch", examples_per_batch, 1)
        require_int("data.micro_batches", micro_batches, 1)
        divides = examples_per_batch % micro_batches == 0
        require(
            divides, "data.micro_batches", micro_batches, f"it must divide examples_per_batch = {examples_per_batch}"
        )
        require_int("data.row_tokens", row_tokens, 2)
        require_choice("data.too_long", too_long, TOO_LONG)
        require_int("data.validation_rows", validation_rows, 0)
        self.validation_rows = validation_rows
        if epochs is not None:
            require_int("data.epochs", epochs, 1)
        require(
            max_steps is not None or epochs is not None, "data.epochs", epochs, "it is needed without stage.max_steps"
        )
        self.examples = examples if data_folder is None else ChatExamples.of_folder(data_folder)
        self.tokenizer, self.template, self.seed = tokenizer, template, seed
        self.max_steps, self.epochs = max_steps, epochs
        self.examples_per_batch, self.micro_batches = examples_per_batch, micro_batches
        self.row_tokens, self.too_long = row_tokens, too_long
        self.token_cache = token_cache
        self.rows: ChatRows | None = None

    def setup(self, stage: str) -> None:
        self._kept_rows()

    def steps(self) -> int:
        """Number of optimizer steps: `max_steps`, or as many as `epochs` passes need, which reads the data."""
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None, "checked at construction"
        return math.ceil(self.epochs * len(self._chosen()[0]) / self.examples_per_batch)

    def train_dataloader(self) -> StepLoader:
        sizes = (self.examples_per_batch, self.micro_batches, self.row_tokens, self.tokenizer.pad_id)
        given = (self._kept_rows(), self.seed, self.steps(), *sizes, self._chosen()[0], self.processes)
        return StepLoader(ChatDataset(*given))

    def validation_batches(self) -> list[ChatBatch]:
        """The held-out rows, in batches of the size of a micro-batch."""
        rows, (_, held_out) = self._kept_rows(), self._chosen()
        size = self.examples_per_batch // self.micro_batches
        parts = [[rows[number] for number in held_out[start : start + size]] for start in range(0, len(held_out), size)]
        return [collate_chat([part], 0, self.row_tokens, self.tokenizer.pad_id) for part in parts]

    def _chosen(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the numbers of the training rows, in the order of the data, and of the held-out rows."""
        count, wanted = len(self._kept_rows()), self.validation_rows
        if not wanted:
            return range(count), ()
        require(wanted < count, "data.validation_rows", wanted, f"fewer than the {count} examples there are")
        held_out = [row_of_passes(f"validation/{self.seed}", place, count, digest_size=64) for place in range(wanted)]
        left_out = set(held_out)
        return [number for number in range(count) if number not in left_out], held_out

    def _kept_rows(self) -> ChatRows:
        """The examples as token ids, without those that are too long; reads the data and prints the counts once."""
        if self.rows is None:
            table = self._table()
            fits = table.lengths <= self.row_tokens
            dropped = int((~fits).sum())
            if dropped and self.too_long == "refuse":
                self._refuse_long(int(np.argmin(fits)), table)
            require(bool(fits.any()), "data.row_tokens", self.row_tokens, f"all {len(fits)} examples are longer")
            self.rows = table.rows.only(np.flatnonzero(fits))
            left_out = f"{dropped} (longer than row_tokens = {self.row_tokens})" if dropped else "none"
            text = describe(self.rows, table, self.template)
            reading = f"; {table.reading}" if table.reading else ""
            rank_zero_only(print)(f"examples: {text}; left out: {left_out}{reading}", flush=True)
        return self.rows

    def _table(self) -> Table:
        """All examples as token ids: from the cache if they are there; small files are not cached."""
        source = self.examples.key
        if self.token_cache is None or not source or self.examples.size < LEAST_CACHED_BYTES:
            table = table_of(self._stream(), self.tokenizer, self.template)
            return replace(table, reading=self.examples.reading.text())
        cache = TokenCache(self.token_cache)
        path = cache.path(source, f"{self.tokenizer.digest()} {self.template!r}")
        found = cache.read(path, self.tokenizer.vocab_size)
        if found is None:
            cache.write(path, self._stream(), self.tokenizer, self.template, lambda: self.examples.reading.text())
            found = cache.read(path, self.tokenizer.vocab_size)
        assert found is not None, "it was written just now"
        return found

    def _stream(self) -> Iterable[ChatExample]:
        """The examples, with a progress bar if reading takes long."""
        settings = {**settings_for(sys.stderr), "bar_format": None}  # the number of examples is not known yet
        return tqdm(self.examples.stream(), desc="reading examples", unit="row", delay=SHOWN_AFTER_S, **settings)

    def _refuse_long(self, number: int, table: Table) -> NoReturn:
        example = next(islice(self.examples.stream(), number, None))
        raise InvalidInput(
            f"{example.where}: {table.lengths[number]} tokens with the prompt are not allowed: a row has data.row_tokens="
            f"{self.row_tokens} (data.too_long=drop leaves such examples out)"
        )


def describe(rows: ChatRows, table: Table, template: ChatTemplate) -> str:
    """Return a line with the examples' number, domains and mean lengths, and the number in the template's form."""
    formed, systems, kinds = (table.columns[name][rows.chosen] for name in ("formed", "system", "domain"))
    prompts = rows.prompt_tokens
    text = (
        f"{len(rows)}, {int(formed.sum())} of them in the form {template.form}; prompts of {prompts / len(rows):.1f} tokens on "
        f"average, completions of {(rows.tokens - prompts) / len(rows):.1f}"
    )
    counts = {name: int((kinds == number).sum()) for number, name in enumerate(table.domains)}
    if any(counts.values()):
        text += f"; domains {', '.join(f'{name} {count}' for name, count in sorted(counts.items()) if count)}"
    if with_system := int(systems.sum()):
        text += f"; {with_system} with a system message"
    return text
