"""Seconds per GRPO step: our Lightning stage against TRL's GRPOTrainer.

A step is everything: prompts out of the data, sampling, decoding, rewards, group-relative advantages, log-probs of a frozen
reference, the clipped objective with k3 KL, backward, gradient clipping, AdamW, and each trainer's own bookkeeping.

Equal on both sides: the weights, of the policy and of the reference, and their type (FP32; with BF16 each side's own mixed
precision); the problems, in the same order, and their token ids; `prompts` x `group_size` completions of the same
lengths; temperature 1, the whole vocabulary; one optimizer step per rollout; the objective of DeepSeekMath eq 3 (TRL:
loss_type=grpo, beta=0.001, KL not reweighted), clip 0.2; learning rate, betas, weight decay, gradient norm; the rewarding rule;
no logger, no progress bar, no checkpoint. Each measurement starts from the same weights, and its first step warms up.
Checked, not only asked for: the weights, the prompts, the number of completions judged, their lengths, that weights moved.
Lengths are forced on both sides, all alike or from one seeded list: here a row ends at its length whatever was drawn, there a
logits processor allows the end of sequence at that place and nowhere else.
Not equal: the ratio's old log-probs are the sampler's here, TRL takes the training forward's own (detached), which is right for
one update; TRL divides advantages by the sample standard deviation. TRL's gradient checkpointing is off (it only costs time at
this size).
Tried, the best taken: ours, the length of packed rows and the parts in which a minibatch is computed; theirs, the per-device
batch (gradient accumulation makes up the rest) and how transformers runs experts, in the reference, too.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

from benchmarks import grpo_ours, grpo_trl
from benchmarks.floor import grpo_parts
from benchmarks.growth_axes import GrowingWorld, world_at
from benchmarks.grpo_work import WORK, Work, uneven_work
from benchmarks.pairs import Contest
from benchmarks.setting import EXPERTS, World

LONG_PROMPT = 200


def even_contest(world: World) -> Contest:
    """Seconds per GRPO step, every completion as long as the limit."""
    size = world.size
    return _contest(world, Work(WORK, (size.new_tokens,) * size.completions))


def uneven_contest(world: World) -> Contest:
    """The same with lengths as they come in practice: many short, few long, a third of the limit in the mean."""
    return _contest(world, uneven_work(world.size))


def long_prompt_contest(world: World) -> Contest:
    """Completions of full length after prompts of about `LONG_PROMPT` tokens, a quarter as many."""
    size = world.size
    few = GrowingWorld(replace(size, prompts=max(1, size.prompts // 4)), compile=size.compile)
    longer = world_at("prompt", LONG_PROMPT, few)
    lengths = (size.new_tokens,) * longer.size.completions
    return _contest(longer, Work(f"{WORK}, prompts of about {LONG_PROMPT} tokens", lengths))


def _contest(world: World, work: Work) -> Contest:
    size = world.size
    ours = {
        f"{candidate.name}, rows of {row_tokens} in {parts} parts": (candidate, row_tokens, parts)
        for candidate in world.ours_of_rl()
        for row_tokens in grpo_ours.long_enough(world)
        for parts in size.micro_batches
    }
    return Contest(
        work=f"{work.name}, {size.prompts} prompts x {size.group_size} completions x {size.new_tokens} tokens",
        unit="s/step",
        opponent="TRL",
        ours={name: grpo_ours.measurement(candidate, work, *cut) for name, (candidate, *cut) in ours.items()},
        theirs={
            f"{other.name}, batch {batch}, experts={experts}": grpo_trl.measurement(other, work, batch, experts)
            for other in world.theirs()
            for batch in size.trl_batches
            for experts in EXPERTS
        },
        floors={name: grpo_parts(candidate, mean(work.lengths)) for name, (candidate, *_) in ours.items()},
        phases={name: grpo_ours.phases(candidate, work, *cut) for name, (candidate, *cut) in ours.items()},
    )
