"""Checks two assumptions of every stage: a packed row equals its texts alone, and cached steps equal the full forward.

A document in a packed row must get the log-probs that it gets alone in a batch, whatever shares its row or its batch. And the
tokens of a sampler, one at a time on a cache, must get those of one forward over the whole text. A mask, a position or a rotary
frequency that depends on neighbouring texts breaks this without any error, and the model is then trained or evaluated with wrong
log-probs.

The second forward uses the routes of the first: two affinities that are equal to within rounding might choose another expert, and
every later token would differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.masking import targets_ahead
from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# Shape legend: B rows, T positions, L layers with experts, K chosen experts.

MOST_COLUMNS = 2048  # of a row: later columns have the same masks, and the check should cost less than a training step
MOST_DOCUMENTS = 6
CACHED_STEPS = 8


@dataclass(frozen=True)
class RowAgreement:
    """The largest differences of log-probs in nats; 0 if there was nothing to compare, NaN if a log-prob is NaN."""

    packed: float
    cached: float


@torch.no_grad()
def row_agreement(backbone: Any, tokens: TokenBatch) -> RowAgreement:
    """Compare documents in packed rows with the same documents alone, and these with cached steps; keeps `backbone`'s mode."""
    rows = most_telling_rows(tokens)
    was_training = backbone.training
    backbone.eval()
    try:
        return _compared(backbone, rows)
    finally:
        backbone.train(was_training)


def most_telling_rows(tokens: TokenBatch) -> TokenBatch:
    """Return the row with the most documents and the row with the longest (or the one that is both), cut to `MOST_COLUMNS`."""
    chosen = {int(tokens.document_ids.amax(1).argmax()), int(tokens.position_ids.amax(1).argmax())}
    rows = torch.tensor(sorted(chosen), device=tokens.token_ids.device)
    return tokens.map(lambda ids_BT: ids_BT[rows, :MOST_COLUMNS])


def _compared(backbone: Any, rows: TokenBatch) -> RowAgreement:
    whole = backbone.hidden(rows, with_mtp=False)
    logprobs_BT, has_target_BT = _next_logprobs(backbone, whole, rows)
    packed, documents = [0.0], []
    for row, columns in _documents(rows):
        ids_t = rows.token_ids[row, columns]
        alone_t = _alone(backbone, ids_t, whole.routes[:, row : row + 1, columns])
        packed.append(_largest((alone_t - logprobs_BT[row, columns])[has_target_BT[row, columns]]))
        documents.append(ids_t)
    # The shortest and the longest document that leave a prompt before the cached steps, as one batch, so that one is padded.
    long_enough = sorted((ids_t for ids_t in documents if len(ids_t) > 2), key=len)
    cached = _cached_difference(backbone, [long_enough[0], long_enough[-1]]) if long_enough else 0.0
    return RowAgreement(_worst(packed), cached)


def _alone(backbone: Any, ids_t: Tensor, routes_L1tK: Tensor) -> Tensor:
    """Log-probs t of the token after each of a document's tokens (the last is meaningless), alone in a batch, with given routes."""
    batch = TokenBatch.of_whole_rows(ids_t[None])
    replayed = (routes_L1tK,) if routes_L1tK.numel() else ()
    return _next_logprobs(backbone, backbone.hidden(batch, False, *replayed), batch)[0][0]


def _documents(rows: TokenBatch) -> list[tuple[int, slice]]:
    """Return (row, columns) of the first documents of each row that have more than one token."""
    found = []
    for row, ids in enumerate(rows.document_ids):
        numbers, lengths = ids.unique_consecutive(return_counts=True)
        ends = lengths.cumsum(0).tolist()
        places = zip(numbers.tolist(), lengths.tolist(), ends, strict=True)
        found.append([(row, slice(end - length, end)) for number, length, end in places if number and length > 1])
    return [place for row in found for place in row[: MOST_DOCUMENTS // len(found)]]


def _cached_difference(backbone: Any, pair: Sequence[Tensor]) -> float:
    """Return the largest difference between log-probs of left-padded prompts with cached steps and of the same texts alone."""
    steps = min(CACHED_STEPS, min(map(len, pair)) - 2)
    longest = max(map(len, pair))
    ids_RT = torch.stack([F.pad(ids, (longest - len(ids), 0)) for ids in pair])
    columns = torch.arange(longest, device=ids_RT.device)
    is_token_RT = torch.stack([columns >= longest - len(ids) for ids in pair])
    cache = backbone.new_cache(len(pair), longest)
    ends = [longest - 1 - steps, *range(longest - steps, longest)]  # the prompt, then a token at a time
    outputs = [
        backbone.step(ids_RT[:, start:end], is_token_RT[:, start:end], cache)
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    hidden_RTD = torch.cat([output.hidden for output in outputs], dim=1)
    logprobs, _ = backbone.token_logprobs(hidden_RTD.flatten(0, 1), ids_RT[:, 1:].flatten())
    logprobs_RT = logprobs.view(len(pair), longest - 1)
    routes_LRTK = F.pad(torch.cat([output.routes for output in outputs], dim=2), (0, 0, 0, 1), value=-1)
    worst = []
    for row, ids in enumerate(pair):
        first = longest - len(ids)
        alone_t = _alone(backbone, ids, routes_LRTK[:, row : row + 1, first:])
        worst.append(_largest(logprobs_RT[row, first:] - alone_t[:-1]))
    return _worst(worst)


def _next_logprobs(backbone: Any, output: BackboneOutput, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """Return log-probs B x T of the token after each position, and B x T booleans: True if the same document has such a token."""
    targets_BT, has_target_BT = targets_ahead(batch.token_ids, batch.document_ids, 1)
    logprobs, _ = backbone.token_logprobs(output.hidden.flatten(0, 1), targets_BT.flatten())
    return logprobs.view(targets_BT.shape), has_target_BT


def _largest(differences: Tensor) -> float:
    return float(differences.abs().max()) if differences.numel() else 0.0


def _worst(values: Sequence[float]) -> float:
    """Return the largest value; NaN if any is NaN (Python's max would not)."""
    return float(torch.tensor(values).max())
