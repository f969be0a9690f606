"""Is a text in a packed row the text alone, and a cached step the forward? The two things that every stage takes for granted.

A document of a packed row must get the log-probs that it gets alone in a batch, whatever shares its row or its batch; and the
tokens of a sampler, one at a time on a cache, those of a forward over the whole. A mask, a position or a rotary frequency that
looks at its neighbours breaks the one or the other without any error, and the model then learns, or is measured, on other numbers
than it has.

Experts are not chosen twice: two affinities that are equal to within rounding may choose otherwise, and every later token would
differ. The second forward takes those of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1_lightning.functional.masking import targets_ahead
from r1_lightning.types.tensors import BackboneOutput, TokenBatch

# Shape legend: B rows, T positions, L layers with experts, K chosen experts.

MOST_COLUMNS = 2048  # of a row: what comes later sees the same masks, and a check should cost less than a training step
MOST_DOCUMENTS = 6
CACHED_STEPS = 8


@dataclass(frozen=True)
class RowAgreement:
    """The largest differences of log-probs in nats; 0 where there was nothing to compare, NaN where one is no number."""

    packed: float
    cached: float


@torch.no_grad()
def row_agreement(backbone: Any, tokens: TokenBatch) -> RowAgreement:
    """Compare some documents of packed rows with themselves alone, and alone with cached steps; `backbone` is left as it was."""
    rows = most_telling_rows(tokens)
    was_training = backbone.training
    backbone.eval()
    try:
        return _compared(backbone, rows)
    finally:
        backbone.train(was_training)


def most_telling_rows(tokens: TokenBatch) -> TokenBatch:
    """The row with the most documents and that with the longest, once if they are one, without the columns that are too many."""
    chosen = {int(tokens.document_ids.amax(1).argmax()), int(tokens.position_ids.amax(1).argmax())}
    rows = torch.tensor(sorted(chosen), device=tokens.token_ids.device)
    return TokenBatch(*(getattr(tokens, item.name)[rows, :MOST_COLUMNS] for item in fields(TokenBatch)))


def _compared(backbone: Any, rows: TokenBatch) -> RowAgreement:
    whole = backbone.hidden(rows, with_mtp=False)
    logprobs_BT, has_target_BT = _next_logprobs(backbone, whole, rows)
    packed, documents = [0.0], []
    for row, columns in _documents(rows):
        ids_t = rows.token_ids[row, columns]
        alone_t = _alone(backbone, ids_t, whole.routes[:, row : row + 1, columns])
        packed.append(_largest((alone_t - logprobs_BT[row, columns])[has_target_BT[row, columns]]))
        documents.append(ids_t)
    # The shortest and the longest that leave a prompt before the cached steps, as one batch: one of them is padded.
    long_enough = sorted((ids_t for ids_t in documents if len(ids_t) > 2), key=len)
    cached = _cached_difference(backbone, [long_enough[0], long_enough[-1]]) if long_enough else 0.0
    return RowAgreement(_worst(packed), cached)


def _alone(backbone: Any, ids_t: Tensor, routes_L1tK: Tensor) -> Tensor:
    """Log-probs of the token after each of a document's, t (the last says nothing), by itself in a batch and with given experts."""
    batch = TokenBatch.of_whole_rows(ids_t[None])
    replayed = (routes_L1tK,) if routes_L1tK.numel() else ()
    return _next_logprobs(backbone, backbone.hidden(batch, False, *replayed), batch)[0][0]


def _documents(rows: TokenBatch) -> list[tuple[int, slice]]:
    """(row, columns) of the first documents of each row that have something to predict."""
    found = []
    for row, ids in enumerate(rows.document_ids):
        numbers, lengths = ids.unique_consecutive(return_counts=True)
        ends = lengths.cumsum(0).tolist()
        places = zip(numbers.tolist(), lengths.tolist(), ends, strict=True)
        found.append([(row, slice(end - length, end)) for number, length, end in places if number and length > 1])
    return [place for row in found for place in row[: MOST_DOCUMENTS // len(found)]]


def _cached_difference(backbone: Any, pair: Sequence[Tensor]) -> float:
    """The largest difference between the log-probs of left-padded prompts with cached steps behind them and those alone."""
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
    """Log-probs B x T of the token after each place, and B x T booleans, True where there is one in the same document."""
    targets_BT, has_target_BT = targets_ahead(batch.token_ids, batch.document_ids, 1)
    logprobs, _ = backbone.token_logprobs(output.hidden.flatten(0, 1), targets_BT.flatten())
    return logprobs.view(targets_BT.shape), has_target_BT


def _largest(differences: Tensor) -> float:
    return float(differences.abs().max()) if differences.numel() else 0.0


def _worst(values: Sequence[float]) -> float:
    """The largest; NaN where one is."""
    return float(torch.tensor(values).max())
