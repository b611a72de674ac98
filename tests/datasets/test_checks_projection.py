"""The start of a run tells of CONCH features from before the projection."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from datasets import checks
from datasets.bag_cache import BagCache
from datasets.checks import check_features
from datasets.folders import FeatureFolders
from datasets.task import Slide
from tests.support.conch_features import COMMAND, conch_folders, unit
from tests.support.linked_slide import WIDTH
from utils.sealed import DIGESTS, write_sealed


def write_bag(folders: FeatureFolders, slide: Slide, low: float, high: float) -> None:
    """Two parents, one of them childless, rows of these lengths."""
    mask = np.array([[True, True, False], [False, False, False]])
    rows = unit(np.random.default_rng(0).normal(size=(2, 3, WIDTH))).astype(np.float32)
    for file, features, extra in (
        (folders.low_file(slide.slide_id), rows[:, 0] * low, {}),
        (folders.hierarchical_file(slide.slide_id), rows * high * mask[..., None], {"mask": mask}),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(file, "w") as opened:
            for name, array in {"features": features, **extra}.items():
                opened[name] = array
            opened["coords"] = np.zeros((*features.shape[:-1], 2), dtype=np.int64)


SLIDES = [Slide(f"s{number}", "p", 0) for number in range(3)]


@pytest.mark.parametrize(
    ("encoder", "lengths", "number"),
    [
        ("conch", [(1, 1), (1, 1), (1, 1)], 0),
        ("conch", [(22, 22), (1, 1), (22, 22)], 2),
        ("my_CONCH", [(1, 22), (22, 1), (1, 1.02)], 3),
        ("plip", [(22, 22), (1, 22), (1, 1)], 0),
    ],
)
def test_every_run_is_warned_once(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    encoder: str,
    lengths: list[tuple[float, float]],
    number: int,
) -> None:
    folders = conch_folders(tmp_path, encoder)
    for slide, (low, high) in zip(SLIDES, lengths, strict=True):
        write_bag(folders, slide, low, high)
    checked = tmp_path / "checked.json"
    for _ in range(2):
        digests = check_features(BagCache(folders, WIDTH, 0), SLIDES, checked).digests
        out = capsys.readouterr().out
        if number:
            assert out.startswith(f"warning: {number} of 3 slides have rows that are not of length 1. CONCH features")
            assert out.endswith(COMMAND.format(root=tmp_path, encoder=encoder) + "\n")
        assert out.count("\n") == bool(number)
        assert sorted(digests) == ["s0", "s1", "s2"]
        monkeypatch.setattr(checks, "read_bag", None)  # the second time, no file is read
    check_features(BagCache(folders, WIDTH, 0), SLIDES[1:2], checked)
    assert ("1 of 1 slides" in capsys.readouterr().out) is (number > 0 and lengths[1] != (1, 1))


def test_mended_files_are_not_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders, checked = conch_folders(tmp_path), tmp_path / "checked.json"
    write_bag(folders, SLIDES[0], 22, 22)
    check_features(BagCache(folders, WIDTH, 0), SLIDES[:1], checked)
    write_bag(folders, SLIDES[0], 1, 1)
    capsys.readouterr()
    check_features(BagCache(folders, WIDTH, 0), SLIDES[:1], checked)
    assert capsys.readouterr().out == ""


def test_a_record_that_does_not_tell_lengths_is_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders, checked = conch_folders(tmp_path), tmp_path / "checked.json"
    write_bag(folders, SLIDES[0], 22, 22)
    digests = check_features(BagCache(folders, WIDTH, 0), SLIDES[:1], checked)
    known = json.loads(checked.read_text())
    del known[DIGESTS]
    for entry in known.values():
        del entry["unit_rows"]
    write_sealed(checked, known)
    capsys.readouterr()
    assert check_features(BagCache(folders, WIDTH, 0), SLIDES[:1], checked) == digests
    assert "1 of 1 slides" in capsys.readouterr().out
