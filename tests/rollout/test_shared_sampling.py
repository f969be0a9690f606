"""Completions of one, two and three processes are the same, in all of them and in the prompts' order."""

from __future__ import annotations

from typing import Any

import pytest

from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.shared_sampling import sample_together
from r1_lightning.types.processes import Processes
from r1_lightning.types.text import Completion
from tests.support.miniature import CharTokenizer, Miniature, Sums
from tests.support.processes import in_processes


def _sampled(processes: Processes, prompts: int) -> list[Completion]:
    tokenizer: Any = CharTokenizer()
    asked = tokenizer.encode_batch([Sums().train_problem(0, index).question for index in range(prompts)])
    return sample_together(Miniature().sampler(), processes, asked, 3, rollout_keys(7, prompts, 3), tokenizer)


@pytest.mark.parametrize("prompts", [5, 2])
def test_several_processes_draw_the_completions_of_one(prompts: int) -> None:
    (expected,) = in_processes(1, _sampled, prompts)
    assert len(expected) == 3 * prompts and len({completion.text for completion in expected}) > prompts
    for count in (2, 3):
        assert in_processes(count, _sampled, prompts) == [expected] * count
