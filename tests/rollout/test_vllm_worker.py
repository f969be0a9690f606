"""What is added to vLLM's worker: the digest of what it read, and experts that are packed again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from r1_lightning.rollout import vllm_engine
from r1_lightning.rollout.vllm_worker import WeightReceiver, forget_packed_experts, tensor_digest, weights_digest
from r1_lightning.rollout.weight_stream import serving

# ------------------------------------------------------------------------------------------------------------- checksums


def test_a_tensors_digest_by_hand() -> None:
    """1.0 in little-endian FP32 is 00 00 80 3f, in BF16 80 3f."""
    plain = hashlib.sha256(b"a\0torch.float32\0(1, 2)\0" + bytes.fromhex("0000803f00000000")).hexdigest()
    assert tensor_digest("a", torch.tensor([[1.0, 0.0]])) == plain
    half = hashlib.sha256(b"a\0torch.bfloat16\0()\0" + bytes.fromhex("803f")).hexdigest()
    assert tensor_digest("a", torch.tensor(1.0, dtype=torch.bfloat16)) == half


def test_name_type_shape_and_every_number_count_and_strides_do_not() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    others = [tensor.double(), tensor.view(3, 2), -tensor, tensor.flip(0), tensor + 1e-6]
    digests = [tensor_digest("a", other) for other in others] + [tensor_digest("b", tensor)]
    assert len({tensor_digest("a", tensor), *digests}) == 7
    assert tensor_digest("a", tensor.T.contiguous().T) == tensor_digest("a", tensor)


def test_the_order_of_tensors_does_not_count_and_which_holds_what_does() -> None:
    assert weights_digest({"a": "1", "b": "2"}) == hashlib.sha256(b"a 1\nb 2\n").hexdigest()
    assert weights_digest({"b": "2", "a": "1"}) == weights_digest({"a": "1", "b": "2"})
    assert weights_digest({"a": "2", "b": "1"}) != weights_digest({"a": "1", "b": "2"}) != weights_digest({"a": "1"})


# ------------------------------------------------------------------------------------------------------------ the worker


def experts(kernel: object, device: str = "cpu") -> nn.Module:
    layer = nn.Module()
    layer.w13_weight = nn.Parameter(torch.zeros(2, 2, device=device))
    layer.quant_method = SimpleNamespace(moe_kernel=kernel)
    return layer


class Reloader(WeightReceiver):
    """A worker that takes `taken` tensors of what it is given, and keeps them."""

    def __init__(self, taken: int) -> None:
        self.taken = taken
        self.got: dict[str, Tensor] = {}
        self.experts = experts(kernel=object())
        self.kernel_at_reload: object = "none yet"
        self.model_runner = SimpleNamespace(get_model=lambda: nn.ModuleList([self.experts]))

    def reload_weights(self, weights_iterator: Iterator[tuple[str, Tensor]]) -> None:  # type: ignore[override]
        self.kernel_at_reload = self.experts.quant_method.moe_kernel
        for _ in range(self.taken):
            name, tensor = next(weights_iterator)
            self.got[name] = tensor


def test_the_worker_says_what_it_read_and_no_more() -> None:
    weights = {f"w{i}": torch.full((2,), float(i)) for i in range(3)}
    whole, cut = Reloader(3), Reloader(2)
    with serving({name: lambda tensor=tensor: tensor for name, tensor in weights.items()}) as address:
        assert whole.receive_weights_from(address) == digest_of(weights)
        assert cut.receive_weights_from(address) == digest_of({"w0": weights["w0"], "w1": weights["w1"]})
    assert list(whole.got) == ["w0", "w1", "w2"] and torch.equal(whole.got["w2"], weights["w2"])
    assert whole.kernel_at_reload is None  # experts are packed anew


def digest_of(weights: dict[str, Tensor]) -> str:
    return weights_digest({name: tensor_digest(name, tensor) for name, tensor in weights.items()})


def test_experts_on_a_cpu_forget_that_they_were_packed() -> None:
    """Not those that have not been processed, nor those of a GPU, whose kernels a graph may have captured."""
    packed, fresh, elsewhere, dense = experts(object()), experts(None), experts(object(), "meta"), nn.Linear(2, 2)
    dense.quant_method = SimpleNamespace()
    model = nn.ModuleList([packed, fresh, nn.Sequential(elsewhere), dense, nn.ReLU()])
    assert forget_packed_experts(model) == 1
    assert packed.quant_method.moe_kernel is None and elsewhere.quant_method.moe_kernel is not None
    assert forget_packed_experts(model) == 0


def test_the_workers_own_names_are_left_alone() -> None:
    names = {name for name in dir(WeightReceiver) if not name.startswith("__")}
    assert names == {"receive_weights_from"}
    assert f"{WeightReceiver.__module__}.{WeightReceiver.__qualname__}" == vllm_engine.RECEIVER
