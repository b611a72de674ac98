"""Feature files are read as they were written, and faulty ones are named."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.faults import expect_faults
from tests.support.h5_files import attributes_of
from utils.h5 import read_h5, write_h5

FEATURES = np.arange(6, dtype=np.float32).reshape(3, 2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    write_h5(file, {"features": FEATURES, "coords": FEATURES.astype(np.int64)}, {"seed": 1})
    found = read_h5(file, ("features",), optional=("coords", "mask"))
    assert found.keys() == {"features", "coords"}
    np.testing.assert_array_equal(found["features"], FEATURES)
    assert found["features"].dtype == np.float32
    assert attributes_of(file) == {"seed": 1}


def test_faulty_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    with expect_faults("file.missing") as faults:
        read_h5(file, ("features",))
    assert faults[0].where == str(file)
    write_h5(file, {"features": FEATURES}, {})
    with expect_faults("h5.no_data_set") as faults:
        read_h5(file, ("features", "coords"))
    assert str(faults[0]) == f"{file}: no data set 'coords', but ['features']; expected ['features', 'coords']"
    file.write_bytes(file.read_bytes()[:100])
    with expect_faults("h5.unreadable"):
        read_h5(file, ("features",))


@pytest.mark.parametrize("kind", [np.float16, np.float32, bool])
def test_arrays_lie_where_those_of_pytorch_do(tmp_path: Path, kind: type) -> None:
    for number in range(1, 30):
        values = np.arange(number).astype(kind)
        write_h5(tmp_path / "file.h5", {"features": values}, {})
        found = read_h5(tmp_path / "file.h5", ("features",))["features"]
        assert found.ctypes.data % 64 == 0 and found.dtype == values.dtype and np.array_equal(found, values)
