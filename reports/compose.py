"""The report on any set of results: reads the runs, checks that they belong together, and writes section by section."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.comparison import Comparison, compare
from reports.finished_runs import FinishedRun, FoundRuns, read_runs
from reports.markdown import MarkdownReport, file_name
from reports.metric_sections import add_by_patient, add_calibration, add_more_metrics
from reports.paper import beside_published, in_paper_order, read_published
from reports.sections import (
    add_comparisons,
    add_figures,
    add_published,
    add_results,
    add_runs,
)
from reports.settings import ResultsTable, Setting, build_tables
from utils.errors import Fault, Faults, UserError
from utils.files import file_sha256
from utils.listed_runs import EXPERIMENT
from utils.presets import read_preset_file
from utils.words import listed

METHODS = """\
- Results: mean ± population standard deviation over the finished folds of all seeds, in %; of one fold its value. AUC:
  of the second class for two classes, else the mean of the one-vs-rest AUCs; F1: macro. Both are over the classes that
  have test slides; where one class alone has some there is no AUC. Best in bold, second best underlined, by the mean as
  printed.
- Intervals: patients of the test sets are drawn with replacement ({resamples} times), all their slides in all folds and
  seeds with them; the statistic is the mean over folds of the difference; percentiles 2.5 and 97.5, and the two-sided p
  value of the test that they invert. Resamples in which one class alone has slides are left out of the interval of the
  AUC. Intervals say how far the trained models would differ on other patients, not how other training slides would have
  changed the models.
- Corrected resampled t test (Nadeau and Bengio 2003) over folds, for the latter: variance times 1/J + n2/n1, with J
  folds and n2/n1 test slides by training slides. Seeds that share a fold's slides are averaged first. Few-shot training
  sets are far smaller than the test sets, which makes this test cautious.
- McNemar's test, exact: each slide once, predicted by the mean of its probabilities over the folds and seeds that
  tested it. It takes slides as independent; patients with several slides make it too sure.
- Holm's correction: over all comparisons of a table, test by test.
- Calibration: expected calibration error (15 bins of the predicted class's probability) and Brier score (summed over
  the classes), mean ± standard deviation over folds.
- Metrics by patient, other metrics, calibration and figures: what several tables list is shown once, under its first
  label; the table of runs has all of them.
- ROC curves and confusion matrices: the test predictions of all folds and seeds together, so that a slide counts as
  often as it was tested, and an AUC there is not the mean over folds.
"""


@dataclass(frozen=True)
class RunSlides:
    """Who was trained on and who was tested, of one run.

    track: the evaluation track that the run's splits follow. patients: the patient by slide_id. training and tested:
    slide_ids by fold, as the split files have them.
    """

    track: str
    patients: Mapping[str, str]
    training: Mapping[int, frozenset[str]]
    tested: Mapping[int, frozenset[str]]


def write_report(
    results: Sequence[Path],
    slides_of: Callable[[FinishedRun], RunSlides],
    output_dir: Path,
    reference: str | None,
    resamples: int,
    seed: int,
    with_published: bool = False,
) -> Path:
    """Write report.md, tables/ and figures/ of all runs in and below some folders; returns where report.md lies.

    slides_of: reads the splits of a run's finished folds. reference: label of the row that the others are compared
    with. resamples, seed: of the bootstrap. with_published: put the paper's numbers beside those of its presets. Raises
    UserError with the faults of all runs, before anything is written.
    """
    found = read_runs(results)
    presets = read_preset_file()
    tables = in_paper_order(build_tables(found.runs, found.entries), presets)
    rows = list(dict.fromkeys(row for table in tables for row in table.rows))
    if reference is not None and reference not in rows:
        raise UserError(Fault("option.value", f"--reference {reference}", "no such row", f"one of {listed(rows, 20)}"))
    runs = sorted(found.runs.values(), key=lambda run: run.name)
    slides = _read_slides(runs, slides_of)

    def compare_two(first: Setting, second: Setting) -> Comparison:
        patients = {name: patient for run in first.runs for name, patient in slides[run.name].patients.items()}
        training = {
            (run.seed, fold): members for run in first.runs for fold, members in slides[run.name].training.items()
        }
        return compare(first, second, patients, training, resamples, seed)

    report = MarkdownReport(output_dir)
    report.add("# Results")
    add_runs(report, runs, tables, {name: one.track for name, one in slides.items()}, _notes(found, runs))
    for table in tables:
        preset = presets.get(table.preset or "")
        add_results(report, table, preset)
        if with_published:
            add_published(report, table, beside_published(table, preset, read_published()) if preset else None)
        add_comparisons(report, table, reference, compare_two, resamples)
    if settings := settings_by_file(tables):
        chosen = list(settings.values())
        add_by_patient(report, chosen, lambda run: slides[run.name].patients)
        add_more_metrics(report, chosen)
        add_calibration(report, chosen)
        add_figures(report, settings)
    report.add(f"## Methods\n\n{METHODS.format(resamples=resamples)}")
    return report.write()


def _read_slides(runs: Sequence[FinishedRun], slides_of: Callable[[FinishedRun], RunSlides]) -> dict[str, RunSlides]:
    """The slides of each run by its name. Raises UserError where splits are missing or are not what was tested."""
    faults = Faults()
    slides = {}
    for run in runs:
        attempt = faults.attempt(slides_of, run)
        if attempt:
            slides[run.name] = attempt.value
            faults.found += _untested(run, attempt.value)
    faults.found = list(dict.fromkeys(faults.found))  # runs share tables of slides
    faults.raise_any()
    return slides


def _untested(run: FinishedRun, slides: RunSlides) -> list[Fault]:
    return [
        Fault(
            "predictions.other_split", str(run.folder.predictions(fold)),
            f"its test slides are not those of {run.folder.split(fold).name}", expected="the same",
            mend=f"remove {run.folder.fold_result(fold).name} and train the fold again",
        )
        for fold, members in slides.tested.items()
        if members != set(run.folds[fold].slide_ids)
    ]  # fmt: skip


def _notes(found: FoundRuns, runs: Sequence[FinishedRun]) -> list[str]:
    """What a reader must know: runs that have not begun, folds that are missing, where patients come from."""
    notes = []
    if found.absent:
        notes.append(f"not begun, so in no table: {listed(found.absent, 20, quote=False)} ({EXPERIMENT} lists it)")
    for run in runs:
        notes += [f"{run.name}: {note}" for note in run.notes]
        if run.missing:
            missing = ", ".join(map(str, run.missing))
            notes.append(f"{run.name}: fold {missing} of {run.num_folds} not finished")
        name = f"{run.name}: {run.table.name}"
        if not run.table.is_file():
            notes.append(f"{name} not found: a slide counts as a patient where its name is no TCGA barcode")
        elif file_sha256(run.table) != run.record.inputs.get("dataset_csv"):
            notes.append(f"{name} has changed since the run: patients are as it says now")
    return notes


def settings_by_file(tables: Sequence[ResultsTable]) -> dict[str, Setting]:
    """The settings with a finished fold by a name for their files, each once: where tables list the same runs under
    several labels, under the first."""
    found: dict[str, Setting] = {}
    seen: set[tuple[str, ...]] = set()
    for setting in (one for results in tables for column in results.columns for one in results.column(column)):
        runs = tuple(run.name for run in setting.runs)
        if not setting.folds or runs in seen:
            continue
        seen.add(runs)
        name = file_name(f"{setting.task}_{setting.feature_extractor}_{setting.shots}_{setting.label}")
        while name.lower() in map(str.lower, found):
            name += "_"
        found[name] = setting
    return found
