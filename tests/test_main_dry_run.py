"""main.py --dry_run: everything is checked, nothing is trained, and programs get faults and passed checks as JSON."""

import json
import shutil
from pathlib import Path

from tests.conftest import RunMain, SimulatedTask


def test_dry_run_writes_no_run(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    code, out, err = run_main(simulated.options(tmp_path, "--dry_run"))
    assert (code, err) == (0, "")
    assert "dry run: all checks passed" in out
    assert "epoch" not in out
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["checked_features.json"]
    assert not simulated.run_folder(tmp_path).exists()


def test_dry_run_for_programs(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    """One JSON object on standard output: no faults, the checks that passed, and what a user would be told."""
    code, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--json", "--mode", "x"))
    found = json.loads(out)
    assert code == 0 and found.keys() == {"faults", "passed", "notes"}
    assert found["faults"] == []
    assert found["passed"] == [
        *("options", "device", "vision-language model", "table of slides", "descriptions"),
        *("splits of fold 0", "splits of fold 1", "features", "model"),
    ]
    assert found["notes"][0] == "note: --mode has no effect on HiVE_MIL --variant paper"
    assert not simulated.run_folder(tmp_path).exists()


def test_dry_run_lists_faults_for_programs(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    """Beside what passed; the user's form of the faults is on standard error."""
    shutil.copytree(simulated.split_dir, tmp_path / "splits")
    (tmp_path / "splits" / "splits_1.csv").unlink()
    wrong = ("--feature_dim", "32", "--split_dir", str(tmp_path / "splits"), "--text_prompt", str(tmp_path / "none"))
    code, out, err = run_main(simulated.options(tmp_path, "--dry_run", "--json", *wrong))
    found = json.loads(out)
    assert code == 2 and "\nerror: 3 faults" in err
    assert [list(fault) for fault in found["faults"]] == 3 * [["code", "where", "found", "expected", "mend"]]
    assert "option.value" in {fault["code"] for fault in found["faults"]}
    assert found["passed"] == [
        *("options", "device", "vision-language model", "table of slides", "splits of fold 0", "features"),
    ]
    code, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--json", "--k_end", "9"))
    assert code == 2 and [fault["code"] for fault in json.loads(out)["faults"]] == ["option.value"]
