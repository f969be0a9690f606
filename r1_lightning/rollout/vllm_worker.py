"""What we add to vLLM's worker: it takes the trainer's weights from a stream, and says what it read.

The worker passes the tensors to vLLM's own `reload_weights`. Unlike a bare `model.load_weights`, that also recomputes the tensors
that vLLM derives from the weights: fused projections, and for MLA the absorbed W^UK and W^UV.

**Experts on a CPU.** vLLM (0.32) lays experts out anew for its grouped products on a CPU ("prepacks" them) when they are first
processed. On a reload it takes the kernel it already has for a sign that the layout needs no work, copies the plain weights into
the packed ones, and every expert computes something else; shapes agree, so nothing complains. `forget_packed_experts` takes the
kernel away, so that the layer is processed as at the first time.

The digest covers the tensors that reached vLLM's loader, not what became of them. Whether the engine computes with them what the
policy computes is checked by log-probs (`rollout/vllm_sampler.py`), after every hand-over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from r1_lightning.rollout.weight_stream import bytes_of, received


def tensor_digest(name: str, tensor: Tensor) -> str:
    """SHA-256 over name, dtype, shape and bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    digest.update(bytes_of(tensor.detach().cpu().contiguous()))
    return digest.hexdigest()


def weights_digest(tensor_digests: Mapping[str, str]) -> str:
    """SHA-256 over the digests of all tensors (name -> digest), sorted by name."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(tensor_digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def forget_packed_experts(model: nn.Module) -> int:
    """Let experts on the CPU be packed again when they are reloaded; returns how many layers have such."""
    found = 0
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        weight = getattr(layer, "w13_weight", None)
        if getattr(method, "moe_kernel", None) is None or not isinstance(weight, Tensor):
            continue
        if weight.device.type == "cpu":
            method.moe_kernel = None  # type: ignore[union-attr]
            found += 1
    return found


class WeightReceiver:
    """Methods that vLLM adds to its worker class (`worker_extension_cls`); no name here may clash with the worker's own."""

    model_runner: Any  # the worker's own, and the next one, too
    reload_weights: Callable[..., None]

    def receive_weights_from(self, address: str) -> str:
        """Load all tensors that are served at `address`; returns their digest."""
        digests: dict[str, str] = {}

        def read() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in received(address):
                digests[name] = tensor_digest(name, tensor)
                yield name, tensor

        forget_packed_experts(self.model_runner.get_model())
        with torch.no_grad():
            self.reload_weights(weights_iterator=read())
        return weights_digest(digests)
