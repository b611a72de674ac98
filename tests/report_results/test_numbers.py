"""The report on made-up runs: its numbers recomputed from the predictions, its marks, its sentences."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from sklearn.metrics import brier_score_loss
from statsmodels.stats.contingency_tables import mcnemar

from reports.significance import patient_weights
from tests.conftest import RunMain
from tests.support.made_results import METRICS, folds_of, metrics_of, predictions, rows_of
from tests.support.run_folders import CLASSES, write_run


@pytest.fixture(scope="module")
def finished(made: Path) -> Path:
    """The report on these results, with all figures. Read only."""
    import report_results

    report_results.main([str(made / "results"), "--output-dir", str(made / "report"), "--resamples", "500"])
    return made / "report"


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
    for model, skill in (("ABMIL", 0.2), ("CLAM_SB", 0.9), ("WiKG", 0.4)):
        write_run(tmp_path / "results", table, folds_of(table), skill, model_type=model)
    assert report(tmp_path / "results")[0] == 0
    numbers = pd.read_csv(tmp_path / "report" / "tables" / "results_plip_comparisons.csv")
    assert numbers[["first", "second"]].values.tolist() == [["CLAM_SB", "ABMIL"], ["CLAM_SB", "WiKG"]]
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
