"""create_splits.py --audit: the published numbers, what pandas counts, and what was changed later."""

from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import RunMain
from tests.support.split_tables import audited, options, table_fixture  # noqa: F401

PARTS = ("train", "val", "test")
PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
TRAIN_TEST = {"tcga_nsclc": [3, 2, 2, 1, 5], "tcga_rcc": [1, 2, 2, 2, 1], "tcga_brca": [1, 0, 0, 0, 0]}
VAL_TEST = {"tcga_nsclc": [18, 13, 12, 18, 15], "tcga_rcc": [8, 11, 10, 8, 4], "tcga_brca": [5, 1, 3, 3, 0]}

# ---- the audit -------------------------------------------------------------------------------------------------------


def test_the_audit_gives_the_published_numbers(run_main: RunMain, released: Path) -> None:
    code, output, _ = run_main(["--audit", str(released)], "create_splits")
    assert code == 1
    assert "normal tissue: CCRCC 0, CHRCC 12, PRCC 0" in output
    assert "normal tissue: LUAD 0, LUSC 0" in output
    assert output.count("fold 0: 16 shots; train and unused : val : test = 4.01 : 2.99 : 2.99") == 2
    reports = audited(output)
    assert list(reports) == [f"{task}_16" for task in ("tcga_brca", "tcga_nsclc", "tcga_rcc")]
    for task, expected in TRAIN_TEST.items():
        for pair, numbers in (("train/test", expected), ("val/test", VAL_TEST[task])):
            rows = [row for row in reports[f"{task}_16"]["shared"] if row[1] == pair]
            assert [int(row[2]) for row in rows] == numbers, (task, pair)
    for row in reports["tcga_brca_16"]["counts"]:
        if row[1] in ("val", "test"):
            assert (row[3], row[6]) == ("48", "48"), "val and test are balanced in the published BRCA splits"


@pytest.mark.parametrize("task", TRAIN_TEST)
def test_each_number_of_the_audit_is_what_pandas_counts(run_main: RunMain, released: Path, task: str) -> None:
    folder = released / "splits" / task / f"{task}_16"
    report = audited(run_main(["--audit", str(folder)], "create_splits")[1])[folder.name]
    labels = pd.read_csv(released / "dataset_csv" / f"{task}.csv").set_index("slide_id")["label"]
    rows, pairs = iter(report["counts"]), iter(report["shared"])
    for fold in range(5):
        columns = pd.read_csv(folder / f"splits_{fold}.csv", index_col=0)
        ids = {name: columns[name].dropna() for name in PARTS}
        ids["unused"] = pd.Series(sorted(set(labels.index) - set(pd.concat(list(ids.values())))))
        for name, members in ids.items():
            row = [cell for cell in next(rows) if not cell.startswith(("(", "%"))]
            counts = labels[members].value_counts().reindex(sorted(labels.unique()), fill_value=0).tolist()
            patients, sites = members.str[:12].nunique(), members.str[5:7].nunique()
            normal = members.str[13:15].isin(["10", "11", "12", "13", "14"]).sum()
            wanted = [fold, name, len(members), *counts, patients, sites, normal]
            assert [cell for cell in row if cell != "%)"] == [str(value) for value in wanted]
        for first, second in PAIRS:
            row = next(pairs)
            patients = sorted(set(ids[first].str[:12]) & set(ids[second].str[:12]))
            sites = sorted(set(ids[first].str[5:7]) & set(ids[second].str[5:7]))
            assert row[:3] == [str(fold), f"{first}/{second}", str(len(patients))]
            assert row.count("...") == (len(patients) > 5) + (len(sites) > 5)
            shown = [cell.strip(",") for cell in row[3:] if cell != "..."]
            assert shown == [*patients[:5], str(len(sites)), *sites[:5]]


def test_the_audit_finds_what_was_changed_later(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    assert run_main(options(table, tmp_path, "--few_shot_num", "4"), "create_splits")[0] == 0
    audit = ["--audit", str(tmp_path), "--dataset-csv", str(table)]
    code, output, _ = run_main(audit, "create_splits")
    assert code == 0
    assert "0 faults" in output
    file = tmp_path / "made_4" / "splits_1.csv"
    rows = file.read_text().splitlines()
    last = rows[1].split(",")[2]
    file.write_text("\n".join([*rows, f"99,unknown_slide,,{last}"]) + "\n")
    code, output, _ = run_main(audit, "create_splits")
    assert code == 1
    for fault in (
        f"fault: {file}: slide {last} stands in val and test",
        f"fault: {file}: 1 slides are not in the table of slides ('unknown_slide')",
        f"fault: {file}: patients shared between train/val 0, train/test 0, val/test 1; expected none",
        f"fault: {file}: not the file that manifest.json tells of",
        "4 faults",
    ):
        assert fault in output


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_splits_is_named(run_main: RunMain, tmp_path: Path, there: bool) -> None:
    folder = tmp_path if there else tmp_path / "nowhere"
    code, _, errors = run_main(["--audit", str(folder)], "create_splits")
    assert code == 2
    assert f"{folder}: {'found no splits_<fold>.csv' if there else 'no such folder'}" in errors


def test_a_missing_table_is_named_once(run_main: RunMain, table: Path, tmp_path: Path) -> None:
    assert run_main(options(table, tmp_path), "create_splits")[0] == 0
    code, _, errors = run_main(["--audit", str(tmp_path)], "create_splits")
    assert code == 2
    assert errors.count("made.csv: the table of slides is not there") == 1
