"""Completions divided over processes by prompt: each samples those of its own prompts, and all of them get all.

Draws are keyed by (rollout, prompt, sample, position), so it does not matter which process draws a completion. What is not keyed
is the size of the batch that a matrix product sees; where that changes the last bit of a logit, a draw at the very border between
two tokens may fall to the other side, as with another `rollout.max_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from r1_lightning.rollout.groups import completion_texts, own_rows
from r1_lightning.text.tokenizer import TextTokenizer
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import STOP
from r1_lightning.types.tensors import GenerateFn
from r1_lightning.types.text import Completion


def sample_together(
    generate: GenerateFn,
    processes: Processes,
    prompts: Sequence[Sequence[int]],
    copies: int,
    keys: Tensor,
    tokenizer: TextTokenizer,
) -> list[Completion]:
    """Return `copies` completions of each of the P prompts, P * copies in their order, in every process.

    `generate` is called without a prompt where there are fewer prompts than processes: a policy in pieces is put together by all.
    """
    own = processes.share(range(len(prompts)))
    asked, chosen = [prompts[number] for number in own], keys[own_rows(own, copies)]
    share = STOP.together(lambda: generate(asked, copies, chosen), processes.any)
    lengths, finished = share.completion_mask.sum(1).tolist(), share.finished.tolist()
    rows = zip(completion_texts(share, tokenizer), lengths, finished, strict=True)
    return processes.gather([Completion(*row) for row in rows])
