"""How well a pre-trained model predicts text that it has not seen, beside n-gram models that counted the same training tokens.

Documents have numbers, and training begins at the first: those from `HELD_OUT_DOCUMENT` on (`data/pretrain_data.py`) are never
reached, so they are held out. They are of the same kind, and short ones may be the same to the letter: the share of such documents
is measured, too. A task that goes through its rows again and again has nothing else to offer: there that share is 1, and the
numbers say how well the training text is known. It is a report: no weight and no fingerprint depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from r1_lightning.functional.masking import targets_ahead
from r1_lightning.functional.ngram_model import Text, bits_per_token, ngram_probabilities
from r1_lightning.rollout.packing import PackedRows
from r1_lightning.rollout.row_shares import share_of_rows
from r1_lightning.rollout.sampler import device_of
from r1_lightning.stages.base import StageModule
from r1_lightning.stages.mtp import loss_ahead
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import TokenBatch

ORDERS = 5  # more gain little: a miniature's facts are shorter
LAPLACE = 2  # the order at which Laplace's formula alone is shown; at 1 it is the same as back-off, above 2 it only gets worse
MOST_COUNTED = 4_000_000  # training tokens: seconds, and a few hundred megabytes while they are sorted
NATS_PER_BIT = float(np.log(2))
KIND = "eval/text"


@dataclass(frozen=True)
class HeldOutText:
    """Rows that were not trained on, in batches of a training step's size, and the rows that were."""

    held_out: PackedRows
    trained: PackedRows
    vocab_size: int
    batches: Sequence[TokenBatch]

    def measures(self, module: StageModule) -> dict[str, float]:
        """Return the measures by name: bits per token of the model and of the n-gram models, and the share of documents seen."""
        bits = text_loss(module, self.batches) / NATS_PER_BIT
        return {
            f"{KIND}/bits_per_token": bits,
            **{f"{KIND}/{name}_bits_per_token": value for name, value in self.floor().items()},
            f"{KIND}/trained_tokens": float(text_of(self.trained).n_predicted),
            f"{KIND}/documents_seen": seen_share(documents_of(self.held_out), documents_of(self.trained)),
        }

    def floor(self) -> dict[str, float]:
        """Return bits per token of the n-gram models, by their names."""
        found: dict[str, float] = {}
        rows = max(1, MOST_COUNTED // self.trained.token_ids.shape[1])
        texts = (text_of(self.trained, rows), text_of(self.held_out))
        for order, laplace, backoff in ngram_probabilities(*texts, self.vocab_size, ORDERS):
            found[f"ngram_{order}"] = bits_per_token(backoff)
            if order == LAPLACE:
                found[f"laplace_{order}"] = bits_per_token(laplace)
        return found


def held_out_text(config: DictConfig, data: Any, vocab_size: int) -> HeldOutText | None:
    """Return the text that `callbacks.evaluation.text_rows` asks for; None without it, or for data that have no such text."""
    evaluation = (config.callbacks or {}).get("evaluation") or {}
    count = evaluation.get("text_rows", 0)
    rows = data.held_out_rows_of_text(count) if count and hasattr(data, "held_out_rows_of_text") else None
    if rows is None:
        return None
    size = data.rows_per_batch
    batches = [rows.batch(slice(start, start + size)) for start in range(0, len(rows), size)]
    return HeldOutText(rows, data.trained_rows(), vocab_size, batches)


def text_loss(module: StageModule, batches: Sequence[TokenBatch]) -> float:
    """Mean loss (nats) over all targets of `batches`; each process computes its share of the rows of every batch.

    Raises `Stopped` between two batches, in all processes, if one of them has heard a signal.
    """
    total, count, processes = 0.0, 0, module.processes
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            for whole in batches:
                STOP.together(STOP.poll, processes.any)
                n_targets = targets_ahead(whole.token_ids, whole.document_ids, 1)[1].sum()
                batch = module.transfer_batch_to_device(share_of_rows(whole, processes), device_of(module.backbone), 0)
                hidden = module.backbone.hidden(batch, with_mtp=False).hidden
                loss = loss_ahead(module.backbone, hidden, batch, 1, n_targets=n_targets.to(hidden.device))
                total, count = total + float(loss) * int(n_targets), count + int(n_targets)
    finally:
        for part, was_training in modes:
            part.training = was_training
    return float(processes.sum(torch.tensor(total, dtype=torch.float64))) / max(count, 1)


def text_of(rows: PackedRows, most: int | None = None) -> Text:
    """Return the documents of the first `most` rows, one behind the other, without padding."""
    is_text = rows.document_ids[:most] > 0
    return Text(rows.token_ids[:most][is_text], rows.position_ids[:most][is_text] == 0)


def documents_of(rows: PackedRows) -> Iterator[bytes]:
    """Yield the token ids of each document."""
    text = text_of(rows)
    starts = np.flatnonzero(text.is_first)
    for start, end in zip(starts, [*starts[1:], len(text.tokens)], strict=True):
        yield text.tokens[start:end].tobytes()


def seen_share(held_out: Iterator[bytes], trained: Iterator[bytes]) -> float:
    """Share of the held-out documents that are among the trained ones, to the letter."""
    known, found = set(trained), list(held_out)
    return sum(document in known for document in found) / max(len(found), 1)


def measured_text(text: HeldOutText, module: StageModule) -> tuple[str, dict[str, float]]:
    """Return the lines of a stage's table, and the measures."""
    measures = text.measures(module)
    width = max(map(len, measures))
    rows, columns = text.held_out.token_ids.shape
    title = f"{rows} rows of {columns} tokens of held-out text, and n-gram models of the training text"
    return "\n".join([title, *(f"{name:<{width}}  {value:.4g}" for name, value in measures.items())]), measures
