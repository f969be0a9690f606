"""A trained reward model as a `Scorer`: it returns one number for each question and response.

Texts are tokenised exactly as in training (`rollout/preference_rows.py`) and scored without gradients, in evaluation mode, sorted
by length, so that packed rows waste little. The paper sets no length limit at inference, but the model's positions do: a longer
text loses its beginning, so that its end, where the score is read, is always there. Batching changes scores by rounding only. Each
distinct text is scored once, so equal texts have equal scores whatever shares their batch (GRPO would turn the rounding into an
advantage, see `functional.advantages.SPREAD_FLOOR`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from r1_lightning.rollout.preference_rows import PreferenceRow, collate_preferences, encode_responses
from r1_lightning.rollout.sampler import device_of
from r1_lightning.text.chat_template import ChatTemplate
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.errors import require_int
from r1_lightning.types.stopping import STOP

TOKENS_PER_CALL = 16_384  # a few times the tokens of a training step of the miniature


class RewardScorer:
    """Scores with `model` (a `model.reward_head.RewardModel`) where its weights are.

    `max_positions` is the longest text in tokens, template and EOS included. `poll` is called before each batch, and may raise.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        max_positions: int,
        poll: Callable[[], None] = STOP.poll,
    ) -> None:
        self.poll = poll
        require_int("max_positions", max_positions, 2)
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.template = template
        self.max_positions = max_positions

    @torch.no_grad()
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return one score for each (question, response), in order."""
        device = device_of(self.model)
        encoded = encode_responses(pairs, self.tokenizer, self.template)
        documents = [tuple(ids[-self.max_positions :]) for ids in encoded]
        left = sorted(dict.fromkeys(documents), key=len)  # each distinct text once
        scores: dict[tuple[int, ...], float] = {}
        while left:
            self.poll()
            width = len(left[-1])
            count = max(1, TOKENS_PER_CALL // width)
            taken, left = left[-count:], left[:-count]
            rows = [PreferenceRow((document,), (0.0,)) for document in taken]
            batch = collate_preferences(rows, width, self.tokenizer.pad_id).to(device)
            scores.update(zip(taken, self.model.scores(batch.tokens, batch.ends)[0].tolist(), strict=True))
        return [scores[document] for document in documents]
