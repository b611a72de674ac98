"""A table of slides to make splits of, the options that do so, and what an audit prints."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module", name="table")
def table_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 TCGA-like slides of 120 patients and 15 sites, in no order; 5 of class B are normal tissue. Read only."""
    generator = np.random.default_rng(3)
    rows = []
    for number in range(200):
        patient = int(generator.integers(120))
        label = "AAB"[patient % 3]
        sample = "11A" if label == "B" and number % 10 == 0 else "01Z"
        slide_id = f"TCGA-S{chr(65 + patient % 15)}-{patient:04d}-{sample}-00-DX{number}"
        rows.append({"case_id": f"counter_{number}", "slide_id": slide_id, "label": label})
    file = tmp_path_factory.mktemp("table") / "made.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    assert sum("-11A" in row["slide_id"] for row in rows) == 5
    return file


def options(table: Path, folder: Path, *more: str) -> list[str]:
    return ["--task", "made", "--dataset_csv", str(table), "--output-dir", str(folder), "--k", "3", *more]


def audited(output: str) -> dict[str, dict[str, list[list[str]]]]:
    """The two tables of every audited folder, as cells, by the folder's name."""
    found = {}
    for report in output.split(" faults\n")[:-1]:
        blocks = report.strip("\n").split("\n\n")
        name = blocks[0].removeprefix(blocks[0].split("/")[0]).splitlines()[0].rsplit("/", 1)[-1]
        tables = {"counts": blocks[2], "shared": blocks[3]}
        found[name] = {key: [line.split() for line in text.splitlines()[1:]] for key, text in tables.items()}
    return found
