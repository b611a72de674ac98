"""The report on class separation, its numbers read back from the printed table."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from models.tiny_clip import save_tiny_clip
from tests.conftest import PROJECT, RunMain

BUILTIN = PROJECT / "text_prompt" / "HiVE_MIL" / "builtin"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=32)
    return folder


@pytest.fixture
def report(run_main: RunMain, clip: Path) -> RunMain:
    def run(file: Path, *more: str) -> tuple[int, str, str]:
        arguments = [str(file), "--feature_extractor", "tiny", "--vlm_path", str(clip), *more]
        return run_main(arguments, "report_class_separation")

    return run


def table(output: str) -> dict[str, list[str]]:
    lines = output.split("\n\n")[1].splitlines()[2:]
    return {cells[0]: cells[1:] for cells in (line.split() for line in lines)}


def cosines(file: Path, clip: Path) -> np.ndarray:
    """Of all texts of a file, class by class, in the order of the file: transformers and scikit-learn."""
    from open_clip import tokenize
    from transformers import CLIPModel

    by_class = json.loads(file.read_text())
    texts = [f"{term} : {text}" for name in sorted(by_class) for term, text in by_class[name].items()]
    with torch.no_grad():
        features = CLIPModel.from_pretrained(clip).get_text_features(tokenize(texts))
    return cosine_similarity(getattr(features, "pooler_output", features))


@pytest.mark.parametrize("task", ["tcga_rcc", "camelyon16"])
def test_the_numbers_of_a_file(report: RunMain, clip: Path, task: str) -> None:
    file = BUILTIN / f"{task}.json"
    code, output, errors = report(file, "--threshold", "0.8")
    assert (code, errors) == (0, "")
    names = sorted(json.loads(file.read_text()))
    rows = table(output)
    assert list(rows) == [*names, "all"]
    expected = cosines(file, clip)
    klass, place = np.divmod(np.arange(16 * len(names)), 16)
    parent = np.where(place < 4, place, (place - 4) // 3)
    is_low = place < 4
    same = klass[:, None] == klass[None, :]
    other = ~np.eye(len(klass), dtype=bool)
    own = same & (parent[:, None] == parent[None, :])
    low, high, cross = np.outer(is_low, is_low), np.outer(~is_low, ~is_low), np.outer(is_low, ~is_low)
    kinds = [low & same & other, low & ~same, high & same & other, high & ~same, cross & own, cross & same & ~own]
    kinds.append(cross & ~same)
    for k, name in enumerate([*names, "all"]):
        rows_of = klass[:, None] == k if name != "all" else np.ones_like(same)
        means = [expected[kind & rows_of].mean() for kind in kinds]
        np.testing.assert_allclose([float(cell) for cell in rows[name]], means, rtol=0, atol=6e-5)
    upper = np.triu(~same) & (expected >= 0.8)
    assert f"with the same term: {upper.sum()}\n" in output
    assert output.count("  |  ") == min(upper.sum(), 20)
    assert f"{file}: mean cosines" in output
    assert "within should exceed between" in output


def test_pairs_are_named_most_alike_first(report: RunMain, tmp_path: Path) -> None:
    by_class = {
        "B": {"Necrosis": "dead tissue", "b1": "wide seas of dark blue water", "b2": "roofs of red tiles", "b3": "x y"},
        "A": {"b4": "roofs of red tiles", "necrosis": "a thing of the past", "Roofs": "small dogs", "a3": "grey hair"},
    }
    file = tmp_path / "task.json"
    file.write_text(json.dumps(by_class))
    numbers = ("--num-low-mag-texts", "1", "--num_high_mag_subtexts", "3")
    code, output, _ = report(file, *numbers, "--threshold", "2")
    assert code == 0
    assert output.endswith("with a cosine of 2 or more, or with the same term: 1\n" + output.splitlines()[-1] + "\n")
    assert output.splitlines()[-1].split(maxsplit=1)[1] == "A: necrosis  |  B: Necrosis"
    assert table(output)["A"][0] == table(output)["all"][0] == "-", "one low text has no other one"
    code, output, _ = report(file, *numbers, "--threshold", "-1")
    pairs = [line.split(maxsplit=1) for line in output.splitlines() if "  |  " in line]
    assert len(pairs) == 16
    assert [float(cosine) for cosine, _ in pairs] == sorted((float(cosine) for cosine, _ in pairs), reverse=True)
    assert {name for _, name in pairs} >= {"A: b4  |  B: b2", "A: a3  |  B: Necrosis", "A: Roofs  |  B: b3"}


def test_only_the_first_pairs_are_shown(report: RunMain) -> None:
    code, output, _ = report(BUILTIN / "tcga_brca.json", "--threshold", "-1")
    assert code == 0
    assert "same term: 256\n" in output
    assert output.count("  |  ") == 20
    assert output.endswith("  ... and 236 more\n")


def test_texts_that_are_cut_are_told_of(report: RunMain, tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps({name: {f"{name}1": "word " * 80, f"{name}2": "b"} for name in "AB"}))
    numbers = ("--num-low-mag-texts", "1", "--num-high-mag-subtexts", "1")
    assert "warning: 2 texts are longer than the text tower reads" in report(file, *numbers)[1]
    assert "warning" not in report(BUILTIN / "camelyon16.json")[1]


def test_all_faults_are_listed(run_main: RunMain, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "no.json"), "--feature-extractor", "none"]
    code, output, errors = run_main(arguments, "report_class_separation")
    assert (code, output) == (2, "")
    assert "no.json: the descriptions are not there" in errors
    assert "--feature_extractor none" in errors


# ---- by morphology ---------------------------------------------------------------------------------------------------


def morphologies(output: str) -> dict[str, list[float]]:
    lines = output.split("by morphology")[1].split("\n\n")[1].splitlines()[2:]
    return {cells[0]: [float(cell.replace("-", "nan") if cell == "-" else cell) for cell in cells[1:]]
            for cells in (line.split() for line in lines)}  # fmt: skip


@pytest.mark.parametrize(("task", "num_low", "num_subtexts"), [("tcga_rcc", 4, 3), ("camelyon16", 8, 1)])
def test_morphologies_are_a_low_text_with_its_own(
    report: RunMain, clip: Path, task: str, num_low: int, num_subtexts: int
) -> None:
    """Against loops over every pair of texts."""
    file = BUILTIN / f"{task}.json"
    numbers = ("--num_low_mag_texts", str(num_low), "--num_high_mag_subtexts", str(num_subtexts))
    code, output, errors = report(file, *numbers)
    assert (code, errors) == (0, "")
    names = sorted(json.loads(file.read_text()))
    expected = cosines(file, clip)
    texts = []
    for name in names:
        texts += [(name, place, "5x") for place in range(num_low)]
        texts += [(name, place, "20x") for place in range(num_low) for _ in range(num_subtexts)]
    found = morphologies(output)
    assert list(found) == [*names, "all"]
    for row in [*names, "all"]:
        means = []
        for scales in (("5x",), ("20x",), ("5x", "20x")):
            pairs: dict[str, list[float]] = {"intra": [], "distinct": [], "inter": []}
            for i, first in enumerate(texts):
                for j, second in enumerate(texts):
                    if first[2] in scales and second[2] in scales and row in (first[0], "all"):
                        same = first[:2] == second[:2]
                        pairs["intra" if same else "inter"].append(expected[i, j])
                        if same and i != j:
                            pairs["distinct"].append(expected[i, j])
            means += [np.mean(values) if values else np.nan for values in pairs.values()]
        np.testing.assert_allclose(found[row], means, rtol=0, atol=6e-5)
    assert all(row[0] == 1 and np.isnan(row[1]) for row in found.values()), "a category has one text at 5x"


def test_the_joint_mean_of_a_category_lies_where_its_parts_say() -> None:
    """Two categories in two dimensions, by hand: a low text along x with sub-features along x and y, and the other
    category along y alone."""
    from models.morphology_separation import morphology_separation

    x, y = [1.0, 0.0], [0.0, 1.0]
    means = morphology_separation(torch.tensor([[x], [y]]), torch.tensor([[[x, y]], [[y, y]]]))
    first = [1, np.nan, 0, 2 / 4, 0, 2 / 4, 5 / 9, 2 / 6, 3 / 9]
    second = [1, np.nan, 0, 1, 1, 2 / 4, 1, 1, 3 / 9]
    both = [1, np.nan, 0, 6 / 8, 2 / 4, 2 / 4, 14 / 18, 8 / 12, 6 / 18]
    np.testing.assert_allclose(means.numpy(), [first, second, both], rtol=0, atol=1e-6)
