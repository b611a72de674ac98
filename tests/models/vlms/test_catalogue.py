"""The published models as the README and --list-models show them."""

import pytest

from models.vlms.catalogue import PUBLISHED, REFUSED, markdown_table
from tests.conftest import PROJECT, RunMain


def test_the_readme_holds_the_table() -> None:
    assert f"\n\n{markdown_table()}\n\n" in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_models_asked_for_are_there() -> None:
    asked = (
        "plip quiltnet conch keep biomedclip quiltnet-b16 pathgen-clip-b pathgen-clip-l pathclip patho-clip-l "
        "medsiglip musk omiclip clip-rn50"
    )
    assert {*asked.split()} <= {model.name for model in PUBLISHED}


@pytest.mark.parametrize("others", [[], ["--wsi-dir", "nowhere"]])
@pytest.mark.parametrize("option", ["--list-models", "--list_models"])
def test_extract_features_lists_them(run_main: RunMain, option: str, others: list[str]) -> None:
    code, out, _ = run_main([*others, option], "extract_features")
    assert code == 0
    lines = out.splitlines()
    for line, model in zip(lines[1:], PUBLISHED, strict=False):
        assert line.split("  ")[0] == model.name
        assert all(cell in line for cell in model.cells())
    assert all(any(line.startswith(name) for line in lines) for name in REFUSED)
