"""DAPO's soft overlong punishment: a slope before the length limit instead of a step at it.

    R(y) = 0                                         |y| <= L_max - L_cache
         = ((L_max - L_cache) - |y|) / L_cache       L_max - L_cache < |y| <= L_max
         = -1                                        L_max < |y|
(Yu et al. 2025, arXiv:2503.14476, eq 13; there L_max = 20,480 and L_cache = 4,096 tokens). A completion that the length limit
cut off counts as longer than L_max, because it would have continued.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1_lightning.types.errors import require, require_int
from r1_lightning.types.text import Completion, Problem, Verdict


@dataclass(slots=True)
class OverlongPunishment:
    """Falls linearly from 0 to -1 over the last `cache_tokens` before `max_tokens` (lengths in tokens, EOS included)."""

    max_tokens: int
    cache_tokens: int
    name: str = "overlong"

    def __post_init__(self) -> None:
        require_int("overlong.max_tokens", self.max_tokens, 1)
        require_int("overlong.cache_tokens", self.cache_tokens, 1)
        allowed = f"it must be at most max_tokens={self.max_tokens}"
        require(self.cache_tokens <= self.max_tokens, "overlong.cache_tokens", self.cache_tokens, allowed)

    def __call__(self, problem: Problem, completion: Completion) -> Verdict:
        del problem  # the length alone decides
        free = self.max_tokens - self.cache_tokens
        if not completion.finished or completion.n_tokens > self.max_tokens:
            return Verdict(-1.0, f"cut off or longer than {self.max_tokens} tokens")
        if completion.n_tokens <= free:
            return Verdict(0.0, f"at most {free} tokens")
        return Verdict(
            (free - completion.n_tokens) / self.cache_tokens, f"{completion.n_tokens - free} tokens too many"
        )
