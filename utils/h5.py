"""Reading and writing feature files (HDF5)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from utils.errors import Fault, UserError
from utils.files import whole_file


def write_h5(path: Path, datasets: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
    """Write a whole file or none: data sets, and attributes that say how they were made."""
    with whole_file(path) as temporary, h5py.File(temporary, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
        file.attrs.update(attributes)


def read_h5(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read data sets whole. Raises UserError, naming the file, where it is missing, damaged or lacks one."""
    if not path.is_file():
        raise UserError(Fault("file.missing", str(path), "file not found"))
    try:
        with h5py.File(path, "r") as file:
            found = sorted(name for name in file if isinstance(file[name], h5py.Dataset))
            missing = [name for name in names if name not in found]
            if missing:
                problem = f"no data set {missing[0]!r}, but {found}"
                raise UserError(Fault("h5.no_data_set", str(path), problem, expected=str(list(names))))
            return {
                name: np.asarray(file[name][()]) for name in (*names, *(name for name in optional if name in found))
            }
    except (OSError, RuntimeError, KeyError) as error:
        problem = f"not a readable HDF5 file, it may be cut off ({error})"
        raise UserError(Fault("h5.unreadable", str(path), problem)) from error
