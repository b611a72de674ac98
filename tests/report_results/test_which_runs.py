"""The report on made-up runs: which runs it takes, compares and ranks, and what it tells of each."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tests.conftest import RunMain
from tests.support.made_results import folds_of, rows_of
from tests.support.run_contents import files_below
from tests.support.run_folders import write_run


def test_the_order_of_arguments_does_not_matter(report: RunMain, results: Path, tmp_path: Path) -> None:
    folders = [results / name for name in ("best", "middle", "worst")]
    assert report(*folders) == (0, f"written: {tmp_path / 'report' / 'report.md'}\n", "")
    assert report(*reversed(folders), folders[0], output="other")[0] == 0
    assert files_below(tmp_path / "report") == files_below(tmp_path / "other")
    assert report(*folders, "--seed", "9", output="seed")[0] == 0
    different = {
        name for name, data in files_below(tmp_path / "seed").items() if files_below(tmp_path / "other")[name] != data
    }
    assert different == {"report.md", "tables/results_plip_comparisons.csv", "tables/results_plip_comparisons.tex"}


def test_unfinished_folds_are_named_and_not_ranked(report: RunMain, results: Path, tmp_path: Path) -> None:
    best = next((results / "best").rglob("*_s1"))
    (best / "fold_1.json").unlink()
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    rows = {row[0]: row[1:] for row in rows_of(text, "## Results, plip")}
    assert all(cell.endswith("(5 of 6 folds)") and "*" not in cell for cell in rows["HiVE_MIL"])
    assert all(cell.startswith("**") for cell in rows["HiVE_MIL (htcl none)"]), "the best of those that are complete"
    assert all(cell.startswith("<ins>") for cell in rows["ABMIL"])
    assert "best/nsclc/plip/4/nsclc_plip_HiVE_MIL_4_s1: fold 1 of 3 not finished" in text
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "results_plip_comparisons.csv").set_index("second")
    assert numbers["folds"].to_dict() == {"ABMIL": 2, "HiVE_MIL (htcl none)": 2}


def test_a_run_without_a_finished_fold_is_a_row(report: RunMain, results: Path, tmp_path: Path) -> None:
    for file in (results / "worst").rglob("fold_?.json"):
        file.unlink()
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    rows = {row[0]: row[1:] for row in rows_of(text, "## Results, plip")}
    assert rows["ABMIL"] == ["- (0 of 3 folds)"] * 3
    assert "fold 0, 1, 2 of 3 not finished" in text
    assert "ABMIL: nsclc, plip, 4 shots: not compared with HiVE_MIL: no finished fold with the same seed" in text
    assert "no finished fold |" in text


def test_labels_and_tables_of_an_experiment(report: RunMain, results: Path, tmp_path: Path) -> None:
    def listed(setting: str, label: str, preset: str | None, seed: int = 1) -> dict[str, Any]:
        path = next((results / setting).rglob(f"*_s{seed}")).relative_to(results)
        return {"label": label, "preset": preset, "path": path.as_posix(), "shots": 4}

    entries = [
        listed("middle", "w/o HTCL & 100 %", "table2"),
        listed("best", "HiVE-MIL", "table2"),
        listed("best", "HiVE-MIL", "table2", seed=2),
        listed("best", "full", "table12"),
        listed("best", "full", "table12"),  # twice is once
        listed("middle", "the same", "table3"),
        {**listed("best", "Later", "table2"), "path": "later/nsclc"},
    ]
    (results / "experiment.json").write_text(json.dumps({"runs": entries}))
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert [row[0] for row in rows_of(text, "## table2, plip")[1:3]] == [r"w/o HTCL \& 100 %", "HiVE-MIL"], "as listed"
    assert [row[0] for row in rows_of(text, "## table12, plip")[1:]] == ["full"]
    assert [row[0] for row in rows_of(text, "## Results, plip")[1:]] == ["ABMIL"], "not listed"
    assert "### HiVE-MIL against the others" in text
    calibration = pd.read_csv(tmp_path / "report" / "tables" / "calibration.csv")
    assert sorted(calibration.iloc[:, 0]) == ["ABMIL", "HiVE-MIL", "full", "w/o HTCL & 100 %"], "not table3's once more"
    assert "not begun, so in no table: Later" in text
    latex = (tmp_path / "report" / "tables" / "table2_plip.tex").read_text()
    assert r"w/o HTCL \& 100 \% &" in latex


def test_other_test_slides_are_not_compared(report: RunMain, results: Path, table: Path, tmp_path: Path) -> None:
    write_run(results / "elsewhere", table, folds_of(table, seed=3), 0.9, model_type="DSMIL")
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    rows = rows_of(text, "## Results, plip")
    assert not any("**" in cell or "<ins>" in cell for row in rows for cell in row)
    assert rows[-1] == ["difference from second best", "-", "-", "-"]
    assert "nsclc, 4 shots: not ranked, since not all were tested on the same slides" in text
    assert "DSMIL: nsclc, plip, 4 shots: not compared with HiVE_MIL: other test slides or labels in fold 0" in text
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "results_plip_comparisons.csv")
    assert "DSMIL" not in set(numbers["second"])


def test_other_labels_are_not_compared(report: RunMain, results: Path, table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table)
    rows["label"] = rows["label"].replace({"LUAD": "LUSC", "LUSC": "LUAD"})
    rows.to_csv(tmp_path / "other.csv", index=False)
    write_run(results / "other", tmp_path / "other.csv", folds_of(table), 0.9, model_type="DSMIL")
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "DSMIL: nsclc, plip, 4 shots: not compared with HiVE_MIL: other test slides or labels" in text


def test_columns_are_tasks_and_shots(report: RunMain, results: Path, table: Path, tmp_path: Path) -> None:
    write_run(results / "more", table, folds_of(table), 0.7, few_shot_num=16)
    write_run(results / "more", table, folds_of(table), 0.7, few_shot_num=16, feature_extractor="conch")
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    head, *rows = rows_of(text, "## Results, plip")
    assert head[1:] == [f"nsclc, {shots} shots, {name}" for shots in (4, 16) for name in ("ACC", "AUC", "F1")]
    assert rows[0][4:] == ["-"] * 3
    assert rows[1][4][0].isdigit(), "nothing to rank it against"
    assert rows[-1][4:] == ["-"] * 3
    assert [row[0] for row in rows_of(text, "## Results, conch")[1:]] == ["HiVE_MIL"]


def test_each_task_is_ranked_by_itself(report: RunMain, results: Path, table: Path, tmp_path: Path) -> None:
    for model, skill in (("HiVE_MIL", 0.9), ("ABMIL", 0.2)):
        write_run(results / "task", table, folds_of(table, seed=3), skill, task="other", model_type=model)
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    rows = {row[0]: row[1:] for row in rows_of(text, "## Results, plip")}
    assert all(cell.startswith("**") for cell in rows["HiVE_MIL"]) and len(rows["HiVE_MIL"]) == 6
    assert "not ranked" not in text


def test_options_of_a_run_are_told(report: RunMain, table: Path, tmp_path: Path) -> None:
    """Those of all once, those of one beside it, also where no other run of its model has others."""
    results = tmp_path / "own"
    write_run(results, table, folds_of(table), 0.7, lr=0.5)
    write_run(results, table, folds_of(table), 0.6, lr=0.5, model_type="DSMIL", two_scale=True)
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    head, *rows = rows_of(text, "## Runs")
    place = head.index("options")
    assert {row[1]: row[place] for row in rows} == {"HiVE_MIL": "LLM builtin", "DSMIL": "two_scale True"}
    assert "Options of all runs other than the defaults: " in text and "lr 0.5" in text


def test_too_few_resamples_are_told_of(report: RunMain, results: Path, tmp_path: Path) -> None:
    assert report(results, "--resamples", "60")[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "60 resamples are too few for 2 comparisons" in text
    assert report(results, "--resamples", "100")[0] == 0
    assert "too few for" not in (tmp_path / "report" / "report.md").read_text()


def test_patients_without_a_table(report: RunMain, results: Path, table: Path, tmp_path: Path) -> None:
    table.unlink()
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "nsclc.csv not found: a slide counts as a patient where its name is no TCGA barcode" in text
    assert "slides only (patients not known: no table of slides)" in text
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "results_plip_comparisons.csv")
    assert (numbers["test_patients"] == numbers["test_slides"]).all()


def test_a_changed_table_is_told_of(report: RunMain, results: Path, table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text() + "\n")
    assert report(results)[0] == 0
    text = (tmp_path / "report" / "report.md").read_text()
    assert "nsclc.csv has changed since the run" in text
    assert text.count("| patient-grouped |") == 4
