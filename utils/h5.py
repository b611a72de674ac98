"""Reading and writing feature files (HDF5): the one place that opens them.

A file may come from anywhere. So no link, virtual data set or external storage leads a reader to another file, nothing
is read that is larger than the file can back, and attributes come as plain values. Files are read without HDF5's locks,
which many file systems of clusters lack; whether another process writes a file is asked beforehand.
"""

import errno
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from utils.errors import Fault, UserError
from utils.memory import free_memory
from utils.whole_files import write_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WITH_ATTRIBUTES = ("features", "feats", "coords")
"""Data sets whose attributes say something of the file."""
SMALL = 2**26  # bytes that are read without a look at the free memory
LARGEST_ATTRIBUTE = 2**16  # bytes
ALIGNMENT = 64  # bytes
SYSTEM_ERROR = re.compile(r"errno = ([1-9]\d*)")


def write_h5(path: Path, datasets: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write a whole file or none: data sets, and attributes that say how they were made. Raises UserError as
    ``write_bytes``."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
        file.attrs.update({name: _storable(value) for name, value in attributes.items()})
    write_bytes(path, buffer.getbuffer())


def read_h5(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read data sets of numbers whole. Raises UserError, naming the file, where it is missing, damaged, being written
    or lacks one, and where one lies elsewhere, declares more than there is, or does not fit into the free memory."""
    with _opened(path) as file:
        there = set(file)  # names alone: a test of membership follows links
        missing = [name for name in names if name not in there]
        if missing:
            problem = f"no data set {missing[0]!r}, but {sorted(there)}"
            raise UserError(Fault("h5.no_data_set", str(path), problem, expected=str(list(names))))
        wanted = (*names, *(name for name in optional if name in there))
        return {name: _read(path, _dataset(path, file, name)) for name in wanted}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's own data sets, by name. Raises UserError where it is missing, damaged or being written."""
    with _opened(path) as file:
        own = [name for name in file if _is_own(file, name)]
        return {name: file[name].shape or () for name in own if isinstance(file[name], h5py.Dataset)}


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a file, of its ``features`` and of its ``coords``: texts and numbers, or lists of them, empty
    where there is no value; those of other kinds are left out. Raises UserError where the file is missing, damaged or
    being written."""
    with _opened(path) as file:
        parts = [file, *(_dataset(path, file, name) for name in file if name in WITH_ATTRIBUTES)]
        return dict(told for part in parts for told in _attributes(path, part))


# ---- opening ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A file to be read. HDF5 reads it by way of Python's file, and so takes no lock, whatever the environment says."""
    if not path.is_file():
        found = "not a file" if path.exists() else "file not found"
        raise UserError(Fault("file.missing", str(path), found))
    try:
        with path.open("rb") as source:
            if _is_being_written(source):
                raise BlockingIOError(errno.EAGAIN, "locked by a writer")
            with h5py.File(source, "r") as file:
                yield file
    except UserError:
        raise
    except Exception as error:  # HDF5 raises many kinds for what it meets in a damaged file
        raise UserError(_fault_of(path, error)) from error


def _is_being_written(source: IO[bytes]) -> bool:
    """Whether another process has opened the file for writing, as far as HDF5's locks tell. No lock is kept."""
    if fcntl is None or os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return False
    try:
        fcntl.flock(source, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(source, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:  # the file system has no locks
        return False
    return False


def _fault_of(path: Path, error: Exception) -> Fault:
    """What is wrong with a file that cannot be read: it is being written, the system refuses it, or it is damaged."""
    told = SYSTEM_ERROR.search(str(error))
    number = int(told[1]) if told else getattr(error, "errno", None)
    if isinstance(error, MemoryError):
        return Fault("h5.too_large", str(path), "does not fit into the free memory")
    if number == errno.EAGAIN or "already open for write" in str(error):
        mend = "wait until that process has ended, and run the command again"
        return Fault("h5.being_written", str(path), "another process is writing this file", mend=mend)
    if number:
        found = f"cannot be read ({os.strerror(number)})"
        return Fault("file.unreadable", str(path), found, mend="it may be whole: see to its disk and permissions")
    return Fault("h5.unreadable", str(path), f"not a readable HDF5 file, it may be cut off ({error})")


# ---- data sets -------------------------------------------------------------------------------------------------------


def _is_own(file: h5py.File, name: str) -> bool:
    """Whether a name is a hard link, which leads to nothing outside the file."""
    return isinstance(file.get(name, getlink=True), h5py.HardLink)


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A data set of numbers that lies in the file. Raises UserError for anything else."""
    if not _is_own(file, name):
        raise UserError(Fault("h5.link", str(path), f"{name!r} is a link", "a data set in the file itself"))
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        kind = type(found).__name__.lower()
        raise UserError(Fault("h5.no_data_set", str(path), f"{name!r} is a {kind}", "a data set"))
    if found.is_virtual or found.external:
        raise UserError(Fault("h5.link", str(path), f"{name!r} lies in another file", "a data set in the file itself"))
    if found.shape is None or found.dtype.kind not in "biufc":
        kind = "nothing" if found.shape is None else str(found.dtype)
        raise UserError(Fault("h5.kind", str(path), f"data set {name!r} holds {kind}", "numbers"))
    return found


def _read(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    """All values. Raises UserError where some were never written, and where they do not fit into the free memory."""
    name = str(dataset.name).lstrip("/")
    wanted = math.prod(dataset.shape) * dataset.dtype.itemsize
    if dataset.chunks:
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        is_whole = dataset.id.get_num_chunks() == chunks
        largest = max(wanted, math.prod(dataset.chunks) * dataset.dtype.itemsize)
    else:
        is_whole = wanted <= min(dataset.id.get_storage_size(), path.stat().st_size)
        largest = wanted
    if not is_whole:
        found = f"data set {name!r} declares {dataset.shape} values, and some were never written"
        raise UserError(Fault("h5.unwritten", str(path), f"{found}: it was cut off, or damaged"))
    if largest > SMALL and largest > (free := free_memory()):
        found = f"data set {name!r} of shape {dataset.shape} takes {largest / 1e9:.1f} GB of memory"
        raise UserError(Fault("h5.too_large", str(path), found, f"at most the {free / 1e9:.1f} GB that are free"))
    values = aligned(dataset.shape, dataset.dtype)
    if values.size:
        dataset.read_direct(values)
    return values


def aligned(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """An array without values that begins at a multiple of 64 bytes, as PyTorch's own memory does. Where it lies is
    else a matter of chance, and BLAS libraries may round otherwise where arrays lie otherwise."""
    wanted = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(wanted + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + wanted].view(dtype).reshape(shape)


# ---- attributes ------------------------------------------------------------------------------------------------------


def _attributes(path: Path, part: h5py.File | h5py.Dataset) -> Iterable[tuple[str, Any]]:
    attributes = part.attrs  # made anew each time that it is asked for
    for name in attributes:
        attribute = attributes.get_id(name)
        if attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            yield name, []
            continue
        kind = attribute.dtype
        size = math.prod(attribute.shape) * kind.itemsize
        if size > LARGEST_ATTRIBUTE:
            found = f"attribute {name!r} takes {size} bytes"
            raise UserError(Fault("h5.attribute", str(path), found, f"at most {LARGEST_ATTRIBUTE}"))
        if kind.kind in "biufcSUO" and not h5py.check_ref_dtype(kind):
            yield name, _plain(attributes[name])


def _plain(value: Any) -> Any:
    """An array as a list, bytes as text; other values as they are."""
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _storable(value: Any) -> Any:
    """A list of texts in the form that h5py writes."""
    array = np.asarray(value) if isinstance(value, list) else None
    return array.astype(h5py.string_dtype()) if array is not None and array.dtype.kind == "U" else value
