"""Tensors that hold numbers on the CPU and say that they are on `cuda:0`.

Every operator on one of them comes to `dispatch`, which computes on the CPU, wraps the result and records what a GPU would have
had to do. As on a GPU, an operator over tensors of both devices raises, except for copies, numbers, and indices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.support.fake_cuda.records import FLOATING_ONLY, RECORDS, UNDETERMINED, WAITS, WORK, line_of_ours

DEVICE = torch.device("cuda", 0)
COPIES = {"aten::copy_", "aten::_to_copy", "aten::_foreach_copy_"}
# Operators that launch no kernel: they make or rename memory.
FREE = {"aten::detach", "aten::alias", "aten::empty_like", "aten::lift_fresh", "aten::empty", "aten::new_empty",
        "aten::_unsafe_view", "aten::view", "aten::t", "aten::_reshape_alias"}  # fmt: skip


class PretendTensor(Tensor):
    """A tensor on the pretend device; `inner` holds its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendTensor:
        assert not isinstance(inner, PretendTensor)
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "layout": inner.layout}
        made = Tensor._make_wrapper_subclass(cls, inner.size(), dtype=inner.dtype, device=DEVICE, **layout)
        made.inner = inner
        return made  # type: ignore[no-any-return]

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"PretendTensor({self.inner})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, _: Any, size: Any, stride: Any) -> PretendTensor:
        return PretendTensor(inner["inner"])

    def __deepcopy__(self, memo: Any) -> Tensor:
        copied = PretendTensor(self.inner.detach().clone())
        if isinstance(self, torch.nn.Parameter):
            return torch.nn.Parameter(copied, self.requires_grad)
        return copied.requires_grad_(self.requires_grad)

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def tolist(self) -> Any:
        RECORDS.note("waits", "tolist")
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


class OnPretendDevice(TorchDispatchMode):
    """Inside the block, factories make tensors on the pretend device where they are asked to."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def is_pretended(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute one operator: on the CPU, for tensors that are on either device."""
    name, leaves = func._schema.name, [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    own = [x for x in leaves if isinstance(x, PretendTensor)]
    target = kwargs.get("device")
    if not own and not is_pretended(target):
        if name in WORK and all(x.device.type == "cpu" for x in leaves):
            RECORDS.note("host_work", name)
        return func(*args, **kwargs)
    _refuse_mixed(name, args, kwargs, own, [x for x in leaves if not isinstance(x, PretendTensor)])
    _record(func, name, args, target, own)
    plain = dict(kwargs)
    if is_pretended(target):
        plain["device"] = torch.device("cpu")
    if plain.get("pin_memory"):
        plain["pin_memory"] = False
    inner_args, inner_kwargs = tree_map(_inner, args), tree_map(_inner, plain)
    result = func(*inner_args, **inner_kwargs)
    return _wrapped(func, name, args, target, own, result)


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, PretendTensor) else x


def _indexes(name: str) -> bool:
    return name.startswith("aten::index") or "_index_put" in name or "_unsafe_index" in name


def _refuse_mixed(name: str, args: Any, kwargs: Any, own: list[Any], host: list[Tensor]) -> None:
    """Raise as CUDA does for tensors of two devices; a number (no dimensions) may come from the CPU."""
    generator = kwargs.get("generator")
    if own and generator is not None and generator.device.type == "cpu":
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({name}) at {line_of_ours()}")
    beside = [x for x in host if x.dim() > 0]
    if not own or not beside or name in COPIES:
        return
    where = f"({name}, {[tuple(x.shape) for x in beside]}) at {line_of_ours()}"
    if not _indexes(name):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu! {where}")
    if not isinstance(args[0], PretendTensor):
        raise RuntimeError(f"indices should be either on cpu or on the same device as the indexed tensor (cpu) {where}")
    if "index_put" in name and isinstance(args[2], Tensor) and args[2].dim() and not isinstance(args[2], PretendTensor):
        raise RuntimeError(f"index_put_ of values on another device {where}")
    RECORDS.note("uploads", name)


def _record(func: Any, name: str, args: Any, target: Any, own: list[Any]) -> None:
    """Count what a GPU would do: a launch, a wait, a copy across, an operator whose order of sums is not fixed."""
    if own and not func.is_view and name not in FREE:
        RECORDS.launches[name] += 1
    if name in WAITS and own:
        RECORDS.note("waits", name)
    if own and _indexes(name) and len(args) > 1 and isinstance(args[1], (list, tuple)):
        if any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
            RECORDS.note("waits", f"{name} by a mask")
    if name == "aten::_to_copy":
        if own and target is not None and not is_pretended(target):
            RECORDS.note("waits", "copy to the CPU")
        elif not own:
            RECORDS.note("uploads", "copy to the device")
    if name == "aten::copy_" and isinstance(args[0], PretendTensor) != isinstance(args[1], PretendTensor):
        RECORDS.note("uploads" if isinstance(args[0], PretendTensor) else "waits", "copy_ across")
    overload = f"{name}.{func._overloadname}"
    if own and (name in UNDETERMINED or overload in UNDETERMINED or _sums_in_any_order(name, args, own)):
        RECORDS.note("undetermined", name)


def _sums_in_any_order(name: str, args: Any, own: list[Any]) -> bool:
    if name == "aten::bincount":
        return len(args) > 1 and args[1] is not None
    if name.startswith("aten::scatter_reduce"):
        return "prod" in args
    return name in FLOATING_ONLY and own[0].is_floating_point()


def _wrapped(func: Any, name: str, args: Any, target: Any, own: list[Any], result: Any) -> Any:
    """Return the result on the device where it belongs; operators in place return their own argument."""
    is_there = is_pretended(target) if target is not None else True
    if name == "aten::copy_":
        return args[0]
    if not is_there:
        return result
    if func._schema.is_mutable and name.endswith("_") and args and isinstance(args[0], PretendTensor):
        if isinstance(result, Tensor):
            return args[0]
    known = {id(x.inner): x for x in own}

    def wrap(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        same = known.get(id(x))
        return same if same is not None and same.shape == x.shape else PretendTensor(x)

    return tree_map(wrap, result)
