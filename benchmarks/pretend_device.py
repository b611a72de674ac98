"""A device that is not there: its tensors compute on the CPU, and are refused wherever a GPU would refuse them.

    with pretend_device() as counts:
        model.to(DEVICE)
        model(bag.to(DEVICE))
    print(counts.calls, counts.synchronisations)

A tensor of the device wraps one of the CPU. Every operation of PyTorch passes ``_Dispatch``, which refuses tensors of
both kinds together under CUDA's rules, and counts what a GPU pays for. What no operation shows is not refused: CUDA
kernels that are missing or differ, memory that runs out, autocast. Adam takes one tensor at a time here, several at a
time on CUDA.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

NAME = "pretended"
aten = torch.ops.aten
INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default,
    aten._unsafe_index.Tensor, aten._unsafe_index_put.default,
}  # fmt: skip
COPYING = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
# of these CUDA takes a number that lies on the CPU, besides all that goes element by element
TAKES_NUMBERS = {aten.masked_fill.Tensor, aten.masked_fill_.Tensor, aten.fill.Tensor, aten.fill_.Tensor, *INDEXING}
# their result's value or shape is needed before the CPU goes on
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten.is_nonzero.default, aten.repeat_interleave.Tensor, aten.unique_dim.default, aten._unique2.default,
    aten.unique_consecutive.default,
}  # fmt: skip


@dataclass
class Counts:
    """What a GPU pays for. calls: operations on tensors of the device; views: those of them that start no kernel.
    synchronisations: how often the CPU waits for the device. copies: from the CPU to the device."""

    calls: int = 0
    views: int = 0
    synchronisations: int = 0
    copies: int = 0

    def reset(self) -> None:
        self.calls = self.views = self.synchronisations = self.copies = 0


class PretendedTensor(Tensor):
    """A tensor of the device; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendedTensor":
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=_device(),
        )  # fmt: skip
        wrapper.held = held
        return wrapper

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {}, Counts())

    def __repr__(self, **_: Any) -> str:
        return f"PretendedTensor({self.held!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)  # read again on the CPU, as with map_location="cpu"

    def numpy(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError(f"can't convert a {NAME} tensor to numpy; use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.held.data_ptr()


class _Backend(backend_registration._DummyBackendModule):
    """What PyTorch asks of a device's module. Outside ``pretend_device`` there is no such device."""

    is_there = False

    def is_available(self) -> bool:
        return self.is_there

    def device_count(self) -> int:
        return int(self.is_there)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, *_: Any) -> Tensor:
        return torch.empty(0, dtype=torch.uint8)  # random numbers are the CPU's

    def set_rng_state(self, *_: Any) -> None:
        pass


BACKEND = _Backend()


@functools.cache
def _device() -> torch.device:
    """The device, registered once: PyTorch can name it once in a process."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, BACKEND)
    return torch.device(NAME, 0)


@contextmanager
def pretend_device() -> Iterator[tuple[torch.device, Counts]]:
    """Within it there are the device and its tensors; what happens is counted. Backward passes run in the caller's
    thread, since PyTorch starts a device's thread with the first one of the process or never."""
    counts, overwrite = Counts(), torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    device, BACKEND.is_there = _device(), True
    try:
        with torch.autograd.set_multithreading_enabled(False), _Factories(), _Dispatch(counts):
            yield device, counts
    finally:
        BACKEND.is_there = False
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


class _Factories(TorchFunctionMode):
    """What makes tensors of numbers, or pins them, without passing the dispatcher."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _is_ours(given.get("device")):
            device = given.pop("device")
            return func(*args, **given).to(device)
        if func is Tensor.pin_memory:
            return args[0]
        return func(*args, **given)


class _Dispatch(TorchDispatchMode):
    """Every operation that an active context sees, of tensors of either kind."""

    def __init__(self, counts: Counts):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _compute(func, args, kwargs or {}, self.counts)


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], counts: Counts) -> Any:
    """The operation on the CPU; its results are the device's where its tensors are. Raises RuntimeError where tensors
    of both kinds meet."""
    tensors = list(_tensors((*args, *kwargs.values())))
    ours = [tensor for tensor in tensors if isinstance(tensor, PretendedTensor)]
    target = kwargs.get("device")
    if not ours and not _is_ours(target):
        return func(*args, **kwargs)
    kind = _kind(func)
    if not kind.copies:
        _refuse_mixtures(func, kind, args, tensors)
    _count(func, kind, args, target, counts)
    if func is aten._fused_sdp_choice.default:
        return 0  # attention step by step
    held_args, held_kwargs = _held(args), {name: _held(value) for name, value in kwargs.items()}
    result = func(*held_args, **{**held_kwargs, "device": torch.device("cpu")} if _is_ours(target) else held_kwargs)
    if func is aten.copy_.default:
        return args[0]
    if target is not None and not _is_ours(target):
        return result
    wrapped = _wrapped(result) if isinstance(result, Tensor) else tree_map(_wrapped, result)
    return return_and_correct_aliasing(func, tuple(args), dict(kwargs), wrapped) if ours else wrapped


def _refuse_mixtures(func: Any, kind: "_Kind", args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    """CUDA's rules: numbers of the CPU may take part element by element, its tensors may be indices."""
    if kind.indexes:
        indices = [index for index in args[1] if index is not None]
        if not isinstance(args[0], PretendedTensor) and any(isinstance(index, PretendedTensor) for index in indices):
            raise RuntimeError(f"{func}: indices should be on the CPU, as the indexed tensor is")
        tensors = [args[0], *(value for value in args[2:] if isinstance(value, Tensor))]
    others = [
        tensor
        for tensor in tensors
        if not isinstance(tensor, PretendedTensor) and (tensor.dim() or not kind.takes_numbers)
    ]
    if others and len(others) < len(tensors):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in others)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} got some on {_device()} and, of the shapes "
            f"{shapes}, some on the CPU"
        )


def _count(func: Any, kind: "_Kind", args: Sequence[Any], target: Any, counts: Counts) -> None:
    counts.calls += 1
    counts.views += kind.gives_a_view
    from_ours = isinstance(args[1 if func is aten.copy_.default else 0], PretendedTensor) if args else False
    if func is aten.copy_.default:
        to_ours = isinstance(args[0], PretendedTensor)
    else:
        to_ours = from_ours if target is None else _is_ours(target)
    if kind.copies:
        counts.copies += to_ours and not from_ours
    masks = [index for index in args[1] if index is not None] if kind.indexes else []
    counts.copies += sum(not isinstance(index, PretendedTensor) for index in masks)
    leaves = kind.copies and from_ours and not to_ours
    counts.synchronisations += leaves or kind.waits or any(mask.dtype == torch.bool for mask in masks)


@dataclass(frozen=True)
class _Kind:
    """What CUDA's rules say of an operation."""

    indexes: bool
    copies: bool
    waits: bool
    takes_numbers: bool
    gives_a_view: bool


@functools.cache
def _kind(func: Any) -> _Kind:
    return _Kind(
        indexes=func in INDEXING,
        copies=func in COPYING,
        waits=func in WAITING,
        takes_numbers=func in TAKES_NUMBERS or torch.Tag.pointwise in func.tags,
        gives_a_view=any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns),
    )


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among an operation's arguments, which are values and sequences of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _held(value: Any) -> Any:
    """An argument with the tensors of the CPU in place of the device's. PyTorch's own trees take ten times as long."""
    if isinstance(value, PretendedTensor):
        return value.held
    if isinstance(value, (tuple, list)):
        return type(value)(_held(part) for part in value)
    return value


def _wrapped(value: Any) -> Any:
    return PretendedTensor(value) if isinstance(value, Tensor) and not isinstance(value, PretendedTensor) else value
