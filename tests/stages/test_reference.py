"""The reference policy: frozen, never counted, refreshed at its steps and at no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from r1_lightning.artefacts.checkpoint_file import checkpoint_to_resume
from r1_lightning.artefacts.files import sha256_of
from r1_lightning.artefacts.leftovers import LAST
from r1_lightning.artefacts.weights import save_weights
from r1_lightning.callbacks.checkpoint import ResumeCheckpoint
from r1_lightning.callbacks.self_check import SelfCheck
from r1_lightning.functional.importance_sampling import CISPO, TruncatedImportanceSampling
from r1_lightning.functional.policy_loss import DAPO, DrGRPO, TokenLevelGRPO
from r1_lightning.functional.sequence_policy_loss import GSPO
from r1_lightning.model.backbone import DeepSeekBackbone
from r1_lightning.model.config import MLA_FIELDS
from r1_lightning.model.cost import tensor_bytes
from r1_lightning.model.gqa import GQAKind
from r1_lightning.model.hf_model import HFBackbone, HFModelConfig
from r1_lightning.model.lora import LoraSettings, is_adapter
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.rollout.collate import collate
from r1_lightning.rollout.scoring import reference_logprobs, score_completions
from r1_lightning.stages import reference as reference_file
from r1_lightning.stages.reference import BaseAsReference, NoReference, ReferencePolicy, held_in_bf16, reference_of
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.tensors import GRPOBatch
from tests.model.tiny import pack, random_documents, randomise, tiny
from tests.support.hf_folders import DENSE, adapted, move_adapters
from tests.support.memory import LiveTensors
from tests.support.miniature import PAD, CharTokenizer, Miniature, Spy, Sums, backbone, fingerprint, trainer


def test_a_copy_that_shares_nothing_and_never_trains() -> None:
    policy = backbone().train()
    reference = ReferencePolicy(policy, 0)
    assert fingerprint(reference.backbone) == fingerprint(policy)
    assert not {p.data_ptr() for p in reference.parameters()} & {p.data_ptr() for p in policy.parameters()}
    assert not any(parameter.requires_grad for parameter in reference.parameters())
    assert all(parameter.requires_grad for parameter in policy.parameters())
    assert policy.training


def test_it_stays_in_evaluation_mode() -> None:
    reference = ReferencePolicy(backbone(), 0)
    reference.train()
    assert not any(module.training for module in reference.modules())


def test_with_a_device_of_its_own_it_stays_where_it_is() -> None:
    """The meta device stands for the GPU to which the Trainer moves the stage."""
    own, beside = ReferencePolicy(backbone(), 0, torch.device("cpu")), ReferencePolicy(backbone(), 0)
    torch.nn.ModuleList([own, beside]).to("meta")
    places = [{parameter.device.type for parameter in made.parameters()} for made in (own, beside)]
    assert places == [{"cpu"}, {"meta"}]


def test_a_dry_run_moves_no_values() -> None:
    with torch.device("meta"):
        reference = ReferencePolicy(backbone(), 0, torch.device("cpu"))
    assert {parameter.device.type for parameter in reference.parameters()} == {"meta"}


def test_a_device_for_a_reference_that_is_no_copy_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"role_devices\.reference='cpu' .* an objective without KL has no reference"
    ):
        reference_of(backbone(), 0, False, torch.device("cpu"))
    with pytest.raises(InvalidInput, match=r"role_devices\.reference='cpu' .* the policy's own base"):
        reference_of(adapted(), 0, True, torch.device("cpu"))


def test_refresh_is_due_at_multiples_of_its_period() -> None:
    policy = backbone()
    reference = ReferencePolicy(policy, 3)
    assert [step for step in range(10) if reference.refresh_if_due(step, policy)] == [3, 6, 9]
    never = ReferencePolicy(policy, 0)
    assert [step for step in range(10) if never.refresh_if_due(step, policy)] == []


def test_refresh_copies_every_weight_and_buffer() -> None:
    policy = backbone(seed=0)
    reference = ReferencePolicy(policy, 2)
    policy.load_state_dict(backbone(seed=1).state_dict())
    assert not reference.refresh_if_due(1, policy) and fingerprint(reference.backbone) != fingerprint(policy)
    assert reference.refresh_if_due(2, policy) and fingerprint(reference.backbone) == fingerprint(policy)
    assert torch.equal(reference.backbone.expert_bias(), policy.expert_bias())
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def watched(miniature: Miniature, refresh_every: int, folder: Path, **settings: Any) -> list[tuple[int, bool, float]]:
    """(step, whether the reference equals the policy there, kl_ref) of every step of a run."""
    seen: list[tuple[int, bool]] = []
    kl: list[float] = []

    def inside(fit: L.Trainer, stage: Any, *_: Any) -> None:
        seen.append((fit.global_step, fingerprint(stage.reference.backbone) == fingerprint(stage.backbone)))

    def after(fit: L.Trainer, *_: Any) -> None:
        kl.append(float(fit.callback_metrics["policy/kl_ref"]))

    spies = [Spy("on_before_backward", inside), Spy("on_train_batch_end", after), *settings.pop("callbacks", ())]
    fit = trainer(miniature.max_steps, folder, spies)
    module = miniature.grpo(reference_refresh_steps=refresh_every)
    fit.fit(module, datamodule=miniature.rollouts(), **settings)
    return [(step, same, value) for (step, same), value in zip(seen, kl, strict=True)]


def test_kl_is_exactly_zero_at_the_start_and_right_after_each_refresh(tmp_path: Path) -> None:
    steps = watched(Miniature(max_steps=8), 3, tmp_path)
    assert [step for step, same, _ in steps if same] == [0, 3, 6]
    assert [step for step, _, kl in steps if kl == 0.0] == [0, 3, 6]
    assert min(kl for _, same, kl in steps if not same) > 1e-6


def test_without_refresh_it_is_the_policy_of_the_start_for_ever(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=5)
    start = fingerprint(miniature.model)
    module = miniature.grpo(reference_refresh_steps=0)
    trainer(5, tmp_path).fit(module, datamodule=miniature.rollouts())
    assert fingerprint(module.reference.backbone) == start != fingerprint(module.backbone)


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_stopped_around_a_refresh_resumes_with_the_same_reference(tmp_path: Path, stop: int) -> None:
    whole = watched(Miniature(max_steps=6), 3, tmp_path / "whole")
    halt = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= stop))
    folder = tmp_path / "parts"
    first = watched(Miniature(max_steps=6), 3, folder, callbacks=[ResumeCheckpoint(folder, 1), halt])
    resume = {"ckpt_path": folder / "last.ckpt", "weights_only": True}
    second = watched(Miniature(max_steps=6), 3, folder, **resume)
    assert len(first) == stop and first + second == whole


def test_a_bad_period_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"stage\.reference_refresh_steps=-1"):
        ReferencePolicy(backbone(), -1)


# ------------------------------------------------------------------------------------- saved once, cited by hash


def run(folder: Path, steps: int, resume: bool = False) -> tuple[Miniature, Any]:
    miniature = Miniature(max_steps=12)
    module = miniature.grpo(reference_refresh_steps=4)
    stop = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= steps))
    fit = trainer(12, folder, [ResumeCheckpoint(folder, 1), stop])
    path = folder / LAST if resume else None
    fit.fit(module, datamodule=miniature.rollouts(), ckpt_path=path, weights_only=True if resume else None)
    return miniature, module


def test_checkpoints_cite_a_file_of_its_own_and_hold_no_reference(tmp_path: Path) -> None:
    run(tmp_path, 3)
    state = torch.load(tmp_path / LAST, weights_only=True)
    file = tmp_path / "reference" / "step-0.safetensors"
    assert state["reference"] == {"version": 0, "sha256": sha256_of(file)}
    assert not any(name.startswith("reference.") for name in state["state_dict"])
    written = file.stat().st_mtime_ns
    run(tmp_path, 4, resume=True)
    assert file.stat().st_mtime_ns == written  # one version, one file, however many checkpoints


def test_a_refresh_makes_a_new_file_and_the_last_two_are_kept(tmp_path: Path) -> None:
    def files() -> list[str]:
        return sorted(path.name for path in (tmp_path / "reference").iterdir())

    run(tmp_path, 5)
    assert files() == ["step-0.safetensors", "step-4.safetensors"]  # a kill now may still need the older one
    run(tmp_path, 6, resume=True)
    assert files() == ["step-0.safetensors", "step-4.safetensors"]  # until then the checkpoint of step 4 was there, too
    run(tmp_path, 7, resume=True)
    assert files() == ["step-4.safetensors"]
    run(tmp_path, 11, resume=True)
    assert files() == ["step-8.safetensors"]


def test_resumed_it_is_the_same_reference(tmp_path: Path) -> None:
    whole, expected = run(tmp_path / "whole", 12)
    run(tmp_path / "parts", 6)
    resumed, found = run(tmp_path / "parts", 12, resume=True)
    assert found.reference.version == expected.reference.version == 8
    assert fingerprint(found.reference.backbone) == fingerprint(expected.reference.backbone)
    assert fingerprint(resumed.model) == fingerprint(whole.model)


@pytest.mark.parametrize("damage", ["missing", "another"])
def test_a_reference_that_is_not_the_cited_one_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    run(tmp_path, 3)
    file = tmp_path / "reference" / "step-0.safetensors"
    if damage == "missing":
        file.unlink()
    else:
        save_weights(backbone(seed=5), file)
    with pytest.raises(InvalidInput, match=r"reference .*step-0\.safetensors=.* the checkpoint cites") as error:
        run(tmp_path, 5, resume=True)
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------- the base of a policy with adapters


def with_adapters(max_steps: int = 3, moved: bool = True, **settings: Any) -> Miniature:
    policy: Any = adapted(vocab_size=CharTokenizer.vocab_size, **settings)
    return Miniature(model=move_adapters(policy) if moved else policy, max_steps=max_steps)


def sampled(miniature: Miniature) -> GRPOBatch:
    rollout = miniature.maker()(0, 0, [Sums().train_problem(0, index) for index in range(3)])
    return collate(rollout, torch.arange(12), miniature.rollout.row_tokens, PAD)


def test_a_policy_with_adapters_takes_its_base() -> None:
    assert isinstance(reference_of(with_adapters().model, 0, is_needed=True), BaseAsReference)
    assert isinstance(reference_of(backbone(), 3, is_needed=True), ReferencePolicy)


def test_its_log_probs_are_those_of_the_model_without_adapters() -> None:
    miniature = with_adapters()
    batch = sampled(miniature)
    found = BaseAsReference(miniature.model, 0).logprobs(batch, 0.7)
    expected = reference_logprobs(with_adapters(moved=False).model.eval(), batch, 0.7)
    assert torch.equal(found, expected) and not found.requires_grad
    assert (found - score_completions(miniature.model, batch, 0.7).logprobs).abs().max() > 0.01


def test_dropout_and_modes_do_not_reach_it() -> None:
    miniature = with_adapters(attention_dropout=0.5)
    batch, policy = sampled(miniature), miniature.model.train()
    policy.head.eval()  # a part in another mode than the whole
    reference, modes = BaseAsReference(policy, 0), [part.training for part in policy.modules()]
    assert torch.equal(reference.logprobs(batch, 1.0), reference.logprobs(batch, 1.0))
    assert [part.training for part in policy.modules()] == modes and len(set(modes)) == 2


def test_the_policy_is_as_before_also_after_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    miniature = with_adapters()
    batch, policy = sampled(miniature), miniature.model.train()
    before = score_completions(policy, batch, 1.0).logprobs
    flags, reference = [p.requires_grad for p in policy.parameters()], BaseAsReference(policy, 0)

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("inside")

    with monkeypatch.context() as patch:
        patch.setattr(policy, "hidden", fails)
        with pytest.raises(RuntimeError, match="inside"):
            reference.logprobs(batch, 1.0)
    assert all(part.training for part in policy.modules())
    assert [p.requires_grad for p in policy.parameters()] == flags
    assert torch.equal(score_completions(policy, batch, 1.0).logprobs, before)


def test_a_step_s_gradients_are_those_with_a_frozen_copy() -> None:
    """The reference's forward lies between the policy's forward and its backward."""

    def gradients(reference: Any) -> dict[str, torch.Tensor]:
        miniature = with_adapters()
        module, batch = miniature.grpo(), sampled(miniature)
        if reference is not None:
            module.reference = reference
        module.training_step(batch, 0).backward()
        return {name: p.grad for name, p in module.backbone.named_parameters() if p.grad is not None}

    shared, copied = gradients(None), gradients(ReferencePolicy(with_adapters(moved=False).model, 0))
    assert shared.keys() == copied.keys() and {is_adapter(name) for name in shared} == {True}
    assert all(torch.equal(gradient, copied[name]) for name, gradient in shared.items())
    assert any(bool(gradient.any()) for gradient in shared.values())


def test_it_takes_no_memory_and_has_no_place_in_the_stage() -> None:
    miniature = with_adapters()
    with LiveTensors() as live:
        module = miniature.grpo()
    assert live.peak == 0 and tensor_bytes(module) == tensor_bytes(miniature.model)
    assert {name.split(".")[0] for name in module.state_dict()} == {"backbone"}
    assert not list(module.reference.backbone.__dict__.keys() - {"policy"})


def test_fine_tuning_with_dropout_resumes_to_the_same_bits(tmp_path: Path) -> None:
    """The masks come from the global generator, whose state is in the checkpoint; a new process begins with another one."""

    def finished(folder: Path, steps: int, seed: int, dropout: float = 0.3) -> int:
        miniature = with_adapters(max_steps=4, moved=False, settings=LoraSettings(2, 8, dropout=dropout))
        torch.manual_seed(seed)
        stop = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= steps))
        fit, path = trainer(4, folder, [ResumeCheckpoint(folder, 1), stop]), checkpoint_to_resume(folder)
        weights_only = True if path else None
        fit.fit(miniature.sft(), miniature.examples(), ckpt_path=path, weights_only=weights_only)
        return fingerprint(miniature.model)

    whole = finished(tmp_path / "whole", 4, seed=1)
    assert finished(tmp_path / "none", 4, seed=1, dropout=0.0) != whole
    finished(tmp_path / "parts", 2, seed=1)
    assert finished(tmp_path / "parts", 4, seed=2) == whole


def test_a_run_writes_no_reference_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    def finished(folder: Path, steps: int, resume: bool = False) -> Any:
        miniature = with_adapters(max_steps=4, moved=False)
        module = miniature.grpo()
        stop = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= steps))
        fit = trainer(4, folder, [ResumeCheckpoint(folder, 1), SelfCheck(prompts=2), stop])
        path = folder / LAST if resume else None
        fit.fit(module, datamodule=miniature.rollouts(), ckpt_path=path, weights_only=True if resume else None)
        return module

    start = fingerprint(with_adapters(moved=False).model)
    whole = finished(tmp_path / "whole", 4)
    finished(tmp_path / "parts", 2)
    assert not (tmp_path / "parts" / "reference").exists()
    assert "reference" not in torch.load(tmp_path / "parts" / LAST, weights_only=True)
    assert fingerprint(finished(tmp_path / "parts", 4, resume=True).backbone) == fingerprint(whole.backbone) != start
    base, after = with_adapters(moved=False).model.state_dict(), whole.backbone.state_dict()
    assert all(torch.equal(tensor, after[name]) != is_adapter(name) for name, tensor in base.items())


def test_the_kl_to_the_base_begins_at_exactly_zero_and_grows(tmp_path: Path) -> None:
    kl: list[float] = []
    miniature = with_adapters(max_steps=4, moved=False)
    spy = Spy("on_train_batch_end", lambda fit, *_: kl.append(float(fit.callback_metrics["policy/kl_ref"])))
    trainer(4, tmp_path, [spy]).fit(miniature.grpo(), datamodule=miniature.rollouts())
    assert kl[0] == 0.0 and min(kl[1:]) > 1e-7


def test_a_refresh_of_the_base_is_refused() -> None:
    message = r"stage\.reference_refresh_steps=40 is not allowed: .*set stage\.reference_refresh_steps=0"
    with pytest.raises(InvalidInput, match=message):
        with_adapters().grpo(reference_refresh_steps=40)
    assert not BaseAsReference(with_adapters().model, 0).refresh_if_due(40, with_adapters().model)


# ------------------------------------------------------------------------------------ an objective without a reference

WITHOUT_KL = [DAPO(), DrGRPO(max_completion_tokens=10), GSPO(), CISPO(), TruncatedImportanceSampling(DAPO())]


def weights_after(objective: Any, folder: Path, has_reference: bool) -> int:
    """The fingerprint of the weights after 4 steps; `has_reference` puts in the frozen copy that every stage had once."""
    miniature = Miniature(max_steps=4)
    module = miniature.grpo(objective=objective)
    if has_reference:
        module.reference = ReferencePolicy(miniature.model, 0)
        module.reference.backbone.load_state_dict(backbone(seed=9).state_dict())  # far away, so that a KL would be felt
    trainer(4, folder).fit(module, datamodule=miniature.rollouts())
    return fingerprint(miniature.model)


@pytest.mark.parametrize("objective", WITHOUT_KL, ids=lambda objective: type(objective).__name__)
def test_without_a_kl_no_reference_is_asked_and_not_a_bit_of_the_weights_changes(
    objective: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return reference_logprobs(*arguments)

    monkeypatch.setattr(reference_file, "reference_logprobs", counted)
    found = weights_after(objective, tmp_path, has_reference=False)
    assert calls == [] and found != fingerprint(backbone())
    assert found == weights_after(objective, tmp_path, has_reference=True)
    assert len(calls) == 4  # what it took before


def test_without_a_kl_nothing_is_copied_and_metrics_do_not_name_one(tmp_path: Path) -> None:
    miniature = Miniature(max_steps=1)
    with LiveTensors() as live:
        module = miniature.grpo(objective=DAPO())
    assert isinstance(module.reference, NoReference) and live.peak == 0
    assert tensor_bytes(module) == tensor_bytes(miniature.model)
    fit = trainer(1, tmp_path, [SelfCheck(prompts=2)])
    fit.fit(module, datamodule=miniature.rollouts())
    assert "policy/ratio_mean" in fit.callback_metrics and "policy/kl_ref" not in fit.callback_metrics


def test_without_a_kl_a_run_of_old_resumes_and_saves_no_reference(tmp_path: Path) -> None:
    """A checkpoint that cites a reference was written by a stage that made one for every objective."""

    def run_to(step: int, folder: Path, was_before: bool, resume: bool = False) -> Any:
        miniature = Miniature(max_steps=4)
        module = miniature.grpo(objective=DAPO())
        if was_before:
            module.reference = ReferencePolicy(miniature.model, 0)
        stop = Spy("on_train_batch_end", lambda fit, *_: setattr(fit, "should_stop", fit.global_step >= step))
        fit = trainer(4, folder, [ResumeCheckpoint(folder, 1), stop])
        path = folder / LAST if resume else None
        fit.fit(module, datamodule=miniature.rollouts(), ckpt_path=path, weights_only=True if resume else None)
        return miniature.model

    whole = run_to(4, tmp_path / "whole", was_before=False)
    assert not (tmp_path / "whole" / "reference").exists()
    run_to(2, tmp_path / "parts", was_before=True)
    assert "reference" in torch.load(tmp_path / "parts" / LAST, weights_only=True)
    resumed = run_to(4, tmp_path / "parts", was_before=False, resume=True)
    assert fingerprint(resumed) == fingerprint(whole)
    assert "reference" not in torch.load(tmp_path / "parts" / LAST, weights_only=True)


def test_a_kl_keeps_its_reference_however_small_it_is() -> None:
    module = Miniature().grpo(objective=TruncatedImportanceSampling(TokenLevelGRPO(kl_coef=1e-9)))
    assert isinstance(module.reference, ReferencePolicy)
    with pytest.raises(InvalidInput, match=r"stage\.reference_refresh_steps=-1"):
        Miniature().grpo(objective=DAPO(), reference_refresh_steps=-1)


# --------------------------------------------------------------------------------------------- a reference held in BF16

BF16 = PlainPrecision("bf16")


def in_bf16(kind: str) -> Any:
    """A policy that computes in BF16, in evaluation mode: MLA with experts, other attention, or a tied model of `transformers`."""
    if kind == "qwen2":
        fields = {"model_type": "qwen2", **DENSE, "tie_word_embeddings": True}
        return HFBackbone(HFModelConfig(fields), BF16).eval()
    changes: dict[str, dict[str, Any]] = {
        "mla": {},
        "gqa": {**dict.fromkeys(MLA_FIELDS, 0), "attention_kind": GQAKind(n_kv_heads=1, head_dim=16)},
        "lightning": {"n_layers": 4, "attention_kind": "lightning", "softmax_attention_every": 2},
        "tied": {"tie_embeddings": True, "n_dense_layers": 2},
    }
    model = DeepSeekBackbone(tiny(**changes[kind]), BF16).eval()
    randomise(model, 0)
    return model


@pytest.mark.parametrize("kind", ["mla", "gqa", "lightning", "tied", "qwen2"])
@torch.no_grad()
def test_the_reference_of_a_bf16_policy_is_half_as_large_and_not_a_bit_different(kind: str) -> None:
    policy = in_bf16(kind)
    batch = pack([random_documents((9, 1, 14), 61, seed=0)])
    with LiveTensors([*policy.parameters(), *policy.buffers()]) as live:
        reference = ReferencePolicy(policy, 0)
    assert live.peak < 0.8 * tensor_bytes(
        policy
    )  # no FP32 copy on the way; embeddings are a large part of a tiny model

    def logprobs(model: Any) -> torch.Tensor:
        hidden = model.hidden(batch, with_mtp=False).hidden.flatten(0, 1)
        found: torch.Tensor = model.token_logprobs(hidden, batch.token_ids.flatten())[0]
        return found

    assert torch.equal(logprobs(reference.backbone), logprobs(policy))
    cast = held_in_bf16(policy)
    saved = sum(p.numel() * 2 for p in {id(p): p for p in cast}.values())
    assert cast and tensor_bytes(reference.backbone) == tensor_bytes(policy) - saved
    types = {p.dtype for p in reference.parameters()}
    assert types == {torch.bfloat16, torch.float32} and not any(p.requires_grad for p in reference.parameters())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in policy.parameters())


def test_a_refresh_rounds_the_weights_of_the_policy() -> None:
    policy, other = in_bf16("mla"), in_bf16("mla")
    randomise(other, 1)
    reference = ReferencePolicy(policy, 1)
    assert reference.refresh_if_due(1, other)
    expected = ReferencePolicy(other, 0).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in reference.state_dict().items())


def test_a_policy_in_fp32_has_an_fp32_reference() -> None:
    assert held_in_bf16(backbone()) == []
    assert {p.dtype for p in ReferencePolicy(backbone(), 0).parameters()} == {torch.float32}
