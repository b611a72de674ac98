"""Damage to a file: any bytes of it, or what its form holds."""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

Operator = Callable[[Path, random.Random], object]
STRANGE = [
    None,
    [],
    {},
    "",
    "text",
    -1,
    0,
    0.5,
    1e308,
    10**30,
    True,
    ["a"],
    {"a": 1},
    "\ud800",
    "nan",
    "é\u0301",
    "a" * 9000,
]
"""Values in place of those of a JSON file."""
STRANGE_CELLS = [
    "",
    " ",
    "nan",
    "-1",
    "1e400",
    "=1+1",
    "a,b",
    '"',
    "\x00",
    "é",
    "../x",
    "SIM-0000",
    "9" * 400,
    "unknown",
]


# ---- any bytes -------------------------------------------------------------------------------------------------------


def flip_bit(file: Path, generator: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    file.write_bytes(data)


def cut_off(file: Path, generator: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: generator.randrange(len(data))])


def zeros(file: Path, generator: random.Random) -> None:
    data = bytearray(file.read_bytes())
    start = generator.randrange(len(data))
    length = min(generator.choice([1, 16, 512, 4096]), len(data) - start)
    data[start : start + length] = bytes(length)
    file.write_bytes(data)


def noise(file: Path, generator: random.Random) -> None:
    data = bytearray(file.read_bytes())
    start = generator.randrange(len(data))
    data[start:start] = generator.randbytes(generator.randint(1, 40))
    file.write_bytes(data)


def emptied(file: Path, generator: random.Random) -> None:
    file.write_bytes(b"")


def swapped(file: Path, generator: random.Random) -> None:
    """With a file of the same form beside it."""
    others = sorted(other for other in file.parent.glob(f"*{file.suffix}") if other != file)
    file.write_bytes(generator.choice(others).read_bytes() if others else file.read_bytes()[::-1])


def lfs_pointer(file: Path, generator: random.Random) -> None:
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 605247071\n")


def other_encoding(file: Path, generator: random.Random) -> None:
    encoding = generator.choice(["utf-16", "utf-8-sig", "latin-1"])
    file.write_bytes(file.read_text(encoding="utf-8").encode(encoding, errors="replace"))


BYTES: list[Operator] = [flip_bit, cut_off, zeros, noise, emptied, swapped, lfs_pointer]


# ---- JSON, tables, YAML ----------------------------------------------------------------------------------------------


def json_value(file: Path, generator: random.Random) -> None:
    """Another value somewhere, or one removed."""
    content = json.loads(file.read_text(encoding="utf-8"))
    holder, key = generator.choice(list(_places(content)))
    value = holder[key]
    if generator.random() < 0.3:
        del holder[key]
    elif isinstance(value, int | float) and generator.random() < 0.5:
        holder[key] = value + generator.choice([1, -1, 0.25])
    elif isinstance(value, str) and generator.random() < 0.3:
        holder[key] = value[::-1] + "x"
    else:
        holder[key] = generator.choice(STRANGE)
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")


def json_whole(file: Path, generator: random.Random) -> None:
    file.write_text(generator.choice(["{}", "[]", "null", "1", '"a"', "NaN", "[" * 100_000, '{"a": 1, "a": 2}']))


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def table_cell(file: Path, generator: random.Random) -> None:
    """A cell, row or column of a CSV is changed, removed, or there twice."""
    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
    row, column = generator.randrange(len(rows)), generator.randrange(max(1, len(rows[0])))
    match generator.choice(["cell", "cell", "cell", "no row", "row twice", "no column", "column twice", "wide"]):
        case "cell":
            rows[row][min(column, len(rows[row]) - 1)] = generator.choice(STRANGE_CELLS)
        case "no row":
            del rows[row]
        case "row twice":
            rows.insert(row, list(rows[row]))
        case "no column":
            rows = [cells[:column] + cells[column + 1 :] for cells in rows]
        case "column twice":
            rows = [cells[: column + 1] + cells[column:] for cells in rows]
        case "wide":
            rows[row] = ["x", *rows[row]]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    file.write_text(text.getvalue(), encoding="utf-8")


def yaml_text(file: Path, generator: random.Random) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    number = generator.randrange(len(lines))
    strange = [
        "2020-01-01",
        "!!python/object:os.system x",
        "&a [*a]",
        "[",
        "null",
        "{}",
        "1e999",
        "[[1], {a: b}]",
        "- x",
    ]
    key = lines[number].partition(":")[0]
    lines[number] = generator.choice([f"{key}: {generator.choice(strange)}", generator.choice(strange), ""])
    file.write_text("\n".join(lines), encoding="utf-8")


# ---- HDF5 and tensors ------------------------------------------------------------------------------------------------


def h5_item(file: Path, generator: random.Random) -> None:
    """A data set is another, a link, or not there; an attribute is an array."""
    with h5py.File(file, "r+") as opened:
        name = generator.choice(sorted(opened))
        kind = generator.choice(["attribute", "group", "huge", *LINKS, *OTHER_VALUES])
        if kind == "attribute":
            opened.attrs[generator.choice(sorted(opened.attrs) or ["made"])] = np.arange(3)
            return
        values = opened[name][()]
        del opened[name]
        if kind == "group":
            opened.create_group(name)
        elif kind == "huge":
            opened.create_dataset(name, (10**7, *values.shape[1:]), values.dtype, chunks=True)
        elif kind in OTHER_VALUES:
            opened[name] = OTHER_VALUES[kind](values, generator)
        elif link := LINKS[kind]:
            opened[name] = link


def _at_one_place(value: float) -> Callable[[np.ndarray, random.Random], np.ndarray]:
    def change(values: np.ndarray, generator: random.Random) -> np.ndarray:
        values = values.astype(np.float32) if np.isnan(value) else values
        values.flat[generator.randrange(values.size)] = value
        return values

    return change


LINKS = {
    "none": None,
    "dangling": h5py.SoftLink("/nowhere"),
    "loop": h5py.SoftLink("."),
    "outside": h5py.ExternalLink("/etc/hostname", "/x"),
}
OTHER_VALUES: dict[str, Callable[[np.ndarray, random.Random], Any]] = {
    "one": _at_one_place(1),
    "other": _at_one_place(0),
    "nan": _at_one_place(np.nan),
    "type": lambda values, generator: values.astype(generator.choice([np.int8, np.float16, np.complex64, "S4"])),
    "row less": lambda values, _: values[:-1],
    "dimension more": lambda values, _: values[None],
    "flat": lambda values, _: values.ravel(),
    "empty": lambda values, _: values[:0],
    "zeros": lambda values, _: np.zeros_like(values),
}


def tensor_item(file: Path, generator: random.Random) -> None:
    """A tensor is another, or not there, or what is saved has another form."""
    content = torch.load(file, weights_only=True)
    tensors = [(holder, key) for holder, key in _places(content) if isinstance(holder[key], torch.Tensor)]
    holder, key = generator.choice(tensors)
    kind = generator.choice(["none", "nested", "more", "list", *OTHER_TENSORS])
    if kind == "none":
        del holder[key]
    elif kind in OTHER_TENSORS:
        holder[key] = OTHER_TENSORS[kind](holder[key])
    elif kind == "more":
        content["module.more"] = torch.ones(3)
    else:
        content = {"state_dict": content} if kind == "nested" else list(content.values())
    torch.save(content, file)


OTHER_TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "value": lambda tensor: tensor + torch.ones((), dtype=tensor.dtype),
    "nan": lambda tensor: torch.full(tensor.shape, float("nan")),
    "shape": lambda tensor: tensor.reshape(-1)[:1],
    "int": lambda tensor: tensor.to(torch.int64),
    "sparse": lambda tensor: tensor.to_sparse(),
    "meta": lambda tensor: tensor.to("meta"),
    "text": lambda tensor: "text",
}


FORMS: dict[str, list[Operator]] = {
    ".json": [json_value, json_value, json_value, json_whole, other_encoding],
    ".csv": [table_cell, table_cell, table_cell, other_encoding],
    ".yaml": [yaml_text, yaml_text, other_encoding],
    ".h5": [h5_item, h5_item, h5_item],
    ".pt": [tensor_item, tensor_item, tensor_item],
}
"""Operators that know the form of a file, by its suffix."""


def mutate(file: Path, generator: random.Random) -> str:
    """Damage a file: -> how."""
    before = file.read_bytes()
    operators = [*BYTES, *3 * FORMS.get(file.suffix, [])]
    while file.read_bytes() == before:
        operator = generator.choice(operators)
        operator(file, generator)
    return operator.__name__.replace("_", " ")
