"""Report how well descriptions tell the classes apart: mean cosines of their text features, and pairs much alike."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from utils.config import Config, add_option, at_least
from utils.errors import Faults, run_script

MOST_PAIRS = 20
READING = (
    "Read: within should exceed between at both scales, and of a low text's cosines with high ones, own should exceed "
    "same class, and that between."
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("descriptions", type=Path, help="JSON file of {class: {term: explanation}}")

    add = partial(add_option, parser)
    count: dict[str, Any] = {"type": at_least(1), "metavar": "N"}
    add("feature-extractor", default=Config.feature_extractor, help="whose text tower is used (default: plip)")
    add("vlm-path", help="its Hugging Face CLIP folder, CONCH pytorch_model.bin, or hub id")
    add("num-low-mag-texts", default=Config.num_low_mag_texts, **count, help="low descriptions a class (default: 4)")
    add("num-high-mag-subtexts", default=Config.num_high_mag_subtexts, **count, help="high ones a low one (default: 3)")
    add("threshold", type=float, default=0.95, help="cosine from which texts of two classes are listed (default: 0.95)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    import pandas as pd
    import torch

    from datasets.descriptions import read_descriptions
    from models.class_separation import COLUMNS, alike_pairs, class_separation, encode_texts
    from models.vlms import load_text_side

    num_low, num_subtexts = options.num_low_mag_texts, options.num_high_mag_subtexts
    faults = Faults()
    texts = faults.maybe(read_descriptions, options.descriptions, None, num_low, num_subtexts)
    tower = faults.maybe(load_text_side, options.feature_extractor, options.vlm_path)
    faults.raise_any()
    assert texts and tower
    names = list(texts.by_class)
    features, num_cut = encode_texts(tower, texts.low_texts + texts.high_texts)
    low, high = features.split([len(texts.low_texts), len(texts.high_texts)])
    low, high = low.view(len(names), num_low, -1), high.view(len(names), num_low, num_subtexts, -1)

    table = pd.DataFrame(
        class_separation(low, high).numpy(), index=[*names, "all"], columns=pd.MultiIndex.from_tuples(COLUMNS)
    )
    print(f"{options.descriptions}: mean cosines of the texts, {options.feature_extractor}\n")
    print(f"{table.to_string(float_format='{:.4f}'.format, na_rep='-')}\n\n{READING}\n")
    if num_cut:
        print(f"warning: {num_cut} texts are longer than the text tower reads, their ends have no effect")
    terms = [list(entries) for entries in texts.by_class.values()]
    pairs = alike_pairs(torch.cat([low, high.flatten(1, 2)], dim=1), terms, options.threshold)
    print(f"pairs of two classes with a cosine of {options.threshold:g} or more, or with the same term: {len(pairs)}")
    for pair in pairs[:MOST_PAIRS]:
        (first, one), (second, other) = pair.first, pair.second
        print(f"  {pair.cosine:.4f}  {names[first]}: {terms[first][one]}  |  {names[second]}: {terms[second][other]}")
    if len(pairs) > MOST_PAIRS:
        print(f"  ... and {len(pairs) - MOST_PAIRS} more")


if __name__ == "__main__":
    sys.exit(run_script(main))
