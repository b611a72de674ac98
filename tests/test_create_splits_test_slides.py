"""create_splits.py --test_slides: a test set that the data set gives, and Camelyon16's table from start to end."""

import json
from pathlib import Path

import pytest

from datasets.splits import read_split_ids
from tests.conftest import FaultsOf, RunMain
from tests.support.split_tables import options, table_fixture  # noqa: F401

SCRIPT = "create_splits"


@pytest.fixture(scope="module")
def camelyon16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table that create_dataset_csv.py makes of a list of 49 tumour and 80 normal test slides."""
    import create_dataset_csv

    folder = tmp_path_factory.mktemp("camelyon16")
    names = [f"test_{n:03}" for n in range(1, 131) if n != 49]
    lines = [f"{name},{'Tumor' if place < 49 else 'Normal'}\n" for place, name in enumerate(names)]
    (folder / "reference.csv").write_text("".join(lines))
    table = folder / "camelyon16.csv"
    given = ["--task", "camelyon16", "--reference", str(folder / "reference.csv"), "--output", str(table)]
    create_dataset_csv.main(given)
    return table


def drawn(run_main: RunMain, table: Path, folder: Path, *more: str) -> list[dict[str, list[str]]]:
    code, _, errors = run_main(options(table, folder, "--few_shot_num", "16", *more), SCRIPT)
    assert (code, errors) == (0, "")
    return [read_split_ids(folder / "made_16" / f"splits_{fold}.csv") for fold in range(3)]


def test_the_given_test_set_is_that_of_every_fold(run_main: RunMain, camelyon16: Path, tmp_path: Path) -> None:
    folds = drawn(run_main, camelyon16, tmp_path, "--test_slides", "test_")
    for fold in folds:
        assert sorted(fold["test"]) == [f"test_{n:03}" for n in range(1, 131) if n != 49]
        assert len(fold["train"]) == 32
        assert sum(name.startswith("tumor") for name in fold["train"]) == 16
        assert len([name for name in fold["val"] if name.startswith("normal")]) in (68, 69), "3/7 of 159"
        assert len([name for name in fold["val"] if name.startswith("tumor")]) in (47, 48), "3/7 of 111"
        assert not set(fold["train"]) & set(fold["val"])
    assert len({tuple(sorted(fold["val"])) for fold in folds}) == 3
    manifest = json.loads((tmp_path / "made_16" / "manifest.json").read_text())
    assert manifest["options"]["test_slides"] == "test_"
    assert manifest["folds"][0]["slides"]["train_pool"] in (
        {"NORMAL": n, "TUMOR": t} for n in (90, 91) for t in (63, 64)
    )


def test_without_it_camelyon16_is_divided_as_the_others(run_main: RunMain, camelyon16: Path, tmp_path: Path) -> None:
    """4:3:3 of 399 slides: 120 test slides, of which the paper's accuracies are multiples over five folds."""
    folds = drawn(run_main, camelyon16, tmp_path)
    assert {len(fold["test"]) for fold in folds} <= {119, 120, 121}
    assert any(name.startswith("normal") for name in folds[0]["test"])
    assert "test_slides" not in json.loads((tmp_path / "made_16" / "manifest.json").read_text())["options"]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--test_slides", "TCGA-SA"), "split.torn_group"),
        (("--test_slides", "nothing"), "split.no_test_slide"),
        (("--test_slides", "TCGA-SA", "--group", "slide"), "split.no_test_slide"),
    ],
)
def test_what_is_no_test_set_is_refused(
    faults_of: FaultsOf, table: Path, tmp_path: Path, more: tuple[str, ...], code: str
) -> None:
    content = table.read_text()
    made = tmp_path / "made.csv"
    made.write_text(content)
    if code == "split.torn_group":  # one of a patient's slides alone
        ids = [line.split(",")[1] for line in content.splitlines()[1:]]
        patient = next(name[:12] for name in ids if sum(other.startswith(name[:12]) for other in ids) > 1)
        more = ("--test_slides", next(name for name in ids if name.startswith(patient)))
    assert code in [fault.code for fault in faults_of(options(made, tmp_path / "out", *more), SCRIPT)]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pattern", ["(", ""])
def test_what_is_no_expression_is_refused(run_main: RunMain, table: Path, tmp_path: Path, pattern: str) -> None:
    code, _, errors = run_main(options(table, tmp_path, "--test_slides", pattern), SCRIPT)
    assert code == 2
    assert "--test_slides" in errors.splitlines()[-1]
