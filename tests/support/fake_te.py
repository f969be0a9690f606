"""A stand-in for Transformer Engine 2.20 on a CPU: its arguments, and what its layers do to state, devices and experts' weights.

Products are those of `multiply`: torch's, in the type of the input, unless a test sets others. `modules()` is what `sys.modules`
has when it is installed; what its modules for kernels have is never called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REGIONS: list[tuple[bool, Any]] = []  # of the layers that are computing now


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    return F.linear(x, weight.to(x.dtype))


class Format(Enum):
    E4M3, HYBRID = "E4M3", "HYBRID"


@dataclass(frozen=True)
class QParams:
    power_2_scale: bool = False
    amax_epsilon: float = 0.0


@dataclass
class Float8BlockScaling:
    use_f32_scales: bool = False
    fp8_format: Format = Format.E4M3
    fp8_quant_fwd_inp = QParams(power_2_scale=True)
    fp8_quant_fwd_weight = QParams(power_2_scale=True)
    fp8_quant_bwd_grad = QParams(power_2_scale=True)
    x_block_scaling_dim: int = 1
    w_block_scaling_dim: int = 2
    grad_block_scaling_dim: int = 1
    backward_override: str | None = None

    def __post_init__(self) -> None:
        split = SimpleNamespace(use_split_accumulator=True)
        self.fp8_gemm_fprop = self.fp8_gemm_dgrad = self.fp8_gemm_wgrad = split


@dataclass
class RecipeState:
    recipe: Float8BlockScaling
    mode: str
    num_quantizers: int

    @staticmethod
    def create(recipe: Any, *, mode: str, num_quantizers: int = 1, device: Any = None) -> RecipeState:
        return RecipeState(recipe, mode, num_quantizers)

    def make_quantizers(self) -> list[Any]:
        recipe = self.recipe
        inputs = [(recipe.fp8_quant_fwd_inp, recipe.x_block_scaling_dim)]
        weights = [(recipe.fp8_quant_fwd_weight, recipe.w_block_scaling_dim)]
        gradients = [(recipe.fp8_quant_bwd_grad, recipe.grad_block_scaling_dim)]
        asked = (inputs + weights + inputs if self.mode == "forward" else gradients * 2)[: self.num_quantizers]
        return [
            SimpleNamespace(
                block_scaling_dim=dimensions,
                force_pow_2_scales=numbers.power_2_scale,
                amax_epsilon=numbers.amax_epsilon,
                block_len=128,
            )
            for numbers, dimensions in asked
        ]


class Float8BlockQuantizer:
    def __init__(self, fp8_dtype: Any, *, block_scaling_dim: int = 2, **rest: Any) -> None:
        self.dimensions = block_scaling_dim

    def get_scale_shape(self, shape: tuple[int, int], columnwise: bool) -> tuple[int, int]:
        """Tiles before what they are of, blocks as they lie; the last filled up to a multiple of 4."""
        (rows, columns), (down, across) = shape, (-(-shape[0] // 128), -(-shape[1] // 128))
        tiles = (down, columns) if columnwise else (across, rows)
        first, last = tiles if self.dimensions == 1 else (across, down) if columnwise else (down, across)
        return first, -(-last // 4) * 4


class DType(Enum):
    kFloat8E4M3 = 7


class Float8BlockwiseQTensorStorage:
    _rowwise_data: Tensor
    _columnwise_data: Tensor
    _rowwise_scale_inv: Tensor
    _columnwise_scale_inv: Tensor


class Stateful(nn.Module):
    def __init__(self, name: str | None = None) -> None:
        if not torch.cuda.is_available():
            raise RuntimeError("TransformerEngine needs CUDA.")
        super().__init__()
        self.name = name

    def get_extra_state(self) -> Tensor:
        return torch.zeros(1)

    def set_extra_state(self, state: Any) -> None:
        pass


def weight(rows: int, columns: int, init: Callable[[Tensor], Any] | None, dtype: Any, device: Any) -> nn.Parameter:
    made = nn.Parameter(torch.empty(rows, columns, dtype=dtype, device=device))
    if init is not None:
        init(made)
    return made


class Linear(Stateful):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        sequence_parallel: bool = False,
        init_method: Callable[[Tensor], Any] | None = None,
        bias: bool = True,
        params_dtype: torch.dtype | None = None,
        device: Any = "cuda",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        assert bias is False and params_dtype == torch.float32
        # Only the word leaves parameters without numbers: those on another "meta" are put where a GPU is.
        if device != "meta" and torch.device(device).type == "meta":
            raise RuntimeError("no GPU")
        self.weight = weight(out_features, in_features, init_method, params_dtype, device)

    def forward(self, inp: Tensor, is_first_microbatch: bool | None = None, fp8_output: bool = False) -> Tensor:
        assert len(inp) % 16 == 0 and REGIONS
        return multiply(inp, self.weight)


class GroupedLinear(Stateful):
    def __init__(
        self,
        num_gemms: int,
        in_features: int,
        out_features: int,
        sequence_parallel: bool = False,
        init_method: Callable[[Tensor], Any] | None = None,
        bias: bool = True,
        params_dtype: torch.dtype | None = None,
        device: Any = "cuda",
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        assert bias is False and params_dtype == torch.float32
        self.num_gemms = num_gemms
        for i in range(num_gemms):
            made = weight(out_features, in_features, init_method, params_dtype, device)
            self.register_parameter(f"weight{i}", made)
            setattr(self, f"bias{i}", torch.empty(0, device=device))  # no buffer: it stays where it was made

    def _get_weight_tensors(self) -> list[Tensor]:
        """A parameter `weight` stands for all of them."""
        whole = getattr(self, "weight", None)
        return [getattr(self, f"weight{i}") for i in range(self.num_gemms)] if whole is None else [whole]

    def _get_bias_tensors(self) -> list[Tensor]:
        return [getattr(self, f"bias{i}") for i in range(self.num_gemms)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """A stored `weight` is taken apart into one for each matrix."""
        whole = state_dict.pop(f"{prefix}weight", None)
        if whole is not None:
            state_dict.update({f"{prefix}weight{i}": part for i, part in enumerate(whole)})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, inp: Tensor, m_splits: Any, is_first_microbatch: bool | None = None) -> Tensor:
        assert all(rows % 16 == 0 for rows in m_splits) and sum(m_splits) == len(inp) and REGIONS
        weights = self._get_weight_tensors()
        assert len(weights) == self.num_gemms and all(part.is_contiguous() for part in weights)
        assert all(bias.device == inp.device for bias in self._get_bias_tensors())
        pieces = zip(inp.split(m_splits), weights, strict=True)
        return torch.cat([multiply(part, w) if len(part) else inp.new_empty(0, len(w)) for part, w in pieces])


class Fp8Padding(nn.Module):
    def __init__(self, num_gemms: int, align_size: int | None = None) -> None:
        super().__init__()
        self.num_gemms, self.align_size = num_gemms, align_size or 16

    def forward(self, inp: Tensor, m_splits: list[int]) -> tuple[Tensor, list[int]]:
        assert len(m_splits) == self.num_gemms
        filled = [F.pad(part, (0, 0, 0, -len(part) % self.align_size)) for part in inp.split(m_splits)]
        return torch.cat(filled), [len(part) for part in filled]


class Fp8Unpadding(Fp8Padding):
    def forward(self, inp: Tensor, m_splits: list[int]) -> Tensor:  # type: ignore[override]
        filled = [-(-rows // self.align_size) * self.align_size for rows in m_splits]
        return torch.cat([part[:rows] for part, rows in zip(inp.split(filled), m_splits, strict=True)])


class autocast:
    def __init__(self, enabled: bool = True, calibrating: bool = False, recipe: Any = None) -> None:
        self.region = (enabled, recipe)

    def __enter__(self) -> None:
        REGIONS.append(self.region)

    def __exit__(self, *error: object) -> None:
        REGIONS.pop()


CONTENTS: dict[str, tuple[type, ...]] = {
    "transformer_engine": (),
    "transformer_engine.common": (),
    "transformer_engine.common.recipe": (Float8BlockScaling, QParams, Format),
    "transformer_engine.pytorch": (
        *(Linear, GroupedLinear, Fp8Padding, Fp8Unpadding, autocast),
        *(Float8BlockQuantizer, DType),
    ),
    "transformer_engine.pytorch.tensor": (),
    "transformer_engine.pytorch.tensor.storage": (),
    "transformer_engine.pytorch.tensor.storage.float8_blockwise_tensor_storage": (Float8BlockwiseQTensorStorage,),
    "transformer_engine.pytorch.quantization": (RecipeState,),
    "transformer_engine.pytorch.module": (),
    "transformer_engine.pytorch.module.linear": (),
    "transformer_engine.pytorch.module.grouped_linear": (),
    "transformer_engine_torch": (),
}
KERNELS = {
    "transformer_engine.pytorch.module.linear": ("general_gemm", "nvtx_range_push", "nvtx_range_pop"),
    "transformer_engine.pytorch.module.grouped_linear": ("general_grouped_gemm",),
    "transformer_engine_torch": ("quantize", "split_quantize", "fused_multi_row_padding", "fused_multi_row_unpadding"),
}


def modules() -> dict[str, ModuleType]:
    """The package as it is found in `sys.modules`."""
    made = {name: ModuleType(name) for name in CONTENTS}
    for name, contents in CONTENTS.items():
        for part in contents:
            setattr(made[name], part.__name__, part)
        above, _, last = name.rpartition(".")
        if above:
            setattr(made[above], last, made[name])
        for kernel in KERNELS.get(name, ()):
            setattr(made[name], kernel, None)
    return made
