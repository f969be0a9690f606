"""What a step computes on each kind of data, worked out by hand; data of other kinds are not counted."""

from __future__ import annotations

from types import SimpleNamespace as Namespace
from typing import Any, cast

from r1_lightning.data.chat_data import ChatDataModule
from r1_lightning.data.pretrain_data import PretrainDataModule
from r1_lightning.data.rollout_data import GroupedRolloutsDataModule
from r1_lightning.run.cost.counted import COUNTED, PackedText, SampledGroups, counting_of
from r1_lightning.run.cost.counted_rows import Examples
from r1_lightning.run.cost.probe import PROBES


class Longer(GroupedRolloutsDataModule):
    """A data module of somebody's own that samples as ours does."""


def test_a_kind_is_counted_by_its_class_or_not_at_all() -> None:
    assert counting_of(PretrainDataModule) is PackedText and counting_of(Longer) is SampledGroups
    assert counting_of(ChatDataModule) is Examples and counting_of(object) is None and counting_of(None) is None
    assert PROBES.keys() == {PretrainDataModule, GroupedRolloutsDataModule} <= COUNTED.keys()


def test_packed_text_by_hand() -> None:
    """4 rows of 32 tokens: each is trained on and sees half a row of context on average."""
    text = PackedText(cast(Any, Namespace(rows_per_batch=4, row_tokens=32)))
    load, batch = text.load(None), text.micro_batch(mtp_depth=1)
    assert (load.tokens, load.targets, load.context, load.sampled_tokens) == (128, 128, 16, 0)
    assert (batch.rows, batch.row_tokens, batch.targets, batch.mtp_depth) == (4, 32, 128, 1)


def test_sampled_groups_by_hand() -> None:
    """2 prompts (3 and 5 tokens) x 4 completions over 2 steps: 4 completions a step, of 1 prompt, or of 3 with three draws.

    At their limit of 10 tokens they take 15 behind the longest prompt: 2 to a row of 32, of which 2 tokens are cut off, so two
    rows, in two micro-batches of one row with 2 x 10 targets.
    """
    settings = {"prompts_per_rollout": 2, "group_size": 4, "minibatches_per_rollout": 2, "micro_batches": 2}
    config = Namespace(**settings, dynamic_sampling_attempts=3, longest_completion=10, row_tokens=32)
    maker = Namespace(config=config, prompts=lambda problems: [[0] * 3, [0] * 5])
    data = Namespace(dataset=Namespace(maker=maker, problems=lambda drawn: []))
    groups = SampledGroups(cast(Any, data))
    load, batch = groups.load(6), groups.micro_batch(mtp_depth=0)
    assert (load.tokens, load.targets, load.context) == (4 * (4 + 6), 24, 5)
    assert (load.prompts, load.sampled_tokens, load.prompt_tokens) == (3, 72, 4)
    assert groups.load(None).new_tokens == 10
    assert (batch.rows, batch.row_tokens, batch.targets) == (1, 30, 20)
