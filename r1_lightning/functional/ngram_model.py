"""N-gram language models, the baseline from before neural networks: what does counting the same text give?

A token's probability after the n - 1 tokens before it, h, from counts c in the training text of V different tokens, in two ways:

    Laplace     P(w | h) = (c(h w) + k) / (c(h) + k V), with k = 1: every continuation is taken to have been seen k times more
    back-off    P_n(w | h) = (c(h w) + t(h) P_{n-1}(w | h')) / (c(h) + t(h)); t(h) is the number of different tokens seen after h,
                and h' is h without its first token (Witten and Bell 1991); at n = 1 it is Laplace's share

The second weighs the shorter context by how often the longer one was followed by something new, so an unseen h leaves P_{n-1} as it
is. Contexts stay within a document: before its first token stands the same mark n - 1 times. That first token itself is not
predicted, as the backbone does not predict it either. Counting is NumPy's sorting, seconds for millions of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from r1_lightning.types.errors import require, require_int, require_number

# Shape legend: T tokens, W tokens that are predicted.


@dataclass(frozen=True)
class Text:
    """Documents one behind the other: token ids (T), and whether a document begins with this one (T)."""

    tokens: np.ndarray
    is_first: np.ndarray

    def __post_init__(self) -> None:
        shapes = (self.tokens.shape, self.is_first.shape)
        require(
            len(set(shapes)) == 1 and len(shapes[0]) == 1, "is_first", shapes[1], f"it must be as long as {shapes[0]}"
        )
        begins = len(self.tokens) == 0 or bool(self.is_first[0])
        require(begins, "is_first", False, "a document must begin with the first token")

    @property
    def n_predicted(self) -> int:
        return int((~self.is_first).sum())


class Probabilities(NamedTuple):
    """Of each predicted token of the held-out text (W), by both formulas, from contexts of `order` - 1 tokens."""

    order: int
    laplace: np.ndarray
    backoff: np.ndarray


def bits_per_token(probabilities: np.ndarray) -> float:
    """Mean of -log2 P."""
    return float(-np.log2(probabilities).mean())


def ngram_probabilities(
    trained: Text, held_out: Text, vocab_size: int, orders: int, add: float = 1.0
) -> Iterator[Probabilities]:
    """Yield the probabilities of `held_out` from counts in `trained`, for n = 1 up to `orders`; `add` is Laplace's k.

    Raises `InvalidInput` for a text without a predicted token, for ids outside of 0..`vocab_size` - 1, and for `add` <= 0.
    """
    require_int("vocab_size", vocab_size, 1)
    require_int("orders", orders, 1)
    require_number("add", add, 0.0, open_minimum=True)
    tokens = np.concatenate([trained.tokens, held_out.tokens]).astype(np.int64)
    is_first = np.concatenate([trained.is_first, held_out.is_first]).astype(bool)
    for name, text in (("trained", trained), ("held_out", held_out)):
        require(text.n_predicted > 0, name, len(text.tokens), "a text needs a document of two tokens")
    inside = bool(((tokens >= 0) & (tokens < vocab_size)).all())
    require(inside, "tokens", [int(tokens.min()), int(tokens.max())], f"ids must be in 0..{vocab_size - 1}")
    is_trained = np.arange(len(tokens)) < len(trained.tokens)
    seen, asked = is_trained & ~is_first, ~is_trained & ~is_first
    contexts = np.zeros(len(tokens), dtype=np.int64)  # a number for each context; of no token: one
    shorter: np.ndarray | None = None
    for order in range(1, orders + 1):
        counts = _Counts.of(contexts, tokens, seen, asked, vocab_size)
        laplace = (counts.pairs + add) / (counts.contexts + add * vocab_size)
        if shorter is None:
            shorter = laplace
        else:
            mass = counts.contexts + counts.kinds
            backed = (counts.pairs + counts.kinds * shorter) / np.maximum(mass, 1)
            shorter = np.where(mass > 0, backed, shorter)
        yield Probabilities(order, laplace, shorter)
        contexts = _longer(contexts, tokens, is_first, vocab_size)


@dataclass(frozen=True)
class _Counts:
    """For each predicted token (W): how often its context, and the context with it, were seen, and with how many tokens."""

    contexts: np.ndarray
    pairs: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(
        cls, contexts: np.ndarray, tokens: np.ndarray, seen: np.ndarray, asked: np.ndarray, vocab_size: int
    ) -> _Counts:
        size = int(contexts.max()) + 1
        of_context = np.bincount(contexts[seen], minlength=size)
        found, times = np.unique(contexts[seen] * vocab_size + tokens[seen], return_counts=True)
        kinds = np.bincount(found // vocab_size, minlength=size)
        wanted = contexts[asked] * vocab_size + tokens[asked]
        places = np.minimum(np.searchsorted(found, wanted), len(found) - 1)
        pairs = np.where(found[places] == wanted, times[places], 0)
        return cls(of_context[contexts[asked]], pairs, kinds[contexts[asked]])


def _longer(contexts: np.ndarray, tokens: np.ndarray, is_first: np.ndarray, vocab_size: int) -> np.ndarray:
    """Number the contexts that are one token longer: that of the token before, and this token; 0 where a document begins.

    Numbers are ranks, below the length of the text, so that a rank times `vocab_size` stays a 64-bit number at any length.
    """
    pairs = np.full(len(tokens), -1, dtype=np.int64)
    pairs[1:] = contexts[:-1] * vocab_size + tokens[:-1]
    pairs[is_first] = -1  # the mark
    return np.unique(pairs, return_inverse=True)[1].astype(np.int64)
