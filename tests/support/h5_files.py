"""HDF5 files as tests see them: read whole, and changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from utils.h5 import write_h5

Arrays = dict[str, np.ndarray]


def arrays_of(file: Path) -> Arrays:
    """All data sets of a file, by name."""
    with h5py.File(file) as opened:
        return {name: opened[name][()] for name in opened}


def attributes_of(file: Path) -> dict[str, Any]:
    """The attributes of the file itself."""
    with h5py.File(file) as opened:
        return dict(opened.attrs)


@contextmanager
def changed(file: Path) -> Iterator[Arrays]:
    """The data sets of a file, to be changed; attributes stay."""
    arrays, attributes = arrays_of(file), attributes_of(file)
    yield arrays
    write_h5(file, arrays, attributes)
