"""Deliberate faults, each a mistake that somebody has made in an implementation of these papers, as one change of text.

`FAULTS` says which file, which text (it must be there exactly once), what stands there instead, and which test files must
notice. A test file that lets its fault pass is not worth its name.
"""

from __future__ import annotations

from dataclasses import dataclass

ADVANTAGES, POLICY_LOSS = "tests/functional/test_advantages.py", "tests/functional/test_policy_loss.py"
GRPO, REFERENCE, BASE = "tests/stages/test_grpo.py", "tests/stages/test_reference.py", "tests/stages/test_base.py"
PRETRAIN, ROUTER, SELF_CHECK = (
    "tests/stages/test_pretrain.py",
    "tests/model/test_router.py",
    "tests/callbacks/test_self_check.py",
)
SFT, CHAT_ROWS = "tests/stages/test_sft.py", "tests/rollout/test_chat_rows.py"
ROLLOUT_DATA = "tests/data/test_rollout_data.py"
LINEAR_ATTENTION, LIGHTNING_ATTENTION = (
    "tests/functional/test_linear_attention.py",
    "tests/model/test_lightning_attention.py",
)
DRAFTS, MTP, CACHE = "tests/rollout/test_mtp_drafts.py", "tests/model/test_mtp.py", "tests/model/test_kv_cache.py"


@dataclass(frozen=True)
class Fault:
    """`old` becomes `new` in r1_lightning/`file`; each of `tests` alone must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    Fault(
        "the advantage has the wrong sign",
        "functional/advantages.py",
        "rewards_PG - rewards_PG.mean(dim=1, keepdim=True)",
        "rewards_PG.mean(dim=1, keepdim=True) - rewards_PG",
        (ADVANTAGES,),
    ),
    Fault(
        "rounding is an advantage",
        "functional/advantages.py",
        "SPREAD_FLOOR = 2.0**-20",
        "SPREAD_FLOOR = 0.0",
        (ADVANTAGES,),
    ),
    Fault(
        "a log-ratio is the difference of two sums",
        "functional/sequence_policy_loss.py",
        "return tokens.sum_by_sequence(tokens.policy_logprobs - tokens.old_logprobs)\n",
        "return tokens.sum_by_sequence(tokens.policy_logprobs) - tokens.sum_by_sequence(tokens.old_logprobs)\n",
        ("tests/functional/test_sequence_policy_loss.py",),
    ),
    Fault(
        "a detached MTP loss still trains the head",
        "stages/grpo.py",
        '"head_detached": self.mtp_detached',
        '"head_detached": False',
        (GRPO,),
    ),
    Fault(
        "the std is taken over prompts",
        "functional/advantages.py",
        "rewards_PG.std(dim=1,",
        "rewards_PG.std(dim=0,",
        (ADVANTAGES,),
    ),
    Fault(
        "the completion mask is shifted by one",
        "rollout/collate.py",
        "mask[line, start:end] = trained[sequence]",
        "mask[line, start - 1 : end - 1] = trained[sequence]",
        (GRPO,),
    ),
    Fault(
        "fine-tuning learns prompts",
        "stages/mtp.py",
        "has_target = has_target & wanted.bool()",
        "has_target = has_target | wanted.bool()",
        (SFT,),
    ),
    Fault(
        "fine-tuning's mean is that of a micro-batch",
        "stages/sft.py",
        "batch.completion_mask, batch.n_targets(places)",
        "batch.completion_mask",
        (SFT,),
    ),
    Fault(
        "fine-tuning does not learn the end",
        "rollout/chat_rows.py",
        "column + len(row)] = True",
        "column + len(row) - 1] = True",
        (SFT, CHAT_ROWS),
    ),
    Fault(
        "fine-tuning tokenises prompt and completion together",
        "rollout/chat_rows.py",
        "responses = tokenizer.encode_continuations([response for _, response in pairs])",
        "responses = [tokenizer.encode_batch([template.render(q) + r])[0][len(p) :] for (q, r), p in zip(pairs, prompts)]",
        (CHAT_ROWS,),
    ),
    Fault(
        "prompt tokens are in the loss",
        "rollout/collate.py",
        "mask[line, start:end] = trained[sequence]",
        "mask[line, column + 1 : end] = trained[sequence]",
        (GRPO,),
    ),
    Fault(
        "a question may spell the token that ends a turn",
        "text/published_tokenizer.py",
        "if number % 2 == 0 else [piece]",
        "if piece else [piece]",
        ("tests/text/test_published_tokenizer.py",),
    ),
    Fault(
        "a completion opens with a space of its own",
        "text/tokenizer.py",
        "self._continuing = published.continuing(self._text)",
        "self._continuing = self._text",
        ("tests/text/test_published_tokenizer.py",),
    ),
    Fault(
        "EOS is left out of the completions, so that ending is unlearned",
        "rollout/sampler.py",
        "out.mask[rows, position] = True",
        "out.mask[rows, position] = token != self.eos_id",
        (GRPO,),
    ),
    Fault(
        "the ratio is inverted",
        "functional/policy_loss.py",
        "torch.exp(tokens.policy_logprobs - tokens.old_logprobs)",
        "torch.exp(tokens.old_logprobs - tokens.policy_logprobs)",
        (POLICY_LOSS,),
    ),
    Fault(
        "Dr. GRPO divides by each completion's own length",
        "functional/policy_loss.py",
        "[1.0 / (tokens.n_sequences * self.max_completion_tokens)]",
        "[1.0 / tokens.n_tokens]",
        (POLICY_LOSS,),
    ),
    Fault(
        "GSPO's ratio is of the whole completion",
        "functional/sequence_policy_loss.py",
        "tokens.sum_by_sequence(tokens.policy_logprobs - tokens.old_logprobs) / tokens.completion_tokens",
        "tokens.sum_by_sequence(tokens.policy_logprobs - tokens.old_logprobs)",
        ("tests/functional/test_sequence_policy_loss.py",),
    ),
    Fault(
        "CISPO's weights have a gradient",
        "functional/importance_sampling.py",
        "torch.exp(tokens.policy_logprobs.detach() - tokens.old_logprobs)",
        "torch.exp(tokens.policy_logprobs - tokens.old_logprobs)",
        ("tests/functional/test_importance_sampling.py",),
    ),
    Fault(
        "importance weights are inverted",
        "functional/importance_sampling.py",
        "(tokens.old_logprobs - tokens.sampler_logprobs).detach()",
        "(tokens.sampler_logprobs - tokens.old_logprobs).detach()",
        ("tests/functional/test_importance_sampling.py",),
    ),
    Fault(
        "process supervision adds up the steps before a token",
        "functional/advantages.py",
        "placed_RT.flip(1).cumsum(1).flip(1)",
        "placed_RT.cumsum(1)",
        (ADVANTAGES, "tests/rollout/test_advantage_estimators.py"),
    ),
    Fault(
        "replayed experts stand one place too late",
        "rollout/collate.py",
        "start = column + len(prompt) - 1",
        "start = column + len(prompt)",
        ("tests/rollout/test_collate.py",),
    ),
    Fault(
        "the tiles of the vocabulary forget the running maximum",
        "functional/logprobs.py",
        "shrink = (before - largest).exp()",
        "shrink = torch.ones_like(largest)",
        ("tests/functional/test_logprobs.py",),
    ),
    Fault(
        "a part of a minibatch divides by its own tokens",
        "rollout/collate.py",
        "    whole = [_take_rows(batch, chunk) for",
        "    whole = [replace(_take_rows(batch, chunk), n_sequences=1) for",
        ("tests/rollout/test_collate.py", ROLLOUT_DATA),
    ),
    Fault(
        "a part of a minibatch loses its last column",
        "rollout/collate.py",
        "used = int(batch.tokens.is_token[rows].sum(1).max())",
        "used = int(batch.tokens.is_token[rows].sum(1).max()) - 1",
        ("tests/rollout/test_collate.py",),
    ),
    Fault(
        "padding places of expert blocks get a gradient",
        "model/expert_blocks.py",
        "(choice_of_place < n_choices).unsqueeze(1), found, 0)",
        "(choice_of_place <= n_choices).unsqueeze(1), found, 0)",
        ("tests/model/test_expert_blocks.py", "tests/model/test_compiled.py"),
    ),
    Fault(
        "an expert's blocks begin one early",
        "model/expert_blocks.py",
        "(ends_E - begins_E + block_rows - 1) // block_rows",
        "(ends_E - begins_E) // block_rows",
        ("tests/model/test_expert_blocks.py",),
    ),
    Fault(
        "the clip keeps the better side",
        "functional/policy_loss.py",
        "return torch.minimum(",
        "return torch.maximum(",
        (POLICY_LOSS,),
    ),
    Fault(
        "long completions weigh more",
        "functional/policy_loss.py",
        "(1.0 / (tokens.n_sequences * tokens.completion_tokens))",
        "(1.0 / tokens.completion_tokens.sum().expand(len(tokens.completion_tokens)))",
        (POLICY_LOSS,),
    ),
    Fault(
        "the KL is taken from the wrong side",
        "functional/kl.py",
        "log_ratio = ref_logprobs - policy_logprobs",
        "log_ratio = policy_logprobs - ref_logprobs",
        ("tests/functional/test_kl.py", GRPO),
    ),
    Fault(
        "the expert bias weighs instead of only choosing",
        "model/router.py",
        "gate_weights(scores_NE, chosen_NK, config.route_scale,",
        "gate_weights(scores_NE + self.expert_bias, chosen_NK, config.route_scale,",
        (ROUTER,),
    ),
    Fault(
        "forbidden expert groups are masked with 0",
        "model/router.py",
        'float("-inf")',
        "0.0",
        (ROUTER,),
    ),
    Fault(
        "overloaded experts become easier to choose",
        "functional/expert_balance.py",
        "return bias_LE - bias_update_speed",
        "return bias_LE + bias_update_speed",
        ("tests/functional/test_expert_balance.py",),
    ),
    Fault(
        "only the last micro-batch's load moves the bias",
        "stages/base.py",
        "output.expert_load if self.expert_load is None else self.expert_load + output.expert_load",
        "output.expert_load",
        (BASE,),
    ),
    Fault(
        "MTP sees the embedding one place too early",
        "model/backbone.py",
        "shift_left(embedded, depth)",
        "shift_left(embedded, depth - 1)",
        ("tests/model/test_mtp.py",),
    ),
    Fault(
        "MTP targets are shifted by one",
        "stages/mtp.py",
        "targets_ahead(batch.token_ids, batch.document_ids, places)",
        "targets_ahead(batch.token_ids, batch.document_ids, max(1, places - 1))",
        (PRETRAIN, "tests/stages/test_mtp.py"),
    ),
    Fault(
        "attention crosses documents",
        "functional/masking.py",
        "same_BTT = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]",
        "same_BTT = document_ids_BT[:, :, None] >= document_ids_BT[:, None, :]",
        ("tests/functional/test_masking.py",),
    ),
    Fault(
        "a rollout is used again after it is used up",
        "data/rollout_data.py",
        "if self.rollout is None or self.rollout.number != number:",
        "if self.rollout is None:",
        (ROLLOUT_DATA,),
    ),
    Fault(
        "a stale rollout is not refused",
        "data/rollout_data.py",
        "if taken != step:",
        "if taken > step:",
        (ROLLOUT_DATA,),
    ),
    Fault(
        "the loader has no length, so that Lightning fetches ahead",
        "data/step_loader.py",
        "def __len__(self) -> int:\n        return len(self.dataset)",
        "def total(self) -> int:\n        return len(self.dataset)",
        ("tests/data/test_step_loader.py", ROLLOUT_DATA),
    ),
    Fault(
        "the sampler has a copy of the policy",
        "run/build/parts.py",
        "rollout.sampler(backbone, ",
        'rollout.sampler(__import__("copy").deepcopy(backbone), ',
        ("tests/run/build/test_parts.py",),
    ),
    Fault(
        "the sampler stores log-probs at temperature 1",
        "rollout/sampler.py",
        "policy_R = logprobs_RV.gather(",
        "policy_R = (logits_RV * self.config.sampling_temperature).log_softmax(-1).gather(",
        (SELF_CHECK, GRPO),
    ),
    Fault(
        "top-p leaks into the policy's log-probs",
        "rollout/sampler.py",
        "return token_R, policy_R, probabilities_RV",
        "return token_R, probabilities_RV.gather(-1, token_R.unsqueeze(-1)).squeeze(-1).log(), probabilities_RV",
        (SELF_CHECK,),
    ),
    Fault(
        "the reference is not frozen",
        "stages/reference.py",
        "copy.deepcopy(source, dict(halves)).requires_grad_(False).eval()",
        "source",
        (REFERENCE, GRPO),
    ),
    Fault(
        "the reference is refreshed at every step",
        "stages/reference.py",
        "optimizer_steps % self.refresh_every == 0",
        "optimizer_steps % self.refresh_every >= 0",
        (REFERENCE,),
    ),
    Fault(
        "the reference is refreshed after the checkpoint that should hold it",
        "stages/grpo.py",
        "def on_train_batch_start(",
        "def on_train_batch_end(",
        (REFERENCE,),
    ),
    Fault(
        "micro-batches are divided by their number once more",
        "stages/grpo.py",
        "return loss * self.micro_batches",
        "return loss",
        (GRPO,),
    ),
    Fault(
        "the self-check lets NaN pass",
        "callbacks/self_check.py",
        "if not difference <= allowed:",
        "if difference > allowed:",
        (SELF_CHECK,),
    ),
    Fault(
        "the rollout in use is not saved",
        "data/rollout_data.py",
        "if rollout is None:\n            return {}",
        "if True:\n            return {}",
        (ROLLOUT_DATA, "tests/callbacks/test_checkpoint.py"),
    ),
    Fault(
        "linear attention's state crosses the border of a document",
        "functional/linear_attention.py",
        "(segments == start_segment) & seen",
        "seen",
        (LINEAR_ATTENTION, LIGHTNING_ATTENTION),
    ),
    Fault(
        "linear attention forgets while a row waits in padding",
        "functional/linear_attention.py",
        "count = seen.cumsum(1)",
        "count = torch.ones_like(seen).cumsum(1)",
        (LINEAR_ATTENTION, LIGHTNING_ATTENTION),
    ),
    Fault(
        "heads read the keys of another group",
        "model/masked_attention.py",
        "part.repeat_interleave(heads // part.shape[dim], dim=dim)",
        "torch.cat([part] * (heads // part.shape[dim]), dim=dim)",
        ("tests/model/test_gqa.py",),
    ),
    Fault(
        "all layers of lightning attention forget alike",
        "functional/linear_attention.py",
        "(1.0 - layer /",
        "(1.0 - 0 * layer /",
        (LINEAR_ATTENTION, "tests/parity/test_minimax_attention.py"),
    ),
    Fault(
        "a refused draft stays in the cache",
        "model/kv_cache.py",
        "newest_R & ~rows_R",
        "newest_R",
        (CACHE, DRAFTS),
    ),
    Fault(
        "a refused draft keeps its position",
        "model/kv_cache.py",
        "self.positions - (newest_R & rows_R).long()",
        "self.positions",
        (CACHE, DRAFTS),
    ),
    Fault(
        "closing gaps keeps the padding",
        "model/kv_cache.py",
        "used_RS.long().argsort(",
        "(~used_RS).long().argsort(",
        (CACHE, DRAFTS),
    ),
    Fault(
        "a draft is taken without being verified",
        "rollout/mtp_drafts.py",
        "alive & (first == rows.draft)",
        "alive & (first == first)",
        (DRAFTS,),
    ),
    Fault(
        "the MTP module drafts from one place too early",
        "rollout/mtp_drafts.py",
        "(counts.long().sum(1) - 1).clamp(min=0)",
        "(counts.long().sum(1) - 2).clamp(min=0)",
        (DRAFTS,),
    ),
    Fault(
        "the MTP module is given the tokens that it stands at",
        "rollout/mtp_drafts.py",
        "token_ids[:, 1:], is_token[:, :-1], cache",
        "token_ids[:, :-1], is_token[:, :-1], cache",
        (DRAFTS,),
    ),
    Fault(
        "the MTP module does not look at its past",
        "model/backbone.py",
        "start = cache.length - next_ids.shape[1]",
        "start = 0",
        (MTP, DRAFTS),
    ),
    Fault(
        "the rejected response is preferred",
        "functional/preference_loss.py",
        "return chosen_P - rejected_P",
        "return rejected_P - chosen_P",
        ("tests/functional/test_preference_loss.py", "tests/stages/test_reward_model.py"),
    ),
    Fault(
        "the score is read one token too early",
        "rollout/preference_rows.py",
        "column + len(d) - 1 for",
        "column + len(d) - 2 for",
        ("tests/rollout/test_preference_rows.py", "tests/stages/test_reward_model.py"),
    ),
    Fault(
        "RL shows a reward model another text than training",
        "rollout/reward_scorer.py",
        "documents = [tuple(ids[-self.max_positions :]) for",
        "documents = [tuple(ids[: self.max_positions][:-1]) for",
        ("tests/rollout/test_reward_scorer.py",),
    ),
    Fault(
        "general data is there from the first step",
        "tasks/mixture.py",
        "for part in self.parts if part.from_step <= step",
        "for part in self.parts if part.from_step >= 0",
        ("tests/tasks/test_mixture.py",),
    ),
    Fault(
        "the two sides of the divergence change places",
        "functional/distillation.py",
        "return kl_divergence(teacher_NC, student_NC)",
        "return kl_divergence(student_NC, teacher_NC)",
        ("tests/functional/test_distillation.py", "tests/stages/test_distill.py"),
    ),
    Fault(
        "the soft loss shrinks with its temperature",
        "functional/distillation.py",
        "self.alpha * self.distill_temperature**2",
        "self.alpha * 1",
        ("tests/functional/test_distillation.py",),
    ),
    Fault(
        "what the cache leaves out counts for nothing",
        "functional/distillation.py",
        "return torch.cat([chosen_NK, rest_N1], dim=-1)",
        "return torch.cat([chosen_NK, rest_N1 * 0 - 50], dim=-1)",
        ("tests/functional/test_distillation.py",),
    ),
    Fault(
        "the teacher scores one place too late",
        "rollout/teacher.py",
        "index_select(0, target_index(batch) - 1)",
        "index_select(0, target_index(batch))",
        ("tests/rollout/test_teacher.py", "tests/stages/test_distill.py"),
    ),
)
