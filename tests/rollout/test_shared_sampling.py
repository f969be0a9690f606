"""Completions of one, two and three processes are the same, in all of them and in the prompts' order."""

from __future__ import annotations

from typing import Any

import pytest
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.model.sharding import shard
from r1_lightning.rollout.groups import rollout_keys
from r1_lightning.rollout.shared_sampling import sample_together
from r1_lightning.types.errors import Stopped
from r1_lightning.types.processes import Processes
from r1_lightning.types.stopping import REQUEUE, STOP
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


def _struck(processes: Processes, struck: int) -> list[Completion]:
    """Sample from divided weights three prompts and two; a signal comes to one process on the way, and is forgotten later."""
    tokenizer: Any = CharTokenizer()
    mini = Miniature(processes=processes)
    shard(mini.model, init_device_mesh("cpu", (processes.count,)))
    asked = tokenizer.encode_batch([Sums().train_problem(0, index).question for index in range(5)])
    given = (processes, asked, 3, rollout_keys(7, 5, 3), tokenizer)
    STOP.asked = Stopped("interrupted", REQUEUE) if processes.rank == struck else None
    with pytest.raises(Stopped):
        sample_together(mini.sampler(), *given)
    STOP.asked = None
    return sample_together(mini.sampler(), *given)


@pytest.mark.slow
@pytest.mark.parametrize("struck", [0, 1])
def test_a_signal_to_one_process_ends_sampling_from_divided_weights_in_all(struck: int) -> None:
    """None is left in the middle of a gather: the next one gives what one process draws."""
    (expected,) = in_processes(1, _sampled, 5)
    assert in_processes(2, _struck, struck, limit_s=180) == [expected] * 2
