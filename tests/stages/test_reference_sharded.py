"""The reference of a policy that is sharded over processes: made from the whole weights, and the same as that of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from r1_lightning.artefacts.files import sha256_of
from r1_lightning.artefacts.weights import save_weights
from r1_lightning.functional.shards import is_sharded, local, own_rows
from r1_lightning.model.precision import PlainPrecision
from r1_lightning.model.sharding import shard
from r1_lightning.stages import reference
from r1_lightning.stages.reference import PREFIX, ReferencePolicy, weights_of
from r1_lightning.types.errors import InvalidInput
from r1_lightning.types.processes import ONE, Processes
from r1_lightning.types.tensors import GRPOBatch, TokenBatch
from tests.model.tiny import pack, random_documents
from tests.support.miniature import CharTokenizer, backbone
from tests.support.processes import in_processes

LIMIT_S = 180.0  # a hang, not a slow machine


def completions(processes: Processes) -> tuple[GRPOBatch, slice]:
    """This process's rows of a minibatch of two, and which of its completion tokens these hold; five tokens of each row."""
    tokens = pack([random_documents((9,), CharTokenizer.vocab_size, seed=row) for row in range(2)])
    mask = torch.zeros_like(tokens.token_ids, dtype=torch.bool)
    mask[:, 4:] = True
    own = processes.share(range(2))
    rows = slice(own[0], own[-1] + 1)
    cut = TokenBatch(tokens.token_ids[rows], tokens.position_ids[rows], tokens.document_ids[rows])
    zeros, ids = torch.zeros(cut.token_ids.shape), torch.zeros_like(cut.token_ids)
    batch = GRPOBatch(cut, mask[rows], zeros, zeros, ids, zeros, torch.tensor([5] * len(own)), 2, 10, 0)
    return batch, slice(5 * rows.start, 5 * rows.stop)


def logprobs(policy: ReferencePolicy, processes: Processes) -> Tensor:
    batch, _ = completions(processes)
    return policy.logprobs(batch, 1.0)


def life(processes: Processes, compute: Any, folder: str) -> None:
    """Make, score, refresh, save and load it, beside the reference of one process."""
    pairs = []
    for _ in range(2):
        policy = backbone(seed=3)
        policy.precision = PlainPrecision(compute)
        pairs.append((policy, ReferencePolicy(policy, 2, processes=processes if not pairs else ONE)))
    (policy, ours), (alone, theirs) = pairs
    mesh = init_device_mesh("cpu", (processes.count,))
    shard(policy, mesh)
    shard(ours.backbone, mesh)
    assert all(is_sharded(parameter) for parameter in ours.parameters())

    def check() -> Tensor:
        found, known = logprobs(ours, processes), logprobs(theirs, processes)
        assert torch.equal(found, known) and len(found) == 5
        return found

    before = check()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            local(parameter).mul_(1.5)
            alone.get_parameter(name).mul_(1.5)
    for model in (policy, alone):
        model.set_expert_bias(model.expert_bias() + torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert torch.equal(check(), before)  # a copy: it did not move with the policy
    assert ours.refresh_if_due(2, policy) and theirs.refresh_if_due(2, alone)
    assert not torch.equal(check(), before)
    checkpoint: dict[str, Any] = {"state_dict": {PREFIX + name: None for name in ours.state_dict()}}
    ours.take_out_of(checkpoint, Path(folder))
    assert checkpoint["state_dict"] == {} and checkpoint["reference"]["version"] == 2
    other = ReferencePolicy(alone, 2)
    shard(other.backbone, mesh)
    other.put_into(checkpoint, Path(folder))
    for name, parameter in other.named_parameters():
        known = theirs.get_parameter(name)
        assert torch.equal(local(parameter), known[own_rows(parameter)]), name
    if processes.is_main:
        theirs.take_out_of({"state_dict": {}}, Path(folder) / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_it_scores_refreshes_and_resumes_as_that_of_one_process(compute: str, tmp_path: Path) -> None:
    assert in_processes(2, life, compute, str(tmp_path), limit_s=LIMIT_S) == [None, None]
    assert weights_of(tmp_path, 2).read_bytes() == weights_of(tmp_path / "whole", 2).read_bytes()


def saved(processes: Processes, folder: str, fault: bool) -> tuple[int, Any]:
    """Files that this process wrote of a whole reference, and the citation or the error."""
    written: list[Path] = []

    def note(module: Any, path: Path) -> None:
        written.append(path)
        save_weights(module, path if not fault else path / "in a file's place")

    checkpoint: dict[str, Any] = {"state_dict": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "save_weights", note)
        try:
            ReferencePolicy(backbone(seed=3), 0, processes=processes).take_out_of(checkpoint, Path(folder))
        except InvalidInput as error:
            return len(written), str(error)
    return len(written), checkpoint["reference"]


def test_a_whole_reference_is_written_by_one_process(tmp_path: Path) -> None:
    found = in_processes(2, saved, str(tmp_path), False)
    cited = {"version": 0, "sha256": sha256_of(weights_of(tmp_path, 0))}
    assert found == [(1, cited), (0, cited)]


def test_a_reference_that_cannot_be_written_is_said_by_all(tmp_path: Path) -> None:
    (one, first), (none, second) = in_processes(2, saved, str(tmp_path), True)
    assert (one, none) == (1, 0) and "cannot be written" in first
    assert second == f"reference='{weights_of(tmp_path, 0)}' is not allowed: the main process could not write it"


def on_its_own_device(processes: Processes, compute: Any) -> None:
    """The reference stays whole (trainer.role_devices.reference); each process holds half of the policy."""
    policy, alone = backbone(seed=3), backbone(seed=4)
    policy.precision = PlainPrecision(compute)
    ours = ReferencePolicy(policy, 2, torch.device("cpu"))
    policy.load_state_dict(alone.state_dict())  # the policy moves: another seed's weights
    policy.set_expert_bias(policy.expert_bias() + torch.tensor([1.0, 0.0, 0.0, 0.0]))
    alone.set_expert_bias(alone.expert_bias() + torch.tensor([1.0, 0.0, 0.0, 0.0]))
    shard(policy, init_device_mesh("cpu", (processes.count,)))
    assert not ours.refresh_if_due(1, policy)
    assert ours.refresh_if_due(2, policy) and ours.version == 2
    for name, tensor in ours.backbone.state_dict().items():
        assert not is_sharded(tensor) and torch.equal(tensor, alone.state_dict()[name].to(tensor.dtype))


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["fp32", "bf16"])
def test_a_whole_reference_of_a_sharded_policy_is_refreshed(compute: str) -> None:
    assert in_processes(2, on_its_own_device, compute, limit_s=LIMIT_S) == [None, None]
