"""Predict slides with a trained checkpoint: one of main.py, or a bare one (of the released code, say)."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config import CIRCUMSTANCES, TRAINING_ONLY, Config, add_options
from utils.errors import Faults, UserError, run_script

if TYPE_CHECKING:
    from datasets.descriptions import Descriptions

# what may differ from the run that made the checkpoint
FREE = CIRCUMSTANCES | TRAINING_ONLY | {"task", "precision"}


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Checkpoint and output, and the options of main.py that were given."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Settings come from config.json beside the checkpoint; without one, from main.py's options below.",
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="s_<fold>_checkpoint.pt")
    parser.add_argument("--output", type=Path, default=Path("predictions.csv"), help="CSV to write")
    add_options(parser.add_argument_group("options of main.py"))
    namespace = parser.parse_args(argv)
    given = {name: value for name, value in vars(namespace).items() if name not in ("checkpoint", "output")}
    return namespace, given


def read_record(checkpoint: Path, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config.json beside the checkpoint; None beside a bare one. Raises UserError where an option given differs
    from it and may not."""
    from utils.files import read_json

    file = checkpoint.with_name("config.json")
    if not file.exists():
        return None
    record = read_json(file)
    if not isinstance(record, dict) or not {"options", "class_names", "descriptions", "inputs"} <= set(record):
        raise UserError(f"{file}: not a config.json of main.py; move it away to use the checkpoint without it")
    options = record["options"]
    unknown = sorted(set(options) - {item.name for item in fields(Config)})
    if unknown:
        raise UserError(f"{file}: unknown options {', '.join(unknown)}; it was written by another version")
    faults = [
        f"--{name} {value}: the checkpoint was trained with {options.get(name)!r} ({file})"
        for name, value in given.items()
        if name not in FREE and value != options.get(name)
    ]
    if faults:
        raise UserError(faults)
    return record


def config_of(record: Mapping[str, Any] | None, given: Mapping[str, Any]) -> Config:
    """The run's options with those given in place of its own. The run's table of slides serves its own task only."""
    options = dict(record["options"]) if record else {}
    if given.get("task", options.get("task")) != options.get("task"):
        options["dataset_csv"] = None
    config = Config(**{**options, **given})
    absent = [f"--{name}" for name in ("task", "data_root_dir") if not getattr(config, name)]
    if absent:
        raise UserError(f"{' and '.join(absent)} missing: needed with a checkpoint that has no config.json beside it")
    return config


def read_classes(config: Config, record: Mapping[str, Any] | None, given: Mapping[str, Any]) -> "Descriptions":
    """The classes and their descriptions: the run's own; for a bare checkpoint the labels of the table, or, where it
    has not got two, all classes of the prompt file."""
    from datasets.descriptions import arrange_descriptions, read_descriptions
    from datasets.task import read_labels

    form = config.num_low_mag_texts, config.num_high_mag_subtexts, config.text_format
    if record is None:
        labels = read_labels(config.csv_path())
        return read_descriptions(config.prompt_path(), labels if len(labels) > 1 else None, *form)
    own = arrange_descriptions(record["descriptions"], record["class_names"], *form)
    if "text_prompt" in given and read_descriptions(config.prompt_path(), record["class_names"], *form) != own:
        raise UserError(f"--text_prompt {config.text_prompt}: not what the checkpoint was trained with")
    return own


def main(argv: Sequence[str] | None = None) -> None:
    options, given = parse(argv)
    from datasets.bag_cache import BagCache, BagLoader
    from datasets.checks import check_features
    from datasets.layout import FeatureFolders
    from datasets.task import NO_LABEL, read_slides
    from models.build import build_model
    from models.text_towers import load_text_tower
    from utils.evaluation import evaluate
    from utils.files import read_tensors, tensors_sha256, write_text
    from utils.memory import cache_bytes
    from utils.reproducibility import choose_device

    faults = Faults()
    if options.output.is_dir():
        raise UserError(f"--output {options.output}: is a folder, expected the name of a CSV file")
    if not options.checkpoint.is_file():
        raise UserError(f"{options.checkpoint}: no such checkpoint; main.py writes s_<fold>_checkpoint.pt")
    record = read_record(options.checkpoint, given)
    config = config_of(record, given)
    device = choose_device(config.device)
    if useless := sorted(set(given) & TRAINING_ONLY):
        print(f"note: no effect on predictions: {', '.join(f'--{name}' for name in useless)}")
    tower = faults.attempt(load_text_tower, config.feature_extractor, config.vlm_path)
    if tower and given.get("feature_dim") not in (None, tower.output_dim):
        faults.add(f"--feature_dim {given['feature_dim']}: the text features are {tower.output_dim} wide")
    if tower and record and tensors_sha256(tower.state_dict()) != record["inputs"]["text_tower"]:
        faults.add(f"--vlm_path {config.vlm_path}: not the vision-language model that the checkpoint was trained with")
    descriptions = faults.attempt(read_classes, config, record, given)
    class_names = record["class_names"] if record else list(descriptions.by_class) if descriptions else None
    table = faults.attempt(read_slides, config.csv_path(), class_names) if class_names else None
    folders = FeatureFolders(
        Path(config.data_root_dir), config.task, config.feature_extractor, config.low_mag, config.high_mag
    )
    slides = list(table[1].values()) if table else []
    cache = BagCache(folders, tower.output_dim if tower else None, cache_bytes(config.cache_gb), config.cache_half)
    faults.attempt(check_features, cache, slides)
    faults.raise_any()
    assert tower and descriptions and class_names

    model = build_model(config, tower, descriptions.low_texts, descriptions.high_texts, len(class_names))
    saved = read_tensors(options.checkpoint)
    try:
        model.load_checkpoint(saved)
    except ValueError as error:
        raise UserError(
            f"{options.checkpoint}: does not fit --variant {config.variant} and its options: {error}"
        ) from error
    print(f"classes: {', '.join(class_names)}")
    if config.dry_run:
        print("dry run: all checks passed")
        return
    bags = BagLoader(cache, slides, threads=config.num_workers, pin=device.type == "cuda")
    predictions = evaluate(model.to(device), bags, device, config.precision)
    write_text(options.output, predictions.table(class_names).to_csv(index=False))
    labelled = predictions.labels != NO_LABEL
    if labelled.any():
        correct = predictions.probabilities.argmax(1)[labelled] == predictions.labels[labelled]
        print(f"{correct.sum()} of {labelled.sum()} labelled slides are predicted as labelled")
    print(f"{len(slides)} slides in {options.output}")


if __name__ == "__main__":
    sys.exit(run_script(main))
