"""Files of tensors of any program: read without running what they hold, and made a plain ``{name: tensor}``."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import Fault, UserError

FOLDER_BIT = 0x10  # of the attributes that DOS gives a file
NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""Under which programs keep a model's tensors, beside the state of their training."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before all names."""
DEEPEST = 4  # nests within nests
STATE_TO_GO_ON = {"model", "optimizer", "progress"}
OTHER_FILES = {
    b"version https://git-lfs": "a git-lfs pointer and not the file itself (git lfs pull fetches the file)",
    b"<": "a page of HTML or XML, as servers send in place of a file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "an array of NumPy",
    b"\x1f\x8b": "a gzip archive, to be unpacked first",
}
"""What a file is instead, by its first bytes."""
NUMBERS: list[Any] = [np.dtype, np.float64(0).__reduce__()[0], *(type(np.dtype(kind)) for kind in "efdilqB?")]
"""NumPy's numbers, which optimisers keep and which hold no code."""
NOT_READABLE = "not readable as tensors:"
MOST_SHOWN = 3


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_tensors(path: Path) -> Any:
    """What ``torch.save`` or safetensors wrote, on the CPU. Raises UserError where the file cannot be read, is not what
    was written, or holds objects whose loading could run code."""
    if not path.is_file():
        raise UserError(Fault("file.missing", str(path), "file not found"))
    if other := other_kind(path):
        raise UserError(Fault("tensors.unreadable", str(path), f"{NOT_READABLE} {other}"))
    try:
        _check_archive(path)
        return load_tensors(path)
    except Exception as error:  # PyTorch raises what its unpickler meets
        if isinstance(error, pickle.UnpicklingError) and (named := re.search(r"GLOBAL (\S+)", str(error))):
            found = f"{NOT_READABLE} holds objects of {named[1]}, whose loading could run code"
            mend = "save the model's tensors alone (its state_dict) with the program that wrote the file"
            raise UserError(Fault("tensors.unsafe", str(path), found, "tensors and plain values", mend)) from error
        found = f"{NOT_READABLE} damaged, or not a checkpoint"
        raise UserError(Fault("tensors.unreadable", str(path), found)) from error


def other_kind(path: Path) -> str:
    """What a file is that holds no tensors, by its first bytes; "" where it may hold some."""
    with path.open("rb") as file:
        start = file.read(32)
    kind = next((kind for mark, kind in OTHER_FILES.items() if start.lstrip().startswith(mark)), "")
    return kind if start else "an empty file"


def load_tensors(path: Path, mmap: bool = False) -> Any:
    """What a file of safetensors or of PyTorch holds, on the CPU, by readers that run nothing of the file.

    mmap: tensors of PyTorch's zip archives stay on the disk until used. Raises what the file's reader raises.
    """
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"
    if is_safetensors:
        from safetensors.torch import load_file

        return load_file(path)
    with torch.serialization.safe_globals(NUMBERS):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))


def _check_archive(path: Path) -> None:
    """Raises BadZipFile, among others, where a member of a zip archive of tensors is not what its checksum tells, or is
    compressed; ``torch.load`` looks at no checksum, and reads a member that is marked as a folder as zeros."""
    if not zipfile.is_zipfile(path):  # PyTorch's form of before 1.6, without checksums
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(one.external_attr & FOLDER_BIT or one.compress_type != zipfile.ZIP_STORED for one in members):
            raise zipfile.BadZipFile(str(path))
        if archive.testzip():
            raise zipfile.BadZipFile(str(path))


# ---- the tensors of a model ------------------------------------------------------------------------------------------


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a model by name, from a checkpoint of any program: taken out of the state of a training, and
    without a prefix that all names have.

    Raises UserError as ``read_tensors``, and where the file does not hold plain tensors by name.
    """
    try:
        return plain_state(read_tensors(path))
    except ValueError as error:
        expected = "tensors by name, or these under state_dict or model"
        raise UserError(Fault("tensors.form", str(path), str(error), expected)) from error


def plain_state(saved: Any) -> dict[str, Tensor]:
    """As ``read_state``, from what was read. Raises ValueError."""
    state = _unnested(saved)
    if not isinstance(state, Mapping):
        raise ValueError(f"found a {type(state).__name__}")
    if not state:
        raise ValueError("found no tensors")
    _refuse("entries that are no tensors by name", {
        str(name): type(value).__name__ for name, value in state.items()
        if not isinstance(name, str) or not isinstance(value, Tensor)
    })  # fmt: skip
    _refuse("tensors that models do not hold", {
        name: kind for name, value in state.items() if (kind := _odd_kind(value))
    })  # fmt: skip
    return {name: value.detach() for name, value in without_prefixes(state).items()}


def without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, without what a program puts before all names."""
    named = dict(state)
    while named and (prefix := next((one for one in PREFIXES if all(name.startswith(one) for name in named)), "")):
        named = {name.removeprefix(prefix): value for name, value in named.items()}
    return named


def _unnested(saved: Any) -> Any:
    """The innermost mapping of a model's tensors. Raises ValueError where there are two."""
    state = saved
    for _ in range(DEEPEST):
        if not isinstance(state, Mapping):
            break
        if set(state) >= STATE_TO_GO_ON:
            raise ValueError("found a state to go on from (resume_<k>.pt), whose weights are not those of a checkpoint")
        nests = [name for name in NESTS if isinstance(state.get(name), Mapping)]
        if not nests:
            break
        if len(nests) > 1:
            raise ValueError(f"found several models: {', '.join(nests)}")
        state = state[nests[0]]
    return state


def _odd_kind(tensor: Tensor) -> str:
    """What keeps a tensor from being a weight, "" for nothing."""
    kinds = {
        "sparse": tensor.layout is not torch.strided,
        "nested": tensor.is_nested,
        "quantized": tensor.is_quantized,
        "without values (meta)": tensor.is_meta,
        "complex": tensor.is_complex(),
    }
    kind = next((kind for kind, is_so in kinds.items() if is_so), "")
    return kind or ("NaN in some places" if tensor.is_floating_point() and tensor.isnan().any() else "")


def _refuse(what: str, wrong: Mapping[str, str]) -> None:
    if wrong:
        shown = ", ".join(f"{name}: {kind}" for name, kind in list(wrong.items())[:MOST_SHOWN])
        more = f", and {len(wrong) - MOST_SHOWN} more" if len(wrong) > MOST_SHOWN else ""
        raise ValueError(f"found {len(wrong)} {what} ({shown}{more})")


def is_weight(value: Any) -> bool:
    """Whether a value is a plain tensor of floating-point numbers."""
    return isinstance(value, Tensor) and not _odd_kind(value) and value.is_floating_point()


def misfit(found: Any, expected: Tensor) -> str:
    """Why ``found`` cannot take the place of the tensor ``expected``, in words; "" where it can. Floating-point numbers
    of another precision can."""
    if not isinstance(found, Tensor):
        return f"is a {type(found).__name__}"
    if kind := _odd_kind(found):
        return f"is {kind}"
    if found.shape != expected.shape:
        return f"is {tuple(found.shape)}, expected {tuple(expected.shape)}"
    if found.is_floating_point() != expected.is_floating_point():
        return f"is of {found.dtype}, expected {expected.dtype}"
    as_expected = found.to(expected.dtype)  # a great float64 is infinite as float32
    if found.is_floating_point() and not torch.isfinite(as_expected).all():
        return f"has {int((~torch.isfinite(as_expected)).sum())} numbers that are NaN or infinite"
    return ""
