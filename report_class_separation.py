"""Report how well descriptions tell classes and morphologies apart: mean cosines of texts, and pairs much alike."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from utils.arguments import Parser, add_config_option, add_option
from utils.config import OPTIONS, Config
from utils.errors import Faults, run_script
from utils.options import at_least, location


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("descriptions", type=location, help="JSON file of {class: {term: explanation}}")

    of_main = partial(add_config_option, parser)
    of_main("feature_extractor", help="whose text tower is used (default: plip)")
    of_main("vlm_path")
    of_main("data_root_dir", default=None, help="with --task: the folder of features, which must be of the same model")
    of_main("task", default=None, help="the task whose features are looked at")
    of_main("low_mag")
    of_main("high_mag")
    of_main("assume_model")
    of_main("num_low_mag_texts")
    of_main("num_high_mag_subtexts")
    add_option(
        parser, "threshold", type=at_least(-1, float, 2), default=0.95,
        help="cosine from which texts of two classes are listed (default: 0.95)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    if bool(options.data_root_dir) != bool(options.task):
        parser.error("--data_root_dir and --task name features together: expected both or neither")
    return options


def _config(options: argparse.Namespace) -> Config:
    """The options that main.py has too."""
    return Config(**{name: value for name, value in vars(options).items() if name in OPTIONS and value is not None})


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    import torch

    from datasets.descriptions import read_descriptions
    from models.class_separation import COLUMNS, alike_pairs, class_separation, encode_texts
    from models.morphology_separation import MORPHOLOGY_COLUMNS, morphology_separation
    from models.vlms import load_text_side
    from reports.separation_text import MORPHOLOGY_READING, pairs_text, separation_text
    from training.same_model import check_features_of_task

    num_low, num_subtexts = options.num_low_mag_texts, options.num_high_mag_subtexts
    faults = Faults()
    read = faults.attempt(read_descriptions, options.descriptions, None, num_low, num_subtexts)
    tower = faults.attempt(load_text_side, options.feature_extractor, options.vlm_path)
    if options.data_root_dir and tower:
        faults.attempt(check_features_of_task, _config(options), tower.value, lambda fault: print(f"warning: {fault}"))
    faults.raise_any()
    texts = read.value
    names = list(texts.by_class)
    features, num_cut = encode_texts(tower.value, texts.low_texts + texts.high_texts)
    low, high = features.split([len(texts.low_texts), len(texts.high_texts)])
    low, high = low.view(len(names), num_low, -1), high.view(len(names), num_low, num_subtexts, -1)
    terms = [list(entries) for entries in texts.by_class.values()]
    titles = [[f"{name}: {term}" for term in of_class] for name, of_class in zip(names, terms, strict=True)]
    alike = alike_pairs(torch.cat([low, high.flatten(1, 2)], dim=1), terms, options.threshold)
    pairs = [
        (pair.cosine, titles[pair.first[0]][pair.first[1]], titles[pair.second[0]][pair.second[1]]) for pair in alike
    ]

    print(f"{options.descriptions}: mean cosines of the texts, {options.feature_extractor}\n")
    print(f"{separation_text(class_separation(low, high).numpy(), names, COLUMNS)}\n")
    by_morphology = morphology_separation(low, high).numpy()
    print("by morphology (the paper's Table 6)\n")
    print(f"{separation_text(by_morphology, names, MORPHOLOGY_COLUMNS, MORPHOLOGY_READING)}\n")
    if num_cut:
        print(f"warning: {num_cut} texts are longer than the text tower reads, their ends have no effect")
    print(pairs_text(pairs, options.threshold))


if __name__ == "__main__":
    sys.exit(run_script(main))
