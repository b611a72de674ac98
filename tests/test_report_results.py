"""The report on made-up runs: its numbers recomputed from the predictions, its marks, its refusals, its files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar

from reports.statistics import patient_weights
from tests.conftest import RunMain
from tests.support.run_contents import files_below
from tests.support.run_folders import CLASSES, write_run, write_table

Folds = dict[int, dict[str, list[str]]]
METRICS = ("auc", "f1", "acc")


@pytest.fixture
def report(run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunMain:
    """The report without its figures, which take longer than all else."""
    monkeypatch.setattr("reports.report.add_figures", lambda *_: None)

    def run(*arguments: object, output: str = "report") -> tuple[int, str, str]:
        options = ["--output-dir", str(tmp_path / output), "--resamples", "200"]
        return run_main([*options, *map(str, arguments)], "report_results")

    return run


def folds_of(table: Path, number: int = 3, seed: int = 0) -> Folds:
    """Folds by patient: 12 patients train, 12 validate, 36 test."""
    rows = pd.read_csv(table)
    cases = rows["case_id"].unique()
    folds = {}
    for fold in range(number):
        order = np.random.default_rng([seed, fold]).permutation(cases)
        parts = {"train": order[:12], "val": order[12:24], "test": order[24:]}
        folds[fold] = {name: rows["slide_id"][rows["case_id"].isin(part)].tolist() for name, part in parts.items()}
    return folds


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nsclc.csv: 90 slides of 60 patients, of whom every second has two. results/: three settings, one of them with two
    seeds; the folds are the same."""
    root = tmp_path_factory.mktemp("made")
    patients = [patient for index in range(60) for patient in [index] * (1 + index % 2)]
    slides = {f"S-{number:03}": patient % 3 for number, patient in enumerate(patients)}
    write_table(root / "nsclc.csv", slides, dict(zip(slides, map("case {}".format, patients), strict=True)), CLASSES)
    folds = folds_of(root / "nsclc.csv")
    for setting, skill, options in (
        ("best", 1.0, {}),
        ("middle", 0.5, {"htcl": "none"}),
        ("worst", 0.2, {"model_type": "ABMIL"}),
    ):
        for seed in (1, 2) if setting == "best" else (1,):
            ratio = float("nan") if setting == "worst" else skill / 2
            write_run(
                root / "results" / setting, root / "nsclc.csv", folds, skill, seed=seed, hit_ratio=ratio, **options
            )
    return root


@pytest.fixture(scope="module")
def finished(made: Path) -> Path:
    """The report on these results, with all figures. Read only."""
    import report_results

    report_results.main([str(made / "results"), "--output-dir", str(made / "report"), "--resamples", "500"])
    return made / "report"


@pytest.fixture
def table(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "nsclc.csv", tmp_path))


@pytest.fixture
def results(made: Path, table: Path, tmp_path: Path) -> Path:
    """A copy to change, with the table beside it."""
    folder = Path(shutil.copytree(made / "results", tmp_path / "results"))
    for file in folder.rglob("config.json"):
        record = json.loads(file.read_text())
        record["options"]["dataset_csv"] = str(table)
        file.write_text(json.dumps(record))
    return folder


def predictions(results: Path, setting: str) -> dict[tuple[int, int], pd.DataFrame]:
    """Test predictions by seed and fold, read anew."""
    found = {}
    for file in (results / setting).rglob("predictions_*.csv"):
        table = pd.read_csv(file)
        found[int(file.parent.name.rpartition("_s")[2]), int(file.stem[-1])] = table[table["split"] == "test"]
    return dict(sorted(found.items()))


def metrics_of(table: pd.DataFrame) -> dict[str, float]:
    """scikit-learn's own multi-class functions."""
    scores = table[[f"prob_{name}" for name in CLASSES]]
    return {
        "auc": roc_auc_score(table["label"], scores, multi_class="ovr", labels=list(CLASSES)),
        "f1": f1_score(table["label"], table["prediction"], average="macro"),
        "acc": accuracy_score(table["label"], table["prediction"]),
    }


def rows_of(markdown: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    lines = markdown.split(f"{heading}\n", 1)[1].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return [rows[0], *rows[2:]]


# ---- results ---------------------------------------------------------------------------------------------------------


def test_the_table_of_results(finished: Path, made: Path) -> None:
    text = (finished / "report.md").read_text()
    head, *rows = rows_of(text, "## Results, plip")
    assert head == ["model", *(f"nsclc, 4 shots, {name}" for name in ("ACC", "AUC", "F1"))]
    assert [row[0] for row in rows] == ["ABMIL", "HiVE_MIL", "HiVE_MIL (htcl none)", "difference from second best"]
    means: dict[str, dict[str, float]] = {}
    for setting, row in (("worst", rows[0]), ("best", rows[1]), ("middle", rows[2])):
        found = [metrics_of(table) for table in predictions(made / "results", setting).values()]
        assert len(found) == (6 if setting == "best" else 3)
        for name, cell in zip(("acc", "auc", "f1"), row[1:], strict=True):
            values = 100 * np.array([one[name] for one in found])
            bare = cell.replace("**", "").replace("<ins>", "").replace("</ins>", "")
            assert bare == f"{values.mean():.2f} ± {values.std():.2f}"
            means.setdefault(name, {})[setting] = values.mean()
    for place, name in enumerate(("acc", "auc", "f1"), start=1):
        assert rows[1][place].startswith("**")
        assert rows[2][place].startswith("<ins>")
        assert rows[0][place][0].isdigit()
        gap = round(means[name]["best"], 2) - round(means[name]["middle"], 2)
        assert rows[3][place] == f"{gap:.2f}"
    numbers = pd.read_csv(finished / "tables" / "results_plip.csv").set_index("label")
    assert numbers.loc["HiVE_MIL", "test_auc_mean"] == pytest.approx(means["auc"]["best"] / 100)
    assert numbers.loc["HiVE_MIL", "test_hit_ratio_mean"] == pytest.approx(0.5)
    assert numbers.loc["HiVE_MIL", ["seeds", "folds", "expected_folds"]].tolist() == ["1 2", 6, 6]
    assert "over the folds of all of them" in text


def test_the_comparisons(finished: Path, made: Path) -> None:
    results, table = made / "results", made / "nsclc.csv"
    numbers = pd.read_csv(finished / "tables" / "results_plip_comparisons.csv").set_index("second")
    assert list(numbers["first"]) == ["HiVE_MIL"] * 2
    case_of = pd.read_csv(table).set_index("slide_id")["case_id"]
    first = predictions(results, "best")
    for label, setting in (("ABMIL", "worst"), ("HiVE_MIL (htcl none)", "middle")):
        row, other = numbers.loc[label], predictions(results, setting)
        shared = [key for key in first if key in other]
        assert row["folds"] == len(shared) == 3
        tested = pd.concat([first[key] for key in shared])
        assert row["test_slides"] == tested["slide_id"].nunique()
        assert row["test_patients"] == case_of[tested["slide_id"]].nunique() < row["test_slides"]
        for name in METRICS:
            gaps = [metrics_of(first[key])[name] - metrics_of(other[key])[name] for key in shared]
            assert row[f"{name}_difference"] == pytest.approx(np.mean(gaps))
            # seeds of a fold averaged, then the formula
            d = pd.Series(gaps, index=[fold for _, fold in shared]).groupby(level=0).mean()
            train = {fold: len(parts["train"]) for fold, parts in folds_of(table).items()}
            ratio = np.mean([len(first[key]) / train[key[1]] for key in shared])
            assert row["test_to_train"] == pytest.approx(ratio)
            assert row[f"{name}_t"] == pytest.approx(d.mean() / np.sqrt((1 / 3 + ratio) * d.var(ddof=1)))
        right = []
        for found in (first, other):
            pooled = pd.concat([found[key] for key in shared])
            scores = pooled.groupby("slide_id")[[f"prob_{name}" for name in CLASSES]].mean()
            labels = pooled.groupby("slide_id")["label"].first()
            right.append(scores.idxmax(axis=1).str.removeprefix("prob_") == labels)
        counts = pd.crosstab(right[0], right[1]).reindex(index=[True, False], columns=[True, False], fill_value=0)
        assert row["right_first_only"] == counts.iloc[0, 1]
        assert row["right_second_only"] == counts.iloc[1, 0]
        assert row["p_mcnemar"] == pytest.approx(mcnemar(counts.to_numpy(), exact=True).pvalue)
    p = numbers["p_mcnemar"].sort_values()
    assert numbers.loc[p.index[0], "p_holm_mcnemar"] == pytest.approx(min(1, 2 * p.iloc[0]))


def test_the_interval_is_that_of_drawn_patients(report: RunMain, results: Path, table: Path, tmp_path: Path) -> None:
    """Slides of the drawn patients repeated in tables, scikit-learn on each, percentiles of the mean over folds."""
    assert report(results, "--resamples", "12", "--seed", "5")[0] == 0
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "results_plip_comparisons.csv").set_index("second")
    case_of = pd.read_csv(table).set_index("slide_id")["case_id"]
    first, other = predictions(results, "best"), predictions(results, "worst")
    pairs = [(first[key], other[key].set_index("slide_id").loc[first[key]["slide_id"]].reset_index()) for key in other]
    rows = [pd.Series(range(len(one))).groupby(case_of[one["slide_id"]].to_numpy()).indices for one, _ in pairs]
    patients = sorted(set().union(*rows))
    gaps = []
    for counts in patient_weights(len(patients), 12, seed=5):
        drawn = np.repeat(patients, counts)
        found = []
        for (one, two), places in zip(pairs, rows, strict=True):
            chosen = np.concatenate([places[case] for case in drawn if case in places])
            better, worse = metrics_of(one.iloc[chosen]), metrics_of(two.iloc[chosen])
            found.append([better[name] - worse[name] for name in METRICS])
        gaps.append(np.mean(found, axis=0))
    for name, values in zip(METRICS, np.array(gaps).T, strict=True):
        row = numbers.loc["ABMIL"]
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
        assert row[f"{name}_resamples"] == 12


def test_calibration_and_figures(finished: Path, made: Path) -> None:
    folder = finished
    numbers = pd.read_csv(folder / "tables" / "calibration.csv").set_index("model")
    scores = [
        brier_score_loss(
            table["label"], table[[f"prob_{name}" for name in CLASSES]], labels=list(CLASSES), scale_by_half=False
        )
        for table in predictions(made / "results", "middle").values()
    ]
    row = numbers.loc["HiVE_MIL (htcl none)"]
    assert (row["brier_mean"], row["brier_std"]) == pytest.approx((np.mean(scores), np.std(scores)))
    assert (numbers["ece_mean"] > 0).all()
    text = (folder / "report.md").read_text()
    images = [
        token.attrs["src"]
        for block in MarkdownIt().parse(text)
        for token in block.children or []
        if token.type == "image"
    ]
    assert sorted(images) == sorted(f"figures/{file.name}" for file in (folder / "figures").iterdir())
    assert len(images) == 1 + 2 * 3
    for image in images:
        assert (folder / image).read_bytes().startswith(b"\x89PNG")
    for file in (folder / "tables").iterdir():
        assert f"(tables/{file.name})" in text


def test_the_sentences(finished: Path) -> None:
    text = (finished / "report.md").read_text()
    row = pd.read_csv(finished / "tables" / "results_plip_comparisons.csv").set_index("second").loc["ABMIL"]
    assert (
        f"- nsclc, 4 shots, 3 folds: The AUC of HiVE_MIL is {100 * row['auc_difference']:.1f} points higher than that "
        f"of ABMIL (95 % interval {100 * row['auc_low']:.1f} to {100 * row['auc_high']:.1f}, p = 0.004): "
        f"{row['test_patients']} test patients tell the two apart, also with Holm's correction for 2 comparisons, "
        f"and so do 3 draws of the training slides (corrected t: p = {row['p_holm_auc_corrected_t']:.2g})."
    ) in text


@pytest.mark.parametrize("reference", ["ABMIL", "HiVE_MIL (htcl none)"])
def test_the_reference_can_be_named(report: RunMain, results: Path, tmp_path: Path, reference: str) -> None:
    assert report(results, "--reference", reference)[0] == 0
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "results_plip_comparisons.csv")
    assert set(numbers["first"]) == {reference}
    assert reference not in set(numbers["second"])


def test_without_the_projects_model_the_best_is_the_reference(report: RunMain, table: Path, tmp_path: Path) -> None:
    for model, skill in (("AMIL", 0.2), ("BMIL", 0.9), ("CMIL", 0.4)):
        write_run(tmp_path / "results", table, folds_of(table), skill, model_type=model)
    assert report(tmp_path / "results")[0] == 0
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "results_plip_comparisons.csv")
    assert numbers[["first", "second"]].values.tolist() == [["BMIL", "AMIL"], ["BMIL", "CMIL"]]
    assert "several seeds" not in (tmp_path / "report" / "report.md").read_text()


def test_a_presets_row_of_the_projects_model_is_the_reference(report: RunMain, table: Path, tmp_path: Path) -> None:
    """It has the lower AUC."""
    results, entries = tmp_path / "results", []
    for label, skill in (("class-wise (HiVE-MIL)", 0.2), ("w/o HTCL", 0.9), ("HiVE-MIL (released code)", 0.5)):
        path = write_run(results / str(skill), table, folds_of(table), skill).relative_to(results)
        entries.append({"label": label, "preset": "table2", "path": path.as_posix(), "shots": 4})
    (results / "experiment.json").write_text(json.dumps({"runs": entries}))
    assert report(results)[0] == 0
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "table2_plip_comparisons.csv")
    assert set(numbers["first"]) == {"class-wise (HiVE-MIL)"}


# ---- which runs ------------------------------------------------------------------------------------------------------


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
    assert [row[0] for row in rows_of(text, "## table2, plip")[1:3]] == ["w/o HTCL & 100 %", "HiVE-MIL"], "as listed"
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
    assert {row[1]: row[place] for row in rows} == {"HiVE_MIL": "", "DSMIL": "two_scale True"}
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


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_no_run_is_there(report: RunMain, tmp_path: Path) -> None:
    (tmp_path / "results" / "tinyclip").mkdir(parents=True)
    (tmp_path / "results" / "tinyclip" / "config.json").write_text('{"model_type": "clip"}')
    code, output, errors = report(tmp_path / "results")
    assert (code, output) == (2, "")
    assert f"{tmp_path / 'results'}: no run found" in errors
    code, _, errors = report(tmp_path / "nowhere")
    assert code == 2
    assert "nowhere: no such folder" in errors
    assert not (tmp_path / "report").exists()


def test_all_damage_is_listed(report: RunMain, results: Path, tmp_path: Path) -> None:
    best, middle, worst = (sorted((results / name).rglob("*_s1"))[0] for name in ("best", "middle", "worst"))
    table = pd.read_csv(best / "predictions_0.csv")
    test = table["split"] == "test"
    table.loc[test, "prob_LUAD"] = table.loc[test, "prob_LUAD"].to_numpy()[::-1]
    table.to_csv(best / "predictions_0.csv", index=False)
    (best / "predictions_1.csv").unlink()
    (middle / "predictions_2.csv").write_bytes((middle / "predictions_2.csv").read_bytes()[:-9])
    (middle / "config.json").write_text("{")
    (worst / "fold_0.json").write_text("{}")
    (worst / "splits_1.csv").write_text((worst / "splits_2.csv").read_text())
    code, output, errors = report(results, tmp_path / "nowhere")
    assert (code, output) == (2, "")
    for file in (best / "predictions_0.csv", best / "predictions_1.csv", middle / "config.json", worst / "fold_0.json"):
        assert str(file) in errors
    assert "nowhere: no such folder" in errors
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("cut", [16, 60, 400])
def test_truncated_predictions(report: RunMain, results: Path, tmp_path: Path, cut: int) -> None:
    run = next((results / "worst").rglob("*_s1"))
    (run / "predictions_2.csv").write_bytes((run / "predictions_2.csv").read_bytes()[:-cut])
    code, _, errors = report(results)
    assert code == 2
    assert f"{run / 'predictions_2.csv'}" in errors
    assert not (tmp_path / "report").exists()


def test_splits_that_were_not_tested(report: RunMain, results: Path) -> None:
    run = next((results / "worst").rglob("*_s1"))
    shutil.copy(run / "splits_2.csv", run / "splits_1.csv")
    (next((results / "best").rglob("*_s1")) / "splits_0.csv").unlink()
    code, _, errors = report(results)
    assert code == 2
    assert f"{run / 'predictions_1.csv'}: its test slides are not those of splits_1.csv" in errors
    assert "splits_0.csv: no such split file" in errors


def test_runs_that_cannot_be_told_apart(report: RunMain, results: Path, table: Path) -> None:
    shutil.copytree(results / "best", results / "copy")
    code, output, errors = report(results)
    assert (code, output) == (2, "")
    assert errors.count("found two runs labelled 'HiVE_MIL' with seed") == 2
    assert "with seed 1, expected one" in errors
    shutil.rmtree(results / "copy")
    paths = [file.parent.relative_to(results).as_posix() for file in sorted(results.rglob("*/config.json"))]
    entries = [{"label": "one", "preset": None, "path": path} for path in paths if path.endswith("MIL_4_s1")]
    write_run(results / "lr", table, folds_of(table), 0.5, seed=3, lr=0.5)
    entries.append({"label": "one", "path": "lr/nsclc/plip/4/nsclc_plip_HiVE_MIL_4_s3"})
    (results / "experiment.json").write_text(json.dumps({"runs": entries[1:2] + entries[-1:]}))
    code, _, errors = report(results)
    assert code == 2
    assert "both are labelled 'one', but differ in htcl, lr, not in the seed alone" in errors


@pytest.mark.parametrize("text", ["[]", '{"runs": [{"label": "a"}]}', '{"runs": 3}', "{"])
def test_a_faulty_experiment_file(report: RunMain, results: Path, text: str) -> None:
    (results / "experiment.json").write_text(text)
    code, _, errors = report(results)
    assert code == 2
    assert str(results / "experiment.json") in errors


def test_an_unknown_reference(report: RunMain, results: Path, tmp_path: Path) -> None:
    code, _, errors = report(results, "--reference", "HiVE")
    assert code == 2
    assert "--reference HiVE: no such row; found ABMIL, HiVE_MIL, HiVE_MIL (htcl none)" in errors
    assert not (tmp_path / "report").exists()
