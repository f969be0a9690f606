"""Replaces the functions of torch and Lightning that would ask a driver, or make a tensor past the dispatcher."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.support.fake_cuda.records import RECORDS
from tests.support.fake_cuda.tensors import DEVICE, PretendTensor, is_pretended

NAME = "Pretend GPU"


class PretendGenerator(torch.Generator):
    """A generator that may say it is the GPU's; it draws the CPU's numbers."""

    def __new__(cls, device: Any = "cpu") -> PretendGenerator:
        made = super().__new__(cls, "cpu" if is_pretended(device) else device)
        made.place = DEVICE if is_pretended(device) else torch.device(device)  # type: ignore[attr-defined]
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        place: torch.device = self.place  # type: ignore[attr-defined]
        return place


def patch() -> None:
    """Make torch and Lightning believe in one GPU, for the rest of the process."""
    _patch_makers()
    # Else a module that moves to the CPU keeps its tensors of ours, with the numbers from before.
    torch.__future__.set_swap_module_params_on_conversion(True)
    torch.Generator = PretendGenerator  # type: ignore[misc]
    cuda: Any = torch.cuda
    cuda.is_available = cuda.is_initialized = lambda: True
    cuda.is_bf16_supported = lambda *_, **__: True
    cuda.device_count, cuda.current_device = lambda: 1, lambda: 0
    cuda.get_device_name, cuda.get_device_capability = lambda *_: NAME, lambda *_: (9, 0)
    cuda.max_memory_allocated, cuda.memory_stats = lambda *_: 0, lambda *_: {}
    for name in ("set_device", "empty_cache", "synchronize", "manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all",
                 "reset_peak_memory_stats"):  # fmt: skip
        setattr(cuda, name, lambda *_: None)
    cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8)
    cuda.get_rng_state_all = lambda: [torch.zeros(16, dtype=torch.uint8)]
    cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.Tensor.cuda = lambda self, *_, **__: self.to("cuda")  # type: ignore[method-assign]
    _patch_lightning()


def _patch_lightning() -> None:
    import lightning.fabric.accelerators.cuda as fabric
    import lightning.pytorch.accelerators.cuda as pytorch

    for module in (fabric, pytorch):
        made: Any = module
        made.num_cuda_devices = lambda: 1
        made._clear_cuda_memory = made._check_cuda_matmul_precision = lambda *_: None
    fabric.is_cuda_available = lambda: True
    fabric._get_all_available_cuda_gpus = lambda: [0]  # type: ignore[attr-defined]


def _patch_makers() -> None:
    torch.tensor = _maker(torch.tensor)
    torch.as_tensor = _maker(torch.as_tensor)
    plain_tensor, new_tensor, save = torch.tensor, torch.Tensor.new_tensor, torch.save

    def new(self: Tensor, data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if isinstance(self, PretendTensor) and device is None:
            return plain_tensor(data, *args, dtype=kwargs.get("dtype") or self.dtype, device="cuda")
        return new_tensor(self, data, *args, **kwargs)

    torch.Tensor.new_tensor = new  # type: ignore[method-assign]
    torch.save = lambda obj, *args, **kwargs: save(_plain(obj), *args, **kwargs)


def _maker(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor(data, device="cuda")` would allocate there without asking the dispatcher."""

    def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if not is_pretended(device):
            return make(data, *args, **({} if device is None else {"device": device}), **kwargs)
        RECORDS.note("uploads", "torch.tensor(...)")
        return make(data, *args, **kwargs).to("cuda")

    return made


def _plain(value: Any) -> Any:
    """Return `value` with the numbers of its tensors: a storage of the pretend device cannot be written."""
    if isinstance(value, PretendTensor):
        return value.inner.detach()
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _plain(item)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value
