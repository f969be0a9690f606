"""The frozen reference policy of GRPO's KL term, refreshed at fixed intervals, and of DPO, which stays.

R1 replaces it by the current policy every 400 steps (Nature supplement, B.4), so that the policy can move far in total although
the KL keeps each move small. It is a copy of the backbone without gradients and optimizer state. Its weights change only at a
refresh, so each version is saved once, in a file named by the optimizer step of its policy, and checkpoints cite that file by step
and hash. A file is kept as long as the last checkpoint or the one before it cites it, and until a newer one is on disk.

Where the policy computes in BF16, the copy holds the weights of its linear layers in BF16, half of the memory: autocast would make
the same BF16 numbers of them in every forward, so its log-probs are the same bits. Embeddings, norms and routers stay FP32.

A policy with LoRA adapters needs no copy: its base never changes and is the reference (`BaseAsReference`). It cannot be refreshed.

An objective without a KL term (`objective.needs_reference` is False) has no reference at all (`NoReference`): no copy of the
weights, no forward, and no metric `policy/kl_ref`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from r1_lightning.artefacts.files import sha256_of
from r1_lightning.artefacts.weights import load_weights, save_weights
from r1_lightning.functional.shards import is_sharded, whole
from r1_lightning.model.lora import has_adapters, without_adapters
from r1_lightning.model.precision import weights_cast_by_autocast
from r1_lightning.model.sharding import fill_copy
from r1_lightning.model.whole_copy import COPY, WholeCopy
from r1_lightning.rollout.scoring import Completions, reference_logprobs
from r1_lightning.stages.base import StageModule
from r1_lightning.types.errors import require, require_int
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import BackboneOutput

PREFIX = "reference."  # prefix of its parameter names in the stage's state
CITATION = "reference"  # key of the citation in a checkpoint
FOLDER = "reference"  # of its files, in the stage's
CITED_BEFORE = "reference_before"  # key of the step of the reference that the checkpoint before it cites


class ReferencePolicy(nn.Module):
    """A frozen copy of `policy`; every `refresh_every` optimizer steps (0: never) it becomes a copy of the current policy.

    It goes where the policy goes, unless it has a `device` of its own.
    """

    backbone: Any  # an nn.Module that fits the `Backbone` Protocol

    def __init__(
        self, policy: nn.Module, refresh_every: int, device: torch.device | None = None, processes: Processes = ONE
    ) -> None:
        super().__init__()
        require_int("stage.reference_refresh_steps", refresh_every, 0)
        self.backbone = _frozen_copy(policy, device)
        self.device = device
        if device is not None and not any(p.is_meta for p in self.backbone.parameters()):  # a dry run has no values
            self.backbone.to(device)
        self.refresh_every, self.processes = refresh_every, processes
        self.version = 0  # the optimizer steps that the copied policy had taken
        self.cited: Citation | None = None
        self.cited_before: int | None = None

    def train(self, mode: bool = True) -> ReferencePolicy:
        """Stay in evaluation mode: the reference's forwards must not count expert load."""
        return super().train(False)

    def logprobs(self, batch: Completions, sampling_temperature: float, replay: bool = False) -> Tensor:
        """Log-probs of the minibatch's C completion tokens, without gradients; `replay` uses the sampler's experts."""
        if self.device is None:
            return reference_logprobs(self.backbone, batch, sampling_temperature, replay)
        own = reference_logprobs(self.backbone, batch.to(self.device), sampling_temperature, replay)
        return own.to(batch.tokens.token_ids.device)

    def _apply(self, *arguments: Any, **keywords: Any) -> ReferencePolicy:
        """Take part in `to`, `cuda` and `cpu` of the stage only without a device of its own."""
        return self if self.device is not None else super()._apply(*arguments, **keywords)

    @torch.no_grad()
    def refresh_if_due(self, optimizer_steps: int, policy: nn.Module) -> bool:
        """Copy the policy's weights if `optimizer_steps` is a multiple of `refresh_every`; returns True if it did."""
        due = self.refresh_every > 0 and optimizer_steps > 0 and optimizer_steps % self.refresh_every == 0
        if due and self.device is None:
            self.backbone.load_state_dict(policy.state_dict())
        elif due:  # whole on its own device, also of a policy in shards, which all processes gather together
            theirs = policy.state_dict()
            for name, tensor in self.backbone.state_dict().items():
                tensor.copy_(whole(theirs[name]))
        if due:
            self.version = optimizer_steps
        return due

    def take_out_of(self, checkpoint: dict[str, Any], folder: Path) -> None:
        """Replace the reference's weights in a checkpoint by a citation of their file in `folder`, written if it is not there."""
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith(PREFIX)]:
            del state[name]
        before = self.cited
        # The checkpoint that is made now, the last one, and the one before that, which goes when this one is in its place.
        kept = {self.version, self.cited_before, None if before is None else before["version"]}
        if before is None or before["version"] != self.version:
            path = weights_of(folder, self.version)
            folder.mkdir(parents=True, exist_ok=True)
            self.cited = {"version": self.version, "sha256": self._saved(path)}
        if self.processes.is_main:
            known = {weights_of(folder, step) for step in kept if step is not None}
            for stale in set(folder.glob("step-*.safetensors")) - known:
                stale.unlink(missing_ok=True)
        self.cited_before = None if before is None else before["version"]
        checkpoint[CITATION], checkpoint[CITED_BEFORE] = self.cited, self.cited_before

    def _saved(self, path: Path) -> str:
        """Write the weights to `path`, the main process alone unless they are sharded, and return the hash everywhere."""
        if any(is_sharded(parameter) for parameter in self.backbone.parameters()):
            save_weights(self.backbone, path)
            return self.processes.from_main(lambda: sha256_of(path))
        faults: list[Exception] = []

        def write() -> str:
            try:
                save_weights(self.backbone, path)
                return sha256_of(path)
            except Exception as error:  # the others wait for a word
                faults.append(error)
                return ""

        found = self.processes.from_main(write)
        if faults:
            raise faults[0]
        require(bool(found), "reference", str(path), "the main process could not write it")
        return found

    def put_into(self, checkpoint: dict[str, Any], folder: Path) -> None:
        """Load the cited weights and put them into `checkpoint`; `InvalidInput` if their file is missing or was changed."""
        citation: Citation = checkpoint[CITATION]
        path = weights_of(folder, citation["version"])
        found = sha256_of(path) if path.is_file() else "missing"
        allowed = f"the checkpoint cites {citation['sha256'][:12]}; remove checkpoints/ to start this stage anew"
        require(found == citation["sha256"], f"reference {path}", found[:12], allowed)
        load_weights(self.backbone, path)
        self.version, self.cited, self.cited_before = citation["version"], citation, checkpoint.get(CITED_BEFORE)
        checkpoint["state_dict"].update({PREFIX + name: tensor for name, tensor in self.state_dict().items()})


def _frozen_copy(policy: nn.Module, device: torch.device | None) -> nn.Module:
    """Return a copy of `policy` as it is; of one in shares a copy in shares, or whole if it has a `device` of its own."""
    held: WholeCopy | None = getattr(policy, COPY, None)
    source = policy if held is None else held.frame  # without weights
    # A deep copy puts what the memo holds in place of its copies, so no FP32 copy is made first.
    halves = {id(p): nn.Parameter(p.detach().to(torch.bfloat16), requires_grad=False) for p in held_in_bf16(source)}
    copied = copy.deepcopy(source, dict(halves)).requires_grad_(False).eval()
    if held is not None:
        fill_copy(copied, policy, device)
    return copied


def held_in_bf16(policy: Any) -> list[nn.Parameter]:
    """Return the weights of `policy` whose copies may be BF16 without changing a bit of a log-prob; none if it computes in FP32."""
    precision = getattr(policy, "precision", None)  # the Protocol `Backbone` asks for none
    return weights_cast_by_autocast(policy) if getattr(precision, "compute", None) == "bf16" else []


class BaseAsReference:
    """The reference of a policy with adapters: the policy's base, which equals the policy at the beginning of the stage.

    Copies and saves nothing. It is not a module, because the policy's weights would get second names in the stage's state.
    """

    version = 0  # it is never refreshed

    def __init__(self, policy: nn.Module, refresh_every: int) -> None:
        refuse_refresh(refresh_every)
        self.backbone: Any = _Base(policy)

    def logprobs(self, batch: Completions, sampling_temperature: float, replay: bool = False) -> Tensor:
        """Log-probs of the minibatch's C completion tokens, without gradients."""
        return reference_logprobs(self.backbone, batch, sampling_temperature, replay)

    def refresh_if_due(self, optimizer_steps: int, policy: nn.Module) -> bool:
        return False

    def take_out_of(self, checkpoint: dict[str, Any], folder: Path) -> None:
        """Do nothing: the policy's own weights include the base."""

    def put_into(self, checkpoint: dict[str, Any], folder: Path) -> None:
        """Do nothing: there is nothing to load."""


class NoReference:
    """The reference of an objective without KL: copies, computes, saves and loads nothing."""

    version = 0
    backbone: Any = None

    def __init__(self, refresh_every: int) -> None:
        require_int("stage.reference_refresh_steps", refresh_every, 0)

    def logprobs(self, batch: Completions, sampling_temperature: float, replay: bool = False) -> None:
        """Return None: there are no reference log-probs."""

    def refresh_if_due(self, optimizer_steps: int, policy: nn.Module) -> bool:
        return False

    def take_out_of(self, checkpoint: dict[str, Any], folder: Path) -> None:
        """Do nothing: a checkpoint holds the policy alone."""

    def put_into(self, checkpoint: dict[str, Any], folder: Path) -> None:
        """Do nothing: a file that an older checkpoint cites stays on disk."""


class _Base:
    """The policy's forward with its adapters off, in evaluation mode: the part of a backbone that scoring needs."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    @torch.no_grad()
    def hidden(self, *arguments: Any, **keywords: Any) -> BackboneOutput:
        with without_adapters(self.policy), in_evaluation_mode(self.policy):
            output: BackboneOutput = self.policy.hidden(*arguments, **keywords)
        return output

    @torch.no_grad()
    def token_logprobs(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
        """The policy's log-probs, since the head has no adapter."""
        result: tuple[Tensor, Tensor] = self.policy.token_logprobs(*arguments, **keywords)
        return result


@contextmanager
def in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put all of `module` into evaluation mode inside the block; restore the mode of each submodule afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def refuse_refresh(refresh_every: int) -> None:
    """Raise `InvalidInput` if the settings would refresh the reference of a policy with adapters."""
    allowed = "with model.lora the reference is the base, which stays; set stage.reference_refresh_steps=0"
    require(refresh_every == 0, "stage.reference_refresh_steps", refresh_every, allowed)


def reference_of(
    policy: nn.Module,
    refresh_every: int,
    is_needed: bool,
    device: torch.device | None = None,
    processes: Processes = ONE,
) -> ReferencePolicy | BaseAsReference | NoReference:
    """Return the reference of `policy`: its base if it has adapters, else a frozen copy; `NoReference` unless `is_needed`.

    `device` is the copy's own; `processes` train together. Raises `InvalidInput` if there is no copy that could have one.
    """
    is_copy = is_needed and not has_adapters(policy)
    allowed = "the reference is the policy's own base" if is_needed else "an objective without KL has no reference"
    require(is_copy or device is None, "trainer.role_devices.reference", str(device), allowed)
    if not is_needed:
        return NoReference(refresh_every)
    return (
        ReferencePolicy(policy, refresh_every, device, processes) if is_copy else BaseAsReference(policy, refresh_every)
    )


class StageWithReference(StageModule):
    """A stage with a `reference`, whose weights its checkpoints cite."""

    reference: ReferencePolicy | BaseAsReference | NoReference

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.reference.take_out_of(checkpoint, Path(self.trainer.default_root_dir) / FOLDER)
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.reference.put_into(checkpoint, Path(self.trainer.default_root_dir) / FOLDER)


class Citation(TypedDict):
    """A checkpoint's citation of its reference: optimizer step and hash of the file."""

    version: int
    sha256: str


def weights_of(folder: Path, version: int) -> Path:
    """Return the file of the reference that was the policy at optimizer step `version`."""
    return folder / f"step-{version}.safetensors"
