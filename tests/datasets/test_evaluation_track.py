"""Which track splits follow, from small split files and the authors' own."""

from pathlib import Path

import pandas as pd
import pytest

from datasets.evaluation_track import evaluation_track, read_run_splits
from utils.errors import UserError


def write_splits(folder: Path, *folds: tuple[list[str], list[str], list[str]]) -> dict[int, Path]:
    files = {number: folder / f"splits_{number}.csv" for number in range(len(folds))}
    for file, fold in zip(files.values(), folds, strict=True):
        columns = {name: pd.Series(part) for name, part in zip(("train", "val", "test"), fold, strict=True)}
        pd.DataFrame(columns).fillna("").to_csv(file)
    return files


def barcode(patient: str, site: str = "AA", sample: str = "01") -> str:
    return f"TCGA-{site}-{patient}-{sample}Z-00-DX1"


def track(folder: Path, *folds: tuple[list[str], list[str], list[str]], cases: dict[str, str] | None = None) -> str:
    files = write_splits(folder, *folds)
    slides = {slide for fold in folds for part in fold for slide in part}
    table = folder / "table.csv"
    if cases is not None:
        rows = [(cases.get(slide, slide), slide, "AB"[index % 2]) for index, slide in enumerate(sorted(slides))]
        pd.DataFrame(rows, columns=["case_id", "slide_id", "label"]).to_csv(table, index=False)
    return evaluation_track(read_run_splits(files, table), released=False)


def test_patients_by_the_table(tmp_path: Path) -> None:
    cases = {"a": "1", "b": "1", "c": "2", "d": "3", "e": "4"}
    assert track(tmp_path, (["a", "b"], ["c"], ["d", "e"]), cases=cases) == "patient-grouped"
    shared = "slides only (patients shared between parts: {})"
    assert track(tmp_path, (["a"], ["c"], ["b", "e"]), cases=cases) == shared.format(1)
    assert track(tmp_path, (["a"], ["b"], ["d", "e"]), cases=cases) == shared.format(1)
    assert track(tmp_path, (["c"], ["b"], ["a", "e"]), cases=cases) == shared.format(1)
    cases["e"] = "3"
    two = (["a"], ["b"], ["c"]), (["c"], ["d", "a"], ["b", "e"])
    assert track(tmp_path, *two, cases=cases) == shared.format(2), "of all folds, each patient once"


def test_patients_who_are_shared_between_folds_alone(tmp_path: Path) -> None:
    cases = {"a": "1", "b": "1", "c": "2", "d": "3"}
    assert track(tmp_path, (["a", "b"], ["c"], ["d"]), (["c"], ["a", "b"], ["d"]), cases=cases) == "patient-grouped"


def test_a_case_for_every_slide_is_asked_about(tmp_path: Path) -> None:
    assert track(tmp_path, (["a"], ["c"], ["d"]), cases={}).startswith("patient-grouped (each slide a patient of its")


def test_barcodes_tell_patients_sites_and_normals(tmp_path: Path) -> None:
    one, again = barcode("0001"), barcode("0001", sample="02")
    two, three = barcode("0002", "BB"), barcode("0003", "CC")
    counter = {one: "1", again: "2", two: "3", three: "4"}  # not the patient
    disjoint = "patient-grouped and site-disjoint, without normals"
    assert track(tmp_path, ([one, again], [two], [three]), cases=counter) == disjoint
    shared = "slides only (patients shared between parts: 1)"
    assert track(tmp_path, ([one], [two], [three, again]), cases=counter) == shared
    same_site = ([one, again], [two], [barcode("0004", "AA")])
    assert track(tmp_path, same_site, cases={}) == "patient-grouped, without normals"
    normal = ([one, again], [two], [barcode("0003", "CC", "11")])
    assert track(tmp_path, normal, cases={}) == "patient-grouped and site-disjoint"


def test_without_a_table_barcodes_tell_patients_alone(tmp_path: Path) -> None:
    one, again, two = barcode("0001"), barcode("0001", sample="02"), barcode("0002", "BB")
    three = barcode("0003", "CC")
    assert track(tmp_path, ([one], [two], [again])) == "slides only (patients shared between parts: 1)"
    assert track(tmp_path, ([one, again], [two], [three])) == "patient-grouped, without normals"
    unknown = "slides only (patients not known: no table of slides)"
    assert track(tmp_path, ([one], [two], ["other"])) == unknown


def test_slides_that_the_table_lacks_are_patients_of_their_own(tmp_path: Path) -> None:
    files = write_splits(tmp_path, (["a"], ["b"], ["c"]))
    table = tmp_path / "table.csv"
    table.write_text("case_id,slide_id,label\n1,a,A\n1,b,B\n")
    found = read_run_splits(files, table)
    assert {slide.slide_id: slide.patient for slide in found.slides()} == {"a": "1", "b": "1", "c": "c"}
    assert found.sites == {"a": "", "b": "", "c": ""}


def test_faults_of_all_files(tmp_path: Path) -> None:
    files = write_splits(tmp_path, (["a"], ["b"], ["c"]))
    (tmp_path / "table.csv").write_text("case_id,label\n1,A\n")
    (tmp_path / "splits_1.csv").write_text("train,val\na,b\n")
    with pytest.raises(UserError) as raised:
        read_run_splits({**files, 1: tmp_path / "splits_1.csv", 2: tmp_path / "splits_2.csv"}, tmp_path / "table.csv")
    for fault in (
        "table.csv: no column slide_id",
        "splits_1.csv: no column 'test'",
        "splits_2.csv: no such split file",
    ):
        assert fault in str(raised.value)


@pytest.mark.parametrize("task", ["tcga_nsclc", "tcga_rcc", "tcga_brca"])
def test_the_released_splits(released: Path, task: str) -> None:
    files = {fold: released / "splits" / task / f"{task}_16" / f"splits_{fold}.csv" for fold in range(5)}
    run = read_run_splits(files, released / "dataset_csv" / f"{task}.csv")
    patients = set()
    for file in files.values():
        table = pd.read_csv(file, dtype=str)
        parts = [{slide[:12] for slide in table[name].dropna()} for name in ("train", "val", "test")]
        patients |= (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
    number = f"(patients shared between parts: {len(patients)})"
    assert evaluation_track(run, released=True) == f"released splits {number}"
    assert evaluation_track(run, released=False) == f"slides only {number}"


def test_released_splits_are_known_by_their_checksums(released: Path) -> None:
    """What report_results.py looks up: the sha256 that main.py records of a split file."""
    from datasets.released import RELEASED
    from utils.files import file_sha256

    found = file_sha256(released / "splits" / "tcga_rcc" / "tcga_rcc_16" / "splits_0.csv")
    assert found in RELEASED["files"].values()
