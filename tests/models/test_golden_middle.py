"""``--variant released --class_token_position middle`` against what the released code returned (../shared/golden)."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from datasets.bags import read_bag
from datasets.descriptions import read_descriptions
from datasets.folders import FeatureFolders
from datasets.task import read_slides
from models.build import build_model
from models.vlms import load_text_side
from tests.support.faults import expect_faults
from tests.support.golden_case import GoldenCase
from utils.config import Config


def test_probabilities_and_losses(golden: Path) -> None:
    folder = golden / "visible_middle"
    told = json.loads((folder / "settings.json").read_text())
    config = Config(
        variant="released", class_token_position=told["pos"], class_specific_token=told["spec"],
        filter_alpha=told["alpha"], num_low_mag_texts=told["n_low"], num_high_mag_subtexts=told["n_sub"],
        num_context_tokens=told["nctx"],
    )  # fmt: skip
    class_names, slides = read_slides(folder / "golden.csv")
    texts = read_descriptions(folder / "golden.json", class_names, told["n_low"], told["n_sub"])
    tower = load_text_side("plip", str(folder / "tinyclip"))
    model = build_model(config, tower, texts.low_texts, texts.high_texts, len(class_names)).eval()
    model.load_checkpoint(torch.load(folder / "s_0_checkpoint.pt", weights_only=True))
    expected = pd.read_csv(folder / "released.csv").set_index("slide_id")
    assert class_names == told["classes"] and set(slides) == set(expected.index)
    for slide in slides.values():
        with torch.no_grad():
            output = model(read_bag(FeatureFolders(folder, "case", "plip"), slide, tower.output_dim))
        row = expected.loc[slide.slide_id]
        probabilities = output.logits.softmax(0).tolist()
        assert probabilities == pytest.approx([row[f"prob_{name}"] for name in class_names], abs=1e-5)
        assert float(output.loss) == pytest.approx(row["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("case", "position"), [("visible_2class", "front"), ("visible_conch", "front"), ("visible_conch", "middle")]
)
def test_places_with_which_the_released_code_fails(
    golden: Path, monkeypatch: pytest.MonkeyPatch, case: str, position: str
) -> None:
    given = GoldenCase(golden / case, monkeypatch)
    config = Config(**{**given.config.to_dict(), "class_token_position": position})
    texts = given.texts.low_texts, given.texts.high_texts
    with expect_faults("prompt.not_released") as faults:
        build_model(config, given.tower, *texts, len(given.class_names))
    assert (position in faults[0].where and "middle" in faults[0].expected) or case == "visible_conch"
    paper = Config(**{**config.to_dict(), "variant": "paper"})
    assert build_model(paper, given.tower, *texts, len(given.class_names)) is not None
