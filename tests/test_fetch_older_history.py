"""fetch_released_assets.py --older-history: files whose checksums nobody knows, checked by form."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets.splits import read_split_ids
from tests.conftest import FaultsOf, RunMain
from tests.support.failing_server import Reply, files_of, serve, waits_fixture  # noqa: F401
from tests.support.run_contents import files_below

SCRIPT = "fetch_released_assets"
COMMIT = "e458a93ab9c6cbc6c824c32afcfd7c759620ceb5"
CLASSES = {"tcga_brca": ["IDC", "ILC"], "tcga_nsclc": ["LUAD", "LUSC"], "tcga_rcc": ["CCRCC", "PRCC", "CHRCC"]}
HEADER = "slide_id,case_id,project_id,Diagnosis,OncoTreeCode,level0_mag\n"
SHOTS = "splits/tcga_rcc/tcga_rcc_4"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of the described form: 20 slides of each class and one of another code, and folds of them."""
    folder = tmp_path_factory.mktemp("older")
    (folder / "dataset_csv_original").mkdir()
    generator = np.random.default_rng(0)
    for number, (task, classes) in enumerate(CLASSES.items()):
        ids = {
            name: [f"TCGA-{'ABC'[number]}{label}-{n:04}-01Z-00-DX1.{n}" for n in range(20)]
            for label, name in enumerate(classes)
        }
        rows = [f"{i},{i[:12]},TCGA-X,some,{name},40\n" for name, of_class in ids.items() for i in of_class]
        other = "TCGA-ZZ-0001-01Z-00-DX1.1,TCGA-ZZ-0001,TCGA-X,some,OTHER,20\n"
        (folder / "dataset_csv_original" / f"{task}.csv").write_text(HEADER + "".join(rows) + other)
        for shots in (4, 8):
            place = folder / "splits" / task / f"{task}_{shots}"
            place.mkdir(parents=True)
            for fold in range(5):
                parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
                for of_class in ids.values():
                    drawn = [of_class[n] for n in generator.permutation(20)]
                    for name, part in zip(parts, (drawn[:shots], drawn[8:14], drawn[14:]), strict=True):
                        parts[name] += part
                length = max(map(len, parts.values()))
                lines = [
                    ",".join([str(n), *(part[n] if n < len(part) else "" for part in parts.values())])
                    for n in range(length)
                ]
                (place / f"splits_{fold}.csv").write_text(",train,val,test\n" + "\n".join(lines) + "\n")
    return folder


@pytest.fixture
def spoilt(made: Path, tmp_path: Path) -> Path:
    """A copy of the history, to be changed."""
    for name, content in files_below(made).items():
        (tmp_path / "server" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "server" / name).write_bytes(content)
    return tmp_path / "server"


def options(url: str, folder: Path, *more: str) -> list[str]:
    return ["--older-history", "--base-url", url, "--output-dir", str(folder), *more]


def test_all_files_come_with_what_was_checked(run_main: RunMain, made: Path, tmp_path: Path) -> None:
    with serve(files_of(made)) as server:
        code, output, errors = run_main(options(f"{server.url}/", tmp_path), SCRIPT)
        assert (code, errors) == (0, "")
        assert len(server.requests) == 3 + 3 * 2 * 5
        assert files_below(tmp_path) == files_below(made)
        assert f"older history {COMMIT[:7]}: 33 files fetched, 0 there already" in output
        assert "no checksums of these files are known; they were checked by form alone" in output
        assert "dataset_csv_original/tcga_rcc.csv: 20 CCRCC, 20 CHRCC, 20 PRCC, 1 of other codes" in output
        assert f"{SHOTS}: train + val + test of each fold: 12 + 18 + 18; 12 + 18 + 18" in output
        assert "tables, splits and descriptions" not in output
        assert len(read_split_ids(tmp_path / SHOTS / "splits_0.csv")["train"]) == 12
        assert "0 files fetched, 33 there already" in run_main(options(server.url, tmp_path), SCRIPT)[1]


def test_the_address_is_that_of_the_whole_commit(
    run_main: RunMain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(url: str, path: Path, *_: object) -> None:
        asked.append(url)
        raise KeyboardInterrupt

    monkeypatch.setattr("datasets.older_history.download", note)
    run_main(["--older-history", "--output-dir", str(tmp_path)], SCRIPT)
    assert asked == [f"https://github.com/bryanwong17/HiVE-MIL/raw/{COMMIT}/dataset_csv_original/tcga_brca.csv"]


# ---- servers that fail -----------------------------------------------------------------------------------------------


def test_a_commit_that_is_not_served_is_said_to_be_so(faults_of: FaultsOf, tmp_path: Path) -> None:
    with serve(Reply(b"404: Not Found", 404)) as server:
        (fault,) = faults_of(options(server.url, tmp_path), SCRIPT)
        assert len(server.requests) == 1
    assert fault.code == "released.commit_missing"
    assert COMMIT in fault.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reply", [Reply(b"", 500), Reply(b"", 403), Reply(b"x" * 99, cut=9)])
def test_other_failures_are_not(run_main: RunMain, tmp_path: Path, waits: list[float], reply: Reply) -> None:
    with serve(reply) as server:
        code, _, errors = run_main(options(server.url, tmp_path), SCRIPT)
    assert code == 2
    assert "HTTP 404" not in errors and COMMIT not in errors
    assert errors.splitlines()[-1].startswith(f"error: {server.url}/dataset_csv_original/tcga_brca.csv: ")
    assert list(tmp_path.iterdir()) == []


# ---- files of another form -------------------------------------------------------------------------------------------


def replaced(before: str, after: str) -> Callable[[str], str]:
    return lambda text: text.replace(before, after)


def without_last_shot(text: str) -> str:
    lines = text.splitlines()
    cells = lines[12].split(",")
    return "\n".join([*lines[:12], ",".join([cells[0], "", *cells[2:]]), *lines[13:]])


def validated_twice(text: str) -> str:
    lines = text.splitlines()
    cells = lines[1].split(",")
    return "\n".join([lines[0], ",".join([cells[0], cells[2], *cells[2:]]), *lines[2:]])


TABLE, FOLD = "dataset_csv_original/tcga_rcc.csv", f"{SHOTS}/splits_2.csv"


@pytest.mark.parametrize(
    ("name", "spoil", "codes"),
    [
        (TABLE, lambda text: "<html>Sign in</html>", {"table.columns"}),
        (TABLE, lambda text: "", {"table.unreadable"}),
        (TABLE, replaced("case_id", "patient"), {"table.columns"}),
        (TABLE, replaced("TCGA-C0-0003,", "patient_3,"), {"table.case"}),
        (TABLE, replaced("PRCC", "RCC"), {"table.classes"}),
        (TABLE, lambda text: text + text.splitlines()[1], {"table.repeated_slide"}),
        (TABLE, lambda text: text.replace(text.splitlines()[3] + "\n", ""), {"split.unknown_slide"}),
        (FOLD, replaced("train", "training"), {"split.columns"}),
        (FOLD, without_last_shot, {"split.shots"}),
        (FOLD, validated_twice, {"split.repeated_slide"}),
        (FOLD, None, {"released.equal_folds"}),
    ],
)
def test_files_of_another_form_are_refused(
    faults_of: FaultsOf, spoilt: Path, tmp_path: Path, name: str, spoil: Callable[[str], str] | None, codes: set[str]
) -> None:
    file = spoilt / name
    text = (spoilt / SHOTS / "splits_0.csv").read_text() if spoil is None else spoil(file.read_text())
    assert text != file.read_text()
    file.write_text(text)
    with serve(files_of(spoilt)) as server:
        found = {fault.code for fault in faults_of(options(server.url, tmp_path / "out"), SCRIPT)}
    assert found == codes
    assert not (tmp_path / "out").exists()


# ---- what is there already -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own", [f"{SHOTS}/splits_1.csv", f"{SHOTS}/manifest.json", TABLE])
def test_other_files_are_kept(run_main: RunMain, faults_of: FaultsOf, made: Path, tmp_path: Path, own: str) -> None:
    (tmp_path / own).parent.mkdir(parents=True)
    (tmp_path / own).write_text("mine")
    with serve(files_of(made)) as server:
        (fault,) = faults_of(options(server.url, tmp_path), SCRIPT)
        assert (fault.code, fault.where) == ("released.other_file", str(tmp_path / own))
        assert files_below(tmp_path) == {own: b"mine"}
        assert run_main(options(server.url, tmp_path, "--overwrite"), SCRIPT)[0] == 0
    assert files_below(tmp_path) == files_below(made)
