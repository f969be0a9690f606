"""A trained reward model as a `Scorer`: questions and responses in, a number each out.

Texts are read exactly as in training (`rollout/preference_rows.py`), without gradients, in evaluation mode, sorted by length,
so that rows that are packed together waste little. The paper sets no limit on length at inference; positions do: of a text
that is longer than the model's positions the beginning is left out, so that its end, where the score is read, is always
there. How texts are batched changes scores by rounding only; and as each distinct text is scored once, equal texts have equal
scores whatever stands beside them (GRPO would make an advantage of the rounding, see `functional.advantages.SPREAD_FLOOR`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from r1_lightning.rollout.preference_rows import PreferenceRow, collate_preferences, encode_responses
from r1_lightning.rollout.sampler import device_of
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require_int

TOKENS_PER_CALL = 16_384  # as many as a training step of the miniature has, a few times over


class RewardScorer:
    """Scores by `model` (a `model.reward_head.RewardModel`), on the device on which `beside` lies: the policy, which may move.

    `max_positions` is the longest text in tokens, template and EOS included.
    """

    def __init__(
        self, model: Any, tokenizer: TextTokenizer, template: ChatTemplate, max_positions: int, beside: Any = None
    ) -> None:
        require_int("max_positions", max_positions, 2)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.template = template
        self.max_positions = max_positions
        self.beside = beside

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """One score for each (question, response), in their order."""
        device = device_of(self.model if self.beside is None else self.beside)
        self.model.to(device)
        encoded = encode_responses(pairs, self.tokenizer, self.template)
        documents = [tuple(ids[-self.max_positions :]) for ids in encoded]
        left = sorted(dict.fromkeys(documents), key=len)  # each once
        scores: dict[tuple[int, ...], float] = {}
        while left:
            width = len(left[-1])
            count = max(1, TOKENS_PER_CALL // width)
            taken, left = left[-count:], left[:-count]
            rows = [PreferenceRow((document,), (0.0,)) for document in taken]
            batch = collate_preferences(rows, width, self.tokenizer.pad_id).to(device)
            scores.update(zip(taken, self.model.scores(batch.tokens, batch.ends)[0].tolist(), strict=True))
        return [scores[document] for document in documents]
