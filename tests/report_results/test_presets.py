"""Reports on runs of presets: in the paper's order and columns, with the paper's figure and, beside, its numbers."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import main
from experiments.launch import runs_of_grid
from run_experiments import parse
from tests.conftest import RunMain, SimulatedTask
from tests.support.made_results import folds_of, rows_of
from tests.support.run_folders import write_run

Listed = tuple[str, str, Path]
"""Preset, label and folder of a run."""


def list_runs(results: Path, listed: Sequence[Listed]) -> None:
    entries = [
        {"label": label, "preset": preset, "path": path.relative_to(results).as_posix()}
        for preset, label, path in listed
    ]
    (results / "experiment.json").write_text(json.dumps({"runs": entries}))


@pytest.fixture
def table2(table: Path, tmp_path: Path) -> Path:
    """Runs that stand for those of Table 2 on NSCLC with PLIP; listed from the last to the first, and one more."""
    results, listed = tmp_path / "paper", []
    place = {"task": "tcga_nsclc", "feature_extractor": "plip", "few_shot_num": 16}
    for label, htcl, skill in (
        ("Class-Wise (HiVE-MIL)", "class_wise", 0.9),
        ("Instance-Wise", "instance_wise", 0.5),
        ("Mine", "none", 0.3),
        ("No-Contrastive", "none", 0.2),
    ):
        path = write_run(results / label[:5], table, folds_of(table, number=2), skill, htcl=htcl, **place)
        listed.append(("table2", label, path))
    list_runs(results, listed)
    return results


def test_the_papers_columns_order_and_numbers(report: RunMain, table2: Path, tmp_path: Path) -> None:
    assert report(table2, "--published")[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    head, *rows = rows_of(text, "## table2, plip")
    assert head == ["model", "tcga_nsclc, 16 shots, ACC", "tcga_nsclc, 16 shots, F1"]
    order = ["No-Contrastive", "Instance-Wise", "Class-Wise (HiVE-MIL)", "Mine", "difference from second best"]
    assert [row[0] for row in rows] == order
    assert "Table 2 of the paper: the text contrastive loss, HTCL." in text and "claimed as reproduced" in text
    beside = {row[3]: row[4:] for row in rows_of(text, "### Beside the paper's numbers")[1:]}
    assert list(beside) == ["No-Contrastive", "Share-Parent", "Instance-Wise", "Class-Wise (HiVE-MIL)", "Mine"]
    assert beside["Share-Parent"] == ["-", "78.46 ± 3.71", "-", "-", "78.37 ± 3.71", "-"]
    assert beside["Mine"][1:3] == ["-", "-"] and "no rows of the paper: Mine" in text
    ours = pd.read_csv(tmp_path / "report" / "tables" / "table2_plip.csv").set_index("label")
    for label, accuracy, f1 in (("No-Contrastive", 78.14, 78.11), ("Class-Wise (HiVE-MIL)", 80.13, 80.08)):
        for cells, paper, key in ((beside[label][:3], accuracy, "acc"), (beside[label][3:], f1, "f1")):
            mean = 100 * ours.loc[label, f"test_{key}_mean"]
            assert cells[0].startswith(f"{mean:.2f} ± ") and cells[1].startswith(f"{paper:.2f} ± ")
            assert cells[2] == f"{mean - paper:+.2f}"
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "table2_plip_published.csv").set_index("label")
    assert numbers.loc["Mine", "source"] is np.nan or pd.isna(numbers.loc["Mine", "source"])
    assert numbers.loc["Share-Parent", "source"] == "arXiv 2505.17982, Table 2"


def test_without_the_option_the_papers_numbers_stay_away(report: RunMain, table2: Path, tmp_path: Path) -> None:
    assert report(table2)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "78.46" not in text and "Beside" not in text


def test_runs_of_no_preset_have_no_numbers_beside(report: RunMain, results: Path, tmp_path: Path) -> None:
    assert report(results, "--published")[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    (part,) = text.split("### Beside the paper's numbers")[1:]
    assert part.split("###")[0].strip() == "The paper prints no numbers of these rows."


def test_the_row_of_the_model_is_the_reference_whatever_its_letter(
    report: RunMain, table: Path, tmp_path: Path
) -> None:
    results = tmp_path / "lettered"
    paths = [write_run(results / str(skill), table, folds_of(table), skill) for skill in (0.9, 0.2)]
    list_runs(results, [("table3", "(a) none", paths[0]), ("table3", "(d) HiVE-MIL", paths[1])])
    assert report(results)[0] == 0
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "table3_plip_comparisons.csv")
    assert numbers[["first", "second"]].values.tolist() == [["(d) HiVE-MIL", "(a) none"]]


def test_presets_from_training_to_the_report(report: RunMain, simulated: SimulatedTask, tmp_path: Path) -> None:
    """Tables 14 and Figure 4 on a simulated task: each run is trained, the grid finds it finished and lists it."""
    import run_experiments

    results = tmp_path / "grid"
    given = simulated.options(results, "--testing", "--early_stopping")
    argv = ["--local", "--preset", "figure4", "table14", *given]
    runs = runs_of_grid(*parse(argv))
    for number, run in enumerate(runs):
        if run.config not in [other.config for other in runs[:number]]:
            main.main(run.argv())
    run_experiments.main(argv)
    assert report(results, "--published")[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.index("## table14") < text.index("## figure4")
    head, *rows = rows_of(text, "## table14, tinyclip")
    assert [row[0] for row in rows[:-1]] == ["(a) low", "(b) high", "(c) both (HiVE-MIL)"]
    assert [name.rpartition(", ")[2] for name in head[1:]] == ["ACC", "AUC", "F1"]
    head, *rows = rows_of(text, "## figure4, tinyclip")
    assert [row[0] for row in rows[:-1]] == ["No.", "Uni. (up)", "Uni. (down)", "Bi. (HiVE-MIL)"]
    assert [name.rpartition(", ")[2] for name in head[1:]] == ["Hit Ratio@2", "F1"]
    assert (tmp_path / "report" / "figures" / "figure4_tinyclip.png").read_bytes().startswith(b"\x89PNG")
    beside = rows_of(text.split("## table14")[1], "### Beside the paper's numbers")[1:]
    assert beside[3][:7] == ["conch", "tcga_nsclc", "16", "(a) low", "-", "84.99 ± 2.10", "-"]
