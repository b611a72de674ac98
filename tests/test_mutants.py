"""The listed mutants fit the code: each text stands in its file once, and the tests that must see it are there."""

import pytest

from tests.campaign.mutants import PROJECT, Mutant, listed_mutants

MUTANTS = listed_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.group}: {mutant.old[:40]}")
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    assert mutant.source() != (PROJECT / mutant.file).read_text(encoding="utf-8")
    compile(mutant.source(), mutant.file, "exec")
    assert all((PROJECT / test).is_file() for test in mutant.tests)


def test_there_are_some_of_each_part() -> None:
    groups = [mutant.group for mutant in MUTANTS]
    assert all(groups.count(group) >= 6 for group in groups)
    assert {mutant.file for mutant in MUTANTS} >= {
        "models/filtering.py", "models/htcl.py", "datasets/splits.py", "datasets/draw_splits.py", "utils/sealed.py",
        "training/run_reader.py", "training/fold_result.py", "reports/significance.py",
    }  # fmt: skip


def test_a_mutant_that_no_longer_fits_is_told() -> None:
    for old in ("no such text", "import"):
        with pytest.raises(ValueError, match="times, expected once"):
            Mutant("HTCL", "models/htcl.py", old, "", ()).source()
