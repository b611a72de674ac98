"""Ways to break a task, its files and its CLIP."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from tests.conftest import SimulatedTask
from tests.support.run_contents import files_below

SLIDE = "SIM-0003"

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 605247071\n"


def own_clip(task: SimulatedTask) -> Path:
    """The task's CLIP as a copy, so that it can be broken."""
    folder = task.root / "tinyclip"
    original = folder.resolve()
    folder.unlink()
    shutil.copytree(original, folder)
    return folder


def files_but_checks(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the memory of the checks."""
    return {name: data for name, data in files_below(folder).items() if Path(name).name != "checked_features.json"}


def change(path: Path, name: str, new: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Replace a data set of an HDF5 file, or remove it."""
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        del file[name]
        if new is not None:
            file[name] = new(values)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(file: Path) -> None:
    """One bit of a letter or digit near the middle."""
    data = bytearray(file.read_bytes())
    places = range(len(data) // 2, len(data))
    place = next(place for place in places if chr(data[place]).isalnum() or file.suffix == ".pt")
    data[place] ^= 1
    file.write_bytes(data)


def first_is(value: float, kind: type = np.float32) -> Callable[[np.ndarray], np.ndarray]:
    """Put ``value`` at the first place."""

    def new(values: np.ndarray) -> np.ndarray:
        values = values.astype(kind)
        values.flat[0] = value
        return values

    return new


EXTRACT, LINK = "extract_features.py --wsi-dir SLIDES", "create_hierarchical_features.py"

LOW, HIGH = "tinyclip_5x", "hierarchical_tinyclip_5x_20x"


def change_text(path: Path, old: str, new: str, times: int = -1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, times))


def read_ids(file: Path) -> dict[str, list[str]]:
    table = pd.read_csv(file, index_col=0, dtype=str)
    return {name: table[name].dropna().tolist() for name in table}


def write_ids(file: Path, ids: dict[str, list[str]]) -> None:
    pd.DataFrame({name: pd.Series(members, dtype=str) for name, members in ids.items()}).to_csv(file)


def change_json(path: Path, new: Callable) -> None:
    path.write_text(json.dumps(new(json.loads(path.read_text()))))


def without_last(by_class: dict) -> dict:
    by_class["SIMULATED_B"].popitem()
    return by_class


def other_clip(task: SimulatedTask) -> None:
    from models.tiny_clip import save_tiny_clip

    (task.root / "tinyclip").unlink()
    save_tiny_clip(task.root / "tinyclip", width=16, seed=5)


def other_clip_and_features(task: SimulatedTask) -> None:
    """Another model, of which the features say that they are."""
    from models.vlms import load_image_side

    other_clip(task)
    told = load_image_side("tinyclip", str(task.root / "tinyclip")).identity().attributes()
    for file in task.features.rglob("*.h5"):
        with h5py.File(file, "r+") as opened:
            opened.attrs.update(told)
