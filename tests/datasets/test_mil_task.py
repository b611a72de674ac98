"""Tasks from tables of multiple instance learning: what is read, the folds, standardisation, and what is refused."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from datasets.mil_task import DATASETS, MilData, packaged_csv, read_mil_csv, standardise, stratified_folds
from tests.support.faults import expect_faults
from utils.errors import UserError


def made(labels: list[str]) -> MilData:
    bags = {f"b{number}": label for number, label in enumerate(labels)}
    return MilData({bag: np.zeros((1, 1), np.float32) for bag in bags}, bags)


def test_rows_of_a_bag_need_not_lie_together(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("1,x,1,2\n0,y, 3,4.5\n1,x,5,-6e0\n0,07,8,9\n")
    data = read_mil_csv(file)
    assert {bag: features.tolist() for bag, features in data.features.items()} == {
        "x": [[1, 2], [5, -6]],
        "y": [[3, 4.5]],
        "07": [[8, 9]],
    }
    assert data.labels == {"x": "1", "y": "0", "07": "0"}
    assert all(features.dtype == np.float32 for features in data.features.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("label,bag,f\n1,a,2\n0,b,3\n", ["features that are no finite numbers in 1 rows (1); is the first a header?"]),
        ("1,a,2\n0,b,nan\n0,b,1e39\n0,b,-inf\n0,b,\n", ["numbers in 4 rows (2, 3, 4 and 1 more)"]),
        ("1,a,2\n0,a,3\n", ["more than one label in 1 bags ('a')"]),
        ("1,a,2\n1,b,3\n", ["the label '1' alone"]),
        ("1,a\n0,b\n", ["2 columns found"]),
        ("1,,2\n,b,3\n0,b,3\n", ["no label or no bag in 2 rows (1, 2)", "more than one label in 1 bags ('b')"]),
        ("1,a/b,2\n0,c,3\n", ["names that files cannot have, of 1 bags ('a/b')"]),
        ("1,a,2\n0,a,x\n", ["no finite numbers in 1 rows (2)", "more than one label"]),
        ("", ["not a readable CSV"]),
        ("1,a,2\n1,a,2,3,4\n", ["1 rows have another number, first line 2; 3 columns found"]),
    ],
)
def test_a_bad_table_is_refused_with_all_its_faults(tmp_path: Path, text: str, found: list[str]) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        read_mil_csv(file)
    assert len(error.value.faults) == len(found)
    for fault, part in zip(map(str, error.value.faults), found, strict=True):
        assert str(file) in fault and part in fault


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with expect_faults("instances.missing"):
        read_mil_csv(tmp_path / "none.csv")


def test_packaged_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found where the package lies, without loading it; otherwise the way to get it is named."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with expect_faults("instances.missing"):
        packaged_csv("musk1")
    folder = tmp_path / "mil" / "data" / "datasets" / "csv"
    folder.mkdir(parents=True)
    (tmp_path / "mil" / "__init__.py").write_text("raise RuntimeError('loaded')")
    with expect_faults("instances.missing"):
        packaged_csv("ucsb")
    for name in DATASETS.values():
        (folder / name).touch()
    assert packaged_csv("ucsb") == folder / "ucsb_breast_cancer.csv"


@given(st.integers(0, 10**6), st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
@settings(max_examples=30, deadline=None)
def test_standardised_as_scikit_learn_does(seed: int, centre: float, spread: float) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.normal(centre, spread, (20, 3)).astype(np.float32)
    rows[:, 1] = np.float32(0.1)
    data = MilData({"a": rows[:7], "b": rows[7:8], "c": rows[8:]}, {"a": "0", "b": "1", "c": "1"})
    found = standardise(data)
    assert found.labels == data.labels and [len(found.features[bag]) for bag in "abc"] == [7, 1, 12]
    joined = np.concatenate([found.features[bag] for bag in "abc"])
    assert joined.dtype == np.float32
    assert (joined[:, 1] == 0).all()
    varied = rows[:, [0, 2]].astype(np.float64)
    np.testing.assert_allclose(joined[:, [0, 2]], StandardScaler().fit_transform(varied), atol=1e-5, rtol=1e-5)


@given(st.lists(st.integers(5, 30), min_size=2, max_size=4), st.integers(2, 10), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
@example([6, 6], 6, 0)
@example([5, 20], 5, 0)
@example([20, 9], 10, 0)
def test_folds(counts: list[int], k: int, seed: int) -> None:
    """Each bag is tested once; parts do not meet and have all classes in their shares; or too few bags are named."""
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    data = made([f"c{label}" for label in classes])
    if any(count < k or count - math.ceil(count / k) < 5 for count in counts):
        with pytest.raises(UserError, match="expected at least"):
            stratified_folds(data, k, seed)
        return
    folds = stratified_folds(data, k, seed)
    assert [fold.fold for fold in folds] == list(range(k))
    assert sorted(slide.slide_id for fold in folds for slide in fold.test) == sorted(data.labels)
    names = sorted(set(data.labels.values()))
    for fold in folds:
        parts = dict(fold.parts())
        assert sorted(slide.slide_id for part in parts.values() for slide in part) == sorted(data.labels)
        for part in parts.values():
            assert all(names[slide.label] == data.labels[slide.slide_id] for slide in part)
        for label, name in enumerate(names):
            size = {part: sum(slide.label == label for slide in slides) for part, slides in parts.items()}
            count = list(data.labels.values()).count(name)
            assert min(size.values()) >= 1
            assert abs(size["test"] - count / k) < 1
            assert abs(size["val"] - (count - size["test"]) / 5) < 1


def test_folds_come_from_the_seed() -> None:
    data = made(["a", "b"] * 20)
    assert stratified_folds(data, 4, 1) == stratified_folds(data, 4, 1)
    assert stratified_folds(data, 4, 1) != stratified_folds(data, 4, 2)
