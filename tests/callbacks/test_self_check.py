"""The step-0 self-checks: they pass where sampler, trainer and reference agree, and each trips on the fault it is for."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from r1_lightning.callbacks import self_check
from r1_lightning.callbacks.self_check import (
    CHECK_ROLLOUT,
    Agreement,
    SelfCheck,
    SelfCheckFailed,
    flipped_tokens,
    measure_agreement,
    small_rollout,
    touched_tokens,
)
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rewards.combine import WeightedSum
from r1_lightning.rollout.collate import collate
from r1_lightning.rollout.scoring import score_completions
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import Generation, GRPOBatch, TokenBatch
from r1_lightning.types.text import Verdict
from tests.support.miniature import (
    PAD,
    Batches,
    Miniature,
    Spy,
    Sums,
    backbone,
    backwards,
    fingerprint,
    rollout_config,
    sharded,
    trainer,
)
from tests.support.processes import in_processes


def check(miniature: Miniature, folder: Path, module: Any = None, generate: Any = None, steps: int = 1) -> L.Trainer:
    """A run that begins with the self-check."""
    fit = trainer(steps, folder, [SelfCheck()])
    fit.fit(module or miniature.grpo(), datamodule=miniature.rollouts(generate))
    return fit


def mini(**rollout: Any) -> Miniature:
    return Miniature(max_steps=2, rollout=rollout_config(**rollout))


@pytest.mark.parametrize(
    "sampling", [{}, {"sampling_temperature": 0.7}, {"top_p": 0.8}, {"sampling_temperature": 0.7, "top_p": 0.8}]
)
def test_passes_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], sampling: dict[str, float]) -> None:
    fit = check(mini(**sampling), tmp_path)
    said = capsys.readouterr().out
    assert fit.global_step == 1
    assert "self-check: sampler and training forward agree to" in said
    assert "0.00% of tokens routed differently, KL to the reference 0\n" in said


def test_what_it_passes_on_is_tight_and_not_empty() -> None:
    miniature = mini(sampling_temperature=0.7, top_p=0.8)
    maker = miniature.maker()
    rollout = small_rollout(maker, Sums(), 0, 8, 0)
    found = measure_agreement(rollout, maker, 0, miniature.model, copy.deepcopy(miniature.model).eval(), 0.7)
    assert rollout.number == CHECK_ROLLOUT and rollout.rewards.shape == (8, 4)
    assert 0.0 < found.max_difference < 1e-5 and found.flipped_fraction == 0.0 and found.kl_ref_max == 0.0
    assert measure_agreement(rollout, maker, 0, miniature.model, None, 0.7) == dataclasses.replace(
        found, kl_ref_max=None
    )
    assert int(rollout.generation.completion_mask.sum()) > 100
    # Top-p renormalises what is drawn from, so the two stored log-probs differ, and it is the policy's that agrees.
    generation = rollout.generation
    assert (generation.sampler_logprobs - generation.policy_logprobs).max() > 0.05


def test_a_stale_copy_in_the_sampler_trips_it(tmp_path: Path) -> None:
    miniature = mini()
    old = copy.deepcopy(miniature.model)
    rollout = miniature.maker()(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    backwards(miniature.grpo(), [collate(rollout, torch.arange(12), 24, PAD)], tmp_path)  # one optimizer step
    with pytest.raises(SelfCheckFailed, match="stale weights in the sampler"):
        check(miniature, tmp_path, generate=miniature.sampler(old))
    assert check(miniature, tmp_path).global_step == 1  # with the policy's own weights all is well


@pytest.mark.parametrize(
    "name", ["embedding.weight", "blocks.0.attention.q_up.weight", "blocks.1.feed_forward.router.expert_bias"]
)
def test_one_changed_weight_trips_it(tmp_path: Path, name: str) -> None:
    miniature = mini()
    copied = copy.deepcopy(miniature.model)
    with torch.no_grad():
        copied.state_dict()[name].view(-1)[3] += 0.5
    with pytest.raises(SelfCheckFailed, match=r"differ by|chose other experts"):
        check(miniature, tmp_path, generate=miniature.sampler(copied))


@pytest.mark.parametrize(("sampled_at", "trained_at"), [(0.7, 1.0), (1.0, 0.7), (1.0, 0.999)])
def test_another_temperature_trips_it(tmp_path: Path, sampled_at: float, trained_at: float) -> None:
    miniature = mini(sampling_temperature=sampled_at)
    with pytest.raises(SelfCheckFailed, match="another temperature"):
        check(miniature, tmp_path, miniature.grpo(sampling_temperature=trained_at))


def test_top_p_mixed_into_the_policys_logprobs_trips_it(tmp_path: Path) -> None:
    miniature = mini(top_p=0.8)
    sampler = miniature.sampler()

    def mixed(*arguments: Any) -> Generation:
        generation = sampler(*arguments)
        return dataclasses.replace(generation, policy_logprobs=generation.sampler_logprobs)

    with pytest.raises(SelfCheckFailed, match="differ by"):
        check(miniature, tmp_path, generate=mixed)


def test_logprobs_that_are_no_numbers_trip_it(tmp_path: Path) -> None:
    miniature = mini()
    sampler = miniature.sampler()

    def broken(*arguments: Any) -> Generation:
        generation = sampler(*arguments)
        return dataclasses.replace(generation, policy_logprobs=generation.policy_logprobs * float("nan"))

    with pytest.raises(SelfCheckFailed, match="differ by nan"):
        check(miniature, tmp_path, generate=broken)


@pytest.mark.parametrize("size", [0.01, 1.0])
def test_a_perturbed_reference_trips_it(tmp_path: Path, size: float) -> None:
    miniature = mini()
    module = miniature.grpo()
    with torch.no_grad():
        module.reference.backbone.head.weight[2, 5] += size
    with pytest.raises(SelfCheckFailed, match="not exactly 0"):
        check(miniature, tmp_path, module)


def test_a_reference_of_other_experts_trips_it(tmp_path: Path) -> None:
    miniature = mini()
    module = miniature.grpo()
    module.reference.backbone.set_expert_bias(backbone(seed=4).expert_bias())
    with pytest.raises(SelfCheckFailed, match="not exactly 0"):
        check(miniature, tmp_path, module)


class FlippedRoutes:
    """A sampler that reports other experts for some tokens than it used."""

    record_routes = False

    def __init__(self, miniature: Miniature, row: int, position: int) -> None:
        self.sampler, self.row, self.position = miniature.sampler(), row, position

    def __call__(self, prompts: Any, copies: int, keys: Tensor, max_new_tokens: int | None = None) -> Generation:
        self.sampler.record_routes = self.record_routes
        generation = self.sampler(prompts, copies, keys, max_new_tokens)
        if not generation.routes.numel():
            return generation
        routes = generation.routes.clone()
        routes[0, self.row, self.position] = (routes[0, self.row, self.position] + 1) % 4
        return dataclasses.replace(generation, routes=routes)


def test_routes_that_flipped_too_often_trip_it(tmp_path: Path) -> None:
    # One flipped token among some 200: 0.5 %, above 0.1 %.
    miniature = mini()
    with pytest.raises(SelfCheckFailed, match=r"[\d.]+% of tokens chose other experts in the training forward"):
        check(miniature, tmp_path, generate=FlippedRoutes(miniature, 0, 0))


def test_a_rare_flip_is_reported_and_let_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = mini()
    module, data = miniature.grpo(), miniature.rollouts(FlippedRoutes(miniature, 0, 0))
    trainer(1, tmp_path, [SelfCheck(max_flipped_fraction=0.5)]).fit(module, datamodule=data)
    assert "0.00% of tokens" not in capsys.readouterr().out


def test_a_flip_counts_once_and_touches_the_rest_of_its_completion() -> None:
    miniature = mini(max_new_tokens=6)
    maker = miniature.maker(FlippedRoutes(miniature, 5, 2))
    rollout = small_rollout(maker, Sums(), 0, 3, 0)
    rows = torch.tensor([7, 5, 0])
    batch = collate(rollout, rows, 24, PAD)
    scored = score_completions(miniature.model, batch, 1.0)
    flipped = flipped_tokens(rollout, rows, batch, scored.output.routes)
    length = int(rollout.generation.completion_mask[5].sum())
    assert length > 3, "row 5 is too short to tell: choose another"
    sequence = batch.sequence_ids[batch.completion_mask]
    assert flipped.sum() == 1
    assert flipped[sequence == 1].tolist() == [False] * 2 + [True] + [False] * (length - 3)
    touched = touched_tokens(flipped, batch)
    assert touched.sum() == length - 2
    assert touched[sequence == 1].tolist() == [False] * 2 + [True] * (length - 2)


def test_the_share_of_flipped_tokens_is_of_those_that_flipped_themselves() -> None:
    miniature = mini()
    rollout = small_rollout(miniature.maker(FlippedRoutes(miniature, 0, 0)), Sums(), 0, 3, 0)
    found = measure_agreement(
        rollout, miniature.maker(), 0, miniature.model, copy.deepcopy(miniature.model).eval(), 1.0
    )
    tokens = int(rollout.generation.completion_mask.sum())
    assert int(rollout.generation.completion_mask[0].sum()) > 1
    assert found.flipped_fraction == pytest.approx(1 / tokens, rel=1e-6)


def test_a_model_in_bf16_is_held_to_what_bf16_can_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniature = mini()
    miniature.model.precision = PlainPrecision("bf16")
    fit = check(miniature, tmp_path)
    said = capsys.readouterr().out
    assert fit.global_step == 1 and "KL to the reference 0\n" in said
    strict = mini()
    strict.model.precision = PlainPrecision("bf16")
    with pytest.raises(SelfCheckFailed, match="differ by"):  # the bound is really another one than FP32's
        trainer(1, tmp_path, [SelfCheck(tolerance=1e-4)]).fit(strict.grpo(), datamodule=strict.rollouts())


def test_flips_are_faults_in_fp32_alone() -> None:
    some = Agreement(max_difference=5e-5, mean_difference=1e-6, flipped_fraction=0.02, kl_ref_max=None)
    assert SelfCheck().judge(some, True, PlainPrecision("bf16")).endswith("tokens routed differently, no reference")
    assert "2.00% of tokens routed differently" in SelfCheck().judge(some, True, PlainPrecision("bf16"))
    with pytest.raises(SelfCheckFailed, match=r"2\.00% of tokens chose other experts"):
        SelfCheck().judge(some, True, PlainPrecision("fp32"))
    with pytest.raises(SelfCheckFailed, match=r"2\.00% of tokens"):  # what is set by hand holds for any type
        SelfCheck(max_flipped_fraction=0.01).judge(some, True, PlainPrecision("bf16"))


def test_in_bf16_the_mean_tells_rounding_from_a_fault() -> None:
    """30 layers round to 0.25 nats at most and 0.03 on average; another temperature moves every token."""
    rounding = Agreement(max_difference=0.25, mean_difference=0.03, flipped_fraction=0.0, kl_ref_max=None)
    assert "agree to 2.5e-01 nats (mean 3e-02), 0.00%" in SelfCheck().judge(rounding, True, PlainPrecision("bf16"))
    fault = dataclasses.replace(rounding, mean_difference=0.1)
    with pytest.raises(SelfCheckFailed, match=r"differ by 1\.00e-01 nats on average, more than 8e-02"):
        SelfCheck().judge(fault, True, PlainPrecision("bf16"))
    with pytest.raises(SelfCheckFailed, match=r"differ by 2\.50e-01 nats, more than 1e-04"):
        SelfCheck().judge(rounding, True, PlainPrecision("fp32"))
    with pytest.raises(SelfCheckFailed, match="more than 2e-02"):  # what is set by hand holds for both
        SelfCheck(tolerance=0.02).judge(rounding, True, PlainPrecision("bf16"))


def test_the_minibatch_is_scored_where_the_policy_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    moved = GRPOBatch.to

    def to(batch: GRPOBatch, device: torch.device, **settings: Any) -> GRPOBatch:
        asked.append(device)
        return moved(batch, device, **settings)

    miniature = mini()
    rollout = small_rollout(miniature.maker(), Sums(), 0, 3, 0)
    monkeypatch.setattr(GRPOBatch, "to", to)
    measure_agreement(rollout, miniature.maker(), 0, miniature.model, miniature.model, 1.0)
    assert asked == [torch.device("cpu")] * 2  # where the policy is, and where its reference is
    monkeypatch.setattr(self_check, "device_of", lambda policy: torch.device("meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):  # no data there, so nothing can be counted or chosen
        measure_agreement(rollout, miniature.maker(), 0, miniature.model, miniature.model, 1.0)
    assert asked[2] == torch.device("meta")


@pytest.mark.requires_gpu
def test_it_passes_on_a_gpu(tmp_path: Path) -> None:
    miniature = mini()
    fit = trainer(1, tmp_path, [SelfCheck(tolerance=1e-3)], accelerator="gpu")
    fit.fit(miniature.grpo(), datamodule=miniature.rollouts())
    assert fit.global_step == 1


def test_flipped_tokens_are_left_out_of_the_difference() -> None:
    """Their log-probs may differ by as much as they like: that is what a flip does."""
    miniature = mini()
    maker = miniature.maker(FlippedRoutes(miniature, 0, 0))
    rollout = small_rollout(maker, Sums(), 0, 3, 0)
    spoiled = rollout.generation.policy_logprobs.clone()
    spoiled[0] -= 3.0
    rollout = dataclasses.replace(rollout, generation=dataclasses.replace(rollout.generation, policy_logprobs=spoiled))
    found = measure_agreement(rollout, maker, 0, miniature.model, copy.deepcopy(miniature.model).eval(), 1.0)
    assert found.max_difference < 1e-5 and found.flipped_fraction > 0.0


def test_a_sampler_that_records_no_routes_is_checked_without_them(tmp_path: Path) -> None:
    miniature = mini()
    sampler = miniature.sampler()
    assert check(miniature, tmp_path, generate=lambda *arguments: sampler(*arguments)).global_step == 1


def test_no_end_of_sequence_is_warned_of(tmp_path: Path) -> None:
    miniature = mini(max_new_tokens=2)
    with torch.no_grad():
        miniature.model.head.weight[Miniature().maker().tokenizer.eos_id] = 0.0
        miniature.model.head.weight *= 20  # every other token that scores above 0 is far likelier than EOS
    with pytest.warns(UserWarning, match="no completion ended with EOS"):
        check(miniature, tmp_path)


def test_equal_rewards_everywhere_are_warned_of(tmp_path: Path) -> None:
    miniature = mini()
    data = miniature.rollouts()

    class AlwaysRight:
        name = "accuracy"

        def __call__(self, *_: Any) -> Verdict:
            return Verdict(1.0, "")

    data.dataset.maker = dataclasses.replace(data.dataset.maker, reward=WeightedSum([AlwaysRight()]))
    with pytest.warns(UserWarning, match="every advantage is 0"):
        trainer(1, tmp_path, [SelfCheck()]).fit(miniature.grpo(), datamodule=data)


def test_no_warning_where_there_is_something_to_learn(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    check(mini(), tmp_path)
    assert not [warning for warning in recwarn if "self-check" in str(warning.message)]


def test_it_runs_at_every_start_and_a_moved_reference_is_no_fault_later(tmp_path: Path) -> None:
    """A resumed run has a reference that is not the policy: the KL is then no number to check."""
    miniature = mini()
    module, data = miniature.grpo(), miniature.rollouts()
    first = trainer(2, tmp_path, [SelfCheck(), Spy("on_train_batch_end", _save_after_one(tmp_path))])
    first.fit(module, datamodule=data)
    second = trainer(2, tmp_path, [SelfCheck()])
    again = mini()
    second.fit(again.grpo(), datamodule=again.rollouts(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert second.global_step == 2 and fingerprint(again.model) == fingerprint(miniature.model)
    stale = mini()
    fit = trainer(2, tmp_path, [SelfCheck()])
    with pytest.raises(SelfCheckFailed, match="stale weights"):  # the sampler missed the checkpoint's weights
        fit.fit(
            stale.grpo(),
            datamodule=stale.rollouts(stale.sampler(copy.deepcopy(stale.model))),
            ckpt_path=tmp_path / "one.ckpt",
            weights_only=True,
        )


def _save_after_one(folder: Path) -> Any:
    def save(fit: L.Trainer, *_: Any) -> None:
        if fit.global_step == 1:
            fit.save_checkpoint(folder / "one.ckpt", weights_only=False)

    return save


# ---------------------------------------------------------------------------------------------- stages without rollouts


class Nearsighted(DeepSeekBackbone):
    """A backbone that knows no borders of documents."""

    def hidden(self, batch: TokenBatch, *arguments: Any, **keywords: Any) -> Any:
        one = TokenBatch(batch.token_ids, batch.position_ids, batch.is_token.long())
        return super().hidden(one, *arguments, **keywords)


class Forgetful(DeepSeekBackbone):
    """A backbone whose cached steps are not its forward."""

    def step(self, *arguments: Any) -> Any:
        output = super().step(*arguments)
        return dataclasses.replace(output, hidden=output.hidden + 0.5)


def fit_stage(
    stage: str,
    miniature: Miniature,
    folder: Path,
    check: SelfCheck | None = None,
    processes: Processes = ONE,
    **settings: Any,
) -> L.Trainer:
    modules: dict[str, tuple[Any, Any]] = {
        "pretrain": (miniature.pretrain, miniature.text),
        "sft": (miniature.sft, miniature.examples),
        "distill": (miniature.distill, miniature.traces),
        "on_policy": (miniature.distill, miniature.on_policy),
        "reward_model": (miniature.reward_model, miniature.preferences),
        "dpo": (miniature.dpo, miniature.preferences),
    }
    module, data = modules[stage]
    fit = trainer(1, folder, [check or SelfCheck()], processes, **settings)
    fit.fit(module(), datamodule=data())
    return fit


STAGES = ["pretrain", "sft", "distill", "on_policy", "reward_model", "dpo"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_checks_its_rows_and_its_cache(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = Miniature(max_steps=1)
    assert fit_stage(stage, miniature, tmp_path).global_step == 1
    said = re.search(
        r"packed rows agree with texts alone to (\S+) nats, cached steps .* to (\S+)", capsys.readouterr().out
    )
    assert said is not None and all(0.0 <= float(number) < 1e-5 for number in said.groups())


def _checked(processes: Processes, stage: str, folder: Path) -> list[str]:
    said: list[str] = []

    class Told(SelfCheck):
        def judge_rows(self, found: Any, precision: Any) -> str:
            assert 0.0 <= found.packed < 1e-5 and 0.0 <= found.cached < 1e-5
            said.append(super().judge_rows(found, precision))
            return said[-1]

    fit_stage(stage, Miniature(max_steps=1, processes=processes), folder, Told(), processes, **sharded(processes))
    return said


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_each_process_checks_its_rows_of_a_model_in_shares(stage: str, tmp_path: Path) -> None:
    """Of a reward model the copy holds its language model, whose part in shares is no root that could gather itself."""
    assert [len(said) for said in in_processes(2, _checked, stage, tmp_path)] == [1, 1]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("kind", "message"),
    [(Nearsighted, "a text in a packed row and alone differ"), (Forgetful, "cached steps and the forward differ")],
)
def test_every_stage_refuses_a_model_that_sees_its_neighbours_or_forgets(
    stage: str, kind: Any, message: str, tmp_path: Path
) -> None:
    model = kind(backbone().config)
    model.load_state_dict(backbone().state_dict())
    with pytest.raises(SelfCheckFailed, match=message):
        fit_stage(stage, Miniature(model=model, max_steps=1), tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_the_check_changes_no_bit_of_any_stage(stage: str, tmp_path: Path) -> None:
    with_check, without = Miniature(max_steps=1), Miniature(max_steps=1)
    fit_stage(stage, with_check, tmp_path)
    fit_stage(stage, without, tmp_path, check=L.Callback())  # type: ignore[arg-type]
    assert fingerprint(with_check.model) == fingerprint(without.model)


def test_a_stage_of_other_batches_and_other_models_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miniature = Miniature(max_steps=1)
    trainer(1, tmp_path, [SelfCheck()]).fit(
        miniature.pretrain(), Batches([next(iter(miniature.text().train_dataloader()))])
    )
    assert "self-check" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": 0}, r"callbacks\.self_check\.prompts=0"),
        ({"tolerance": 0.0}, r"callbacks\.self_check\.tolerance=0\.0"),
        ({"max_flipped_fraction": 1.5}, r"callbacks\.self_check\.max_flipped_fraction=1\.5"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        SelfCheck(**settings)
