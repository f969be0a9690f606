"""Data of supervised fine-tuning: worked examples as token ids, a batch of whole documents per optimizer step.

A step takes the next `examples_per_batch` examples of pass after pass; each pass has an order of its own, keyed by (seed, pass), so
that batch number i is a function of (seed, i) and nothing has to be stored to resume. The documents of a batch are packed into
rows: none crosses a row's border, positions and attention begin anew with each.

How long it takes is said in steps (`stage.max_steps`) or in passes (`epochs`); the last step of the last pass is filled up from the
next one. The examples come from a file, the hub, or the stage's input `data`, an artefact that holds a data set.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.utilities import rank_zero_only

from r1_lightning.data.step_loader import FromSeed, StepLoader
from r1_lightning.rollout.chat_rows import ChatRow, ChatRows, chat_rows, collate_chat
from r1_lightning.tasks.chat_examples import ChatExamples
from r1_lightning.tasks.keyed import row_of_passes
from r1_lightning.tasks.turns import SYSTEM
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.reasoning_format import FORMS
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import InvalidInput, require, require_choice, require_int
from r1_lightning.types.tensors import ChatBatch
from r1_lightning.types.text import ChatExample

TOO_LONG = ("refuse", "drop")
DOCUMENTS_PER_CALL = 2048  # tokenized at once


class ChatDataset(FromSeed):
    """Batches of `examples_per_batch` documents for steps 0 .. max_steps - 1, each in `micro_batches` equal parts."""

    def __init__(
        self,
        rows: ChatRows,
        seed: int,
        max_steps: int,
        examples_per_batch: int,
        micro_batches: int,
        row_tokens: int,
        pad_id: int,
    ) -> None:
        self.rows = rows
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
        return collate_chat(parts, part, self.row_tokens, self.pad_id)

    def row_of(self, place: int) -> int:
        """Which row comes as number `place` of the endless sequence of passes."""
        return row_of_passes(f"chat/{self.seed}", place, len(self.rows), digest_size=64)


class ChatDataModule(L.LightningDataModule):
    """Serves `examples` in the form of `template`, or those of the artefact in `data_folder`.

    `row_tokens` is the longest prompt with its completion, and the width of a packed row; a longer one is refused, or with
    `too_long: drop` left out and counted. `micro_batches` parts make a batch. `max_steps` None is `epochs` passes.

    Raises InvalidInput for bad settings; in `setup` for data that are broken, and where nothing is left.
    """

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
    ) -> None:
        super().__init__()
        require_int("data.examples_per_batch", examples_per_batch, 1)
        require_int("data.micro_batches", micro_batches, 1)
        divides = examples_per_batch % micro_batches == 0
        require(
            divides, "data.micro_batches", micro_batches, f"it must divide examples_per_batch = {examples_per_batch}"
        )
        require_int("data.row_tokens", row_tokens, 2)
        require_choice("data.too_long", too_long, TOO_LONG)
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
        self.rows: ChatRows | None = None

    def setup(self, stage: str) -> None:
        self._kept_rows()

    def steps(self) -> int:
        """How many optimizer steps the stage takes: what `max_steps` says, or as many as `epochs` passes need. Reads the data."""
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None, "checked at construction"
        return math.ceil(self.epochs * len(self._kept_rows()) / self.examples_per_batch)

    def train_dataloader(self) -> StepLoader:
        sizes = (self.examples_per_batch, self.micro_batches, self.row_tokens, self.tokenizer.pad_id)
        return StepLoader(ChatDataset(self._kept_rows(), self.seed, self.steps(), *sizes))

    def _kept_rows(self) -> ChatRows:
        """The examples as token ids, read and described once."""
        if self.rows is None:
            examples = self.examples.read()
            kept: list[ChatExample] = []
            self.rows = ChatRows(self._encoded(examples, kept))
            require(len(self.rows) > 0, "data.row_tokens", self.row_tokens, f"all {len(examples)} examples are longer")
            dropped = len(examples) - len(kept)
            left_out = f"{dropped} (longer than row_tokens = {self.row_tokens})" if dropped else "none"
            text = describe(kept, self.rows, self.template)
            reading = self.examples.reading.text()
            rank_zero_only(print)(
                f"examples: {text}; left out: {left_out}{'; ' if reading else ''}{reading}", flush=True
            )
        return self.rows

    def _encoded(self, examples: Sequence[ChatExample], kept: list[ChatExample]) -> Iterator[ChatRow]:
        """The examples that are not too long as token ids; they themselves go into `kept`."""
        for start in range(0, len(examples), DOCUMENTS_PER_CALL):
            some = examples[start : start + DOCUMENTS_PER_CALL]
            pairs = [(example, example.completion) for example in some]
            for example, row in zip(some, chat_rows(pairs, self.tokenizer, self.template), strict=True):
                if len(row) <= self.row_tokens:
                    kept.append(example)
                    yield row
                elif self.too_long == "refuse":
                    raise InvalidInput(
                        f"{example.where}: {len(row)} tokens with the prompt are not allowed: a row has data.row_tokens="
                        f"{self.row_tokens} (data.too_long=drop leaves such examples out)"
                    )


def describe(examples: Sequence[ChatExample], rows: ChatRows, template: ChatTemplate) -> str:
    """How many there are, of which domains, how long on average, and how many have the form that the template asks for."""
    parse = FORMS[template.form].parse
    formed = sum(parse(template.respond(example.completion)).well_formed for example in examples)
    prompts, completions = rows.prompt_tokens, len(rows.ids) - rows.prompt_tokens
    text = (
        f"{len(rows)}, {formed} of them in the form {template.form}; prompts of {prompts / len(rows):.1f} tokens on average, "
        f"completions of {completions / len(rows):.1f}"
    )
    domains = Counter(example.metadata["domain"] for example in examples if "domain" in example.metadata)
    if domains:
        text += f"; domains {', '.join(f'{name} {count}' for name, count in sorted(domains.items()))}"
    if systems := sum(SYSTEM in example.metadata for example in examples):
        text += f"; {systems} with a system message"
    return text
