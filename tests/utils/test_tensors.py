"""Files of tensors, of whatever program: a plain state dict, or one fault that says what the file is instead."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.support.damage import LFS_POINTER
from tests.support.faults import check_fault, expect_faults
from utils.tensors import misfit, plain_state, read_state, read_tensors

STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2)}
OPTIMISER = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


def under(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in STATE.items()}


UNDERSTOOD: dict[str, Any] = {
    "plain": STATE,
    "ordered": OrderedDict(STATE),
    "parameters": {name: torch.nn.Parameter(value) for name, value in STATE.items()},
    "state_dict": {"state_dict": STATE, "optimizer": OPTIMISER, "epoch": 3},
    "model": {"model": STATE, "optimizer": OPTIMISER, "args": {"lr": 0.1}, "scaler": None},
    "model_state_dict": {"model_state_dict": STATE, "loss": torch.tensor(0.5)},
    "model_of_state_dict": {"model": {"state_dict": STATE, "epoch": 3}},
    "numbers_of_numpy": {"state_dict": STATE, "lr": np.float64(0.1), "best": np.float32(1), "epoch": np.int64(3)},
    "data_parallel": under("module."),
    "compiled": under("_orig_mod."),
    "lightning": {"state_dict": under("model."), "pytorch-lightning_version": "2.0", "callbacks": {}},
    "all_of_it": {"state_dict": under("module._orig_mod."), "epoch": 3},
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_what_programs_put_around_a_state_is_taken_away(case: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save(UNDERSTOOD[case], file)
    found = read_state(file)
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], value) and not found[name].requires_grad for name, value in STATE.items())


def test_safetensors_are_read_whatever_their_name(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.bin")
    found = read_state(tmp_path / "x.bin")
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in STATE.items()}


def test_a_prefix_that_some_names_lack_stays() -> None:
    assert list(plain_state({"module.a": torch.ones(1), "b": torch.ones(1)})) == ["module.a", "b"]


itself: dict[str, Any] = {"epoch": 1}
itself["state_dict"] = itself
FORMS: dict[str, tuple[Any, str]] = {
    "empty": ({}, "no tensors"),
    "empty_inside": ({"state_dict": {}}, "no tensors"),
    "list": (list(STATE.values()), "a list"),
    "tensor": (torch.ones(2), "a Tensor"),
    "number": (3, "a int"),
    "none": (None, "a NoneType"),
    "ints": ({"layer.weight": 3, "layer.bias": 4}, "2 entries that are no tensors by name (layer.weight: int"),
    "texts": ({"layer.weight": "x"}, "1 entries"),
    "one_int": ({**STATE, "epoch": 3}, "1 entries that are no tensors by name (epoch: int)"),
    "training_state_inside": ({**STATE, "optimizer": OPTIMISER}, "(optimizer: dict)"),
    "numbered": ({1: torch.ones(2)}, "1 entries"),
    "lists_of_tensors": ({"layer": [torch.ones(2)]}, "(layer: list)"),
    "two_models": ({"model": STATE, "state_dict": STATE}, "several models"),
    "to_go_on_from": ({"model": STATE, "optimizer": OPTIMISER, "progress": {}, "origin": {}}, "a state to go on from"),
    "within_itself": (itself, "entries that are no tensors"),
    "sparse": ({**STATE, "x": torch.eye(2).to_sparse()}, "(x: sparse)"),
    "compressed": ({**STATE, "x": torch.eye(2).to_sparse_csr()}, "(x: sparse)"),
    "meta": ({**STATE, "x": torch.empty(2, device="meta")}, "(x: without values (meta))"),
    "quantized": ({**STATE, "x": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "(x: quantized)"),
    "complex": ({**STATE, "x": torch.ones(2, dtype=torch.complex64)}, "(x: complex)"),
    "nan": ({**STATE, "x": torch.tensor([1.0, float("nan")])}, "(x: NaN in some places)"),
    "nan_of_half": ({**STATE, "x": torch.tensor([float("nan")]).half()}, "(x: NaN in some places)"),
}


@pytest.mark.parametrize("case", FORMS)
def test_what_is_no_state_of_a_model(case: str, tmp_path: Path) -> None:
    saved, found = FORMS[case]
    file = tmp_path / "x.pt"
    torch.save(saved, file)
    with expect_faults("tensors.form") as faults:
        read_state(file)
    check_fault(faults[0], "tensors.form", file, found)


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, made: Path):
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch {self.made}",)


def saved_bytes(value: Any, **how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def zip_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def recompressed(content: bytes) -> bytes:
    """The same archive with its members compressed, as no program of PyTorch writes them: a way to a bomb."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return zip_of(**{name: archive.read(name) for name in archive.namelist()})


def flipped(content: bytes) -> bytes:
    place = content.index(STATE["layer.weight"].numpy().tobytes())
    return content[: place + 5] + bytes([content[place + 5] ^ 1]) + content[place + 6 :]


def numpy_bytes(save: Callable[..., object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.ones(3))
    return buffer.getvalue()


WHOLE = saved_bytes(STATE)
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no_bytes": (b"", "an empty file"),
    "pointer": (LFS_POINTER, "a git-lfs pointer"),
    "html": (b"\n<!DOCTYPE html><html>", "a page of HTML"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "numpy": (numpy_bytes(np.save), "an array of NumPy"),
    "numpy_archive": (numpy_bytes(np.savez), "damaged, or not a checkpoint"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(20), "a gzip archive"),
    "json": (json.dumps({"a": 1}).encode(), "damaged, or not a checkpoint"),
    "text": (b"not a checkpoint", "damaged, or not a checkpoint"),
    "zip_of_other_files": (zip_of(a=b"x"), "damaged, or not a checkpoint"),
    "cut_off": (WHOLE[: len(WHOLE) // 2], "damaged, or not a checkpoint"),
    "flipped": (flipped(WHOLE), "damaged, or not a checkpoint"),
    "compressed": (recompressed(WHOLE), "damaged, or not a checkpoint"),
    "safetensors_cut_off": (b"\x40\0\0\0\0\0\0\0{" + b'"a": {"dtype": "F32", "shape": [2]', "damaged"),
    "safetensors_of_any_length": (b"\xff" * 7 + b"\x7f" + b"{}", "damaged"),
    "deep": (b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".", "damaged"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read(case: str, tmp_path: Path) -> None:
    content, found = UNREADABLE[case]
    file = tmp_path / "x.pt"
    file.write_bytes(content)
    with expect_faults("tensors.unreadable") as faults:
        read_tensors(file)
    check_fault(faults[0], "tensors.unreadable", file, "not readable as tensors:", found)


@pytest.mark.parametrize("old_form", [False, True])
@pytest.mark.parametrize("place", ["alone", "inside"])
def test_objects_whose_loading_runs_code_are_refused(place: str, old_form: bool, tmp_path: Path) -> None:
    file, made = tmp_path / "x.pt", tmp_path / "made"
    value = Evil(made) if place == "alone" else {**STATE, "x": Evil(made)}
    file.write_bytes(saved_bytes(value, _use_new_zipfile_serialization=not old_form))
    with expect_faults("tensors.unsafe") as faults:
        read_state(file)
    check_fault(faults[0], "tensors.unsafe", file, "system")
    assert not made.exists()


@pytest.mark.parametrize("value", [torch.nn.Linear(2, 2), {"args": Path("x")}])
def test_whole_models_and_other_objects_are_named(value: Any, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "x.pt")
    with expect_faults("tensors.unsafe"):
        read_tensors(tmp_path / "x.pt")


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps(print, protocol=2))
    with expect_faults("tensors.unsafe"):
        read_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("make", [lambda file: None, Path.mkdir])
def test_what_is_no_file(make: Callable[[Path], object], tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    make(file)
    with expect_faults("file.missing") as faults:
        read_state(file)
    assert faults[0].where == str(file)


WEIGHT, COUNTER = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
FITS = [
    (torch.ones(2, 3), WEIGHT), (torch.ones(2, 3).half(), WEIGHT), (torch.ones(2, 3).double(), WEIGHT),
    (torch.ones(3, 2).t(), WEIGHT), (torch.ones(2, dtype=torch.int32), COUNTER),
]  # fmt: skip
DOES_NOT = [
    (3, WEIGHT, "is a int"), (None, WEIGHT, "is a NoneType"), (torch.ones(3, 2), WEIGHT, "is (3, 2), expected (2, 3)"),
    (torch.ones(2, 3, dtype=torch.int64), WEIGHT, "is of torch.int64"), (torch.ones(2, 3).bool(), WEIGHT, "torch.bool"),
    (torch.ones(2), COUNTER, "is of torch.float32"), (torch.full((2, 3), torch.inf), WEIGHT, "6 numbers"),
    (torch.full((2, 3), 1e300, dtype=torch.float64), WEIGHT, "6 numbers that are NaN or infinite"),
    (torch.zeros(2, 3).to_sparse(), WEIGHT, "is sparse"), (torch.ones(1).expand(10**9), WEIGHT, "is (1000000000,)"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "expected"), FITS)
def test_tensors_that_fit(found: Any, expected: torch.Tensor) -> None:
    assert misfit(found, expected) == ""


@pytest.mark.parametrize(("found", "expected", "why"), DOES_NOT)
def test_tensors_that_do_not(found: Any, expected: torch.Tensor, why: str) -> None:
    assert why in misfit(found, expected)
