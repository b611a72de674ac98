"""HDF5 files that would lead a reader elsewhere, fill its memory, or are another's: told, and not read."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import utils.h5
from tests.support.faults import check_fault, expect_faults
from utils.h5 import read_attributes, read_h5, read_shapes, write_h5

VALUES = np.arange(6, dtype=np.float32).reshape(3, 2)


def external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("features", (4,), "u1", external=[(str(secret), 0, 4)])


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((3, 2), "f4")
    layout[:] = h5py.VirtualSource(secret.with_suffix(".h5"), "features", (3, 2))
    file.create_virtual_dataset("features", layout)


def unwritten_chunks(file: h5py.File, secret: Path) -> None:
    file.create_dataset("features", (10**9, 512), "f4", chunks=(1000, 512), compression="gzip")


def some_chunks(file: h5py.File, secret: Path) -> None:
    file.create_dataset("features", (40, 2), "f4", chunks=(10, 2))[:30] = 1


def looping(file: h5py.File, secret: Path) -> None:
    file["features"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/features")


def named(file: h5py.File, target: Any) -> None:
    file["features"] = target


FOREIGN: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "dangling": (lambda file, secret: named(file, h5py.SoftLink("/nowhere")), "h5.link"),
    "looping": (looping, "h5.link"),
    "soft": (lambda file, secret: named(file, h5py.SoftLink("/coords")), "h5.link"),
    "external": (lambda file, secret: named(file, h5py.ExternalLink(secret.with_suffix(".h5"), "features")), "h5.link"),
    "external_pipe": (lambda file, secret: named(file, h5py.ExternalLink(secret.parent / "pipe", "x")), "h5.link"),
    "external_storage": (external_storage, "h5.link"),
    "virtual": (virtual, "h5.link"),
    "huge": (lambda file, secret: file.create_dataset("features", (10**12, 512), "f4"), "h5.unwritten"),
    "huge_chunked": (unwritten_chunks, "h5.unwritten"),
    "some_chunks": (some_chunks, "h5.unwritten"),
    "texts": (lambda file, secret: named(file, ["a", "b"]), "h5.kind"),
    "empty": (lambda file, secret: named(file, h5py.Empty("f4")), "h5.kind"),
    "compound": (lambda file, secret: named(file, np.zeros(3, [("x", "f4"), ("y", "i4")])), "h5.kind"),
    "ragged": (
        lambda file, secret: file.create_dataset("features", (3,), h5py.vlen_dtype(np.float32)), "h5.kind",
    ),
    "references": (lambda file, secret: file.create_dataset("features", (3,), h5py.ref_dtype), "h5.kind"),
    "group": (lambda file, secret: file.create_group("features"), "h5.no_data_set"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_data_set_is_refused(tmp_path: Path, case: str) -> None:
    make, code = FOREIGN[case]
    secret = tmp_path / "secret"
    secret.write_bytes(b"abcd")
    write_h5(secret.with_suffix(".h5"), {"features": VALUES}, {})
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for ever
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["coords"] = VALUES
        make(file, secret)
    with expect_faults(code) as faults:
        read_h5(path, ("features", "coords"))
    check_fault(faults[0], code, path, "features")


def test_links_beside_what_is_read_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["features"] = VALUES
        file["far"], file["near"] = h5py.ExternalLink("/nowhere.h5", "x"), h5py.SoftLink("/features")
    np.testing.assert_array_equal(read_h5(path, ("features",))["features"], VALUES)
    assert read_shapes(path) == {"features": (3, 2)}


@pytest.mark.parametrize("shape", [(4000, 5000), (200, 10)])
def test_what_does_not_fit_into_the_free_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """By the values, or by the chunk that holds them: a small file of either may be large when it is unpacked."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        chunks = (4000, 5000)
        file.create_dataset("features", data=np.zeros(shape, np.float32), maxshape=(None, None), chunks=chunks,
                            compression="gzip")  # fmt: skip
    assert path.stat().st_size < 10**6
    assert read_h5(path, ("features",))["features"].shape == shape
    monkeypatch.setattr(utils.h5, "free_memory", lambda: 7 * 10**7)
    with expect_faults("h5.too_large"):
        read_h5(path, ("features",))


# ---- attributes ------------------------------------------------------------------------------------------------------


def test_attributes_are_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["features"] = VALUES
        file["features"].attrs.update({"downsample": np.array([4.0, 4.0]), "names": ["a", "b"], "table": np.eye(2)})
        file.attrs.update({"seed": np.array([3]), "none": h5py.Empty("f4"), "bytes": np.bytes_(b"ab"), "flag": True})
        file.attrs["reference"] = file["features"].ref
        file.attrs["pair"] = np.zeros(1, [("x", "f4")])
    found = read_attributes(path)
    assert found == {
        "seed": [3], "none": [], "bytes": "ab", "flag": True,
        "downsample": [4.0, 4.0], "names": ["a", "b"], "table": [[1, 0], [0, 1]],
    }  # fmt: skip
    assert not any(isinstance(value, np.ndarray) for value in found.values())
    write_h5(path, {"features": VALUES}, found)
    assert read_attributes(path) == found


def test_an_attribute_as_large_as_a_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["features"] = VALUES
        file.attrs["notes"] = np.zeros(10**6)
    with expect_faults("h5.attribute") as faults:
        read_attributes(path)
    assert faults[0].where == str(path)


# ---- file systems of clusters ----------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "x.h5"
    write_h5(path, {"features": VALUES}, {"seed": 1})
    return path


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_is_read(whole: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    np.testing.assert_array_equal(read_h5(whole, ("features",))["features"], VALUES)
    assert read_attributes(whole) == {"seed": 1}


@pytest.mark.parametrize("setting", [None, "TRUE", "BEST_EFFORT"])
def test_a_file_that_is_being_written_is_told_as_that(
    whole: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    if setting:
        monkeypatch.setenv("HDF5_USE_FILE_LOCKING", setting)
    with h5py.File(whole, "r+"):
        for read in (lambda: read_h5(whole, ("features",)), lambda: read_shapes(whole), lambda: read_attributes(whole)):
            with expect_faults("h5.being_written") as faults:
                read()
            assert "wait" in faults[0].mend
    assert read_shapes(whole) == {"features": (3, 2)}


def test_a_reader_does_not_keep_a_writer_out(whole: Path) -> None:
    with utils.h5._opened(whole), h5py.File(whole, "r+") as file:
        file.attrs["seed"] = 2
    assert read_attributes(whole) == {"seed": 2}


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT])
def test_what_the_system_refuses_is_not_called_cut_off(
    whole: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with expect_faults("file.unreadable") as faults:
        read_h5(whole, ("features",))
    check_fault(faults[0], "file.unreadable", whole, os.strerror(number))


def test_errors_of_the_disk_within_hdf5_are_told_as_such(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Can't read data (file read failed: errno = 5, error message = 'Input/output error')")

    monkeypatch.setattr(h5py, "File", refuse)
    with expect_faults("file.unreadable"):
        read_h5(whole, ("features",))
