"""Train a model on every fold of a task, test its best epoch, and write results.csv."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils.config import Config, add_options
from utils.errors import Faults, UserError, run_script

if TYPE_CHECKING:
    import torch

    from datasets.bag_cache import BagCache
    from datasets.splits import Split
    from datasets.task import Task
    from models.vlms import TextSide
    from training.run_folder import FoldResult, RunFolder
    from utils.interface import SlideModel

SLIDES_OF_A_QUICK_TRY = 2


def parse(argv: Sequence[str] | None) -> tuple[Config, set[str]]:
    """The options, and the names of those given."""
    usage = "main.py --task TASK --data_root_dir DIR [options]"
    parser = argparse.ArgumentParser(usage=usage, description=__doc__, allow_abbrev=False)
    add_options(parser)
    given = vars(parser.parse_args(argv))
    config = Config(**given)
    absent = [f"--{name}" for name in ("task", "data_root_dir") if not getattr(config, name)]
    if absent:
        parser.error(f"{' and '.join(absent)} missing")
    if Path(config.results_dir).is_file():
        parser.error(f"--results_dir {config.results_dir}: is a file, expected a folder")
    if not config.folds() or config.k_end > config.k:
        parser.error(f"--k_start {config.k_start} --k_end {config.k_end}: expected folds from 0 up to {config.k}")
    if not 0 < config.label_frac <= 1:
        parser.error(f"--label_frac {config.label_frac}: expected a share above 0, at most 1")
    return config, set(given)


class RunInputs(NamedTuple):
    """What a run needs: the task, its folds, the text tower where the model reads texts, the features, as far as memory
    holds them, their digests by slide, and their width."""

    task: "Task"
    splits: list["Split"]
    tower: "TextSide | None"
    cache: "BagCache"
    digests: dict[str, str]
    feature_dim: int

    def build_model(self, config: Config) -> "SlideModel":
        """The model, newly initialised from the global generator."""
        from models.build import build_model

        texts = self.task.descriptions.low_texts, self.task.descriptions.high_texts
        return build_model(config, self.tower, *texts, len(self.task.class_names), self.feature_dim)


def load_inputs(config: Config) -> RunInputs:
    """Read and check everything a run needs. Raises UserError with all faults at once."""
    from datasets.bag_cache import BagCache
    from datasets.bags import feature_width
    from datasets.checks import check_features, check_root
    from datasets.folders import FeatureFolders
    from datasets.model_texts import read_texts
    from datasets.splits import build_split, read_split_ids
    from datasets.task import Task, read_slides
    from models.build import KINDS
    from models.text_length import room_for
    from models.vlms import load_text_side
    from utils.memory import cache_bytes

    faults = Faults()
    kind = KINDS[config.model_type]
    folders = FeatureFolders(
        Path(config.data_root_dir), config.task, config.feature_extractor, config.low_mag, config.high_mag
    )
    tower = faults.maybe(load_text_side, config.feature_extractor, config.vlm_path) if kind.texts else None
    split_command = f"python create_splits.py --task {config.task} --k {config.k} --few_shot_num {config.few_shot_num}"
    ids = {fold: faults.maybe(read_split_ids, config.split_path(fold), split_command) for fold in config.folds()}
    table = faults.maybe(read_slides, config.csv_path())
    class_names, slides = table or (None, {})
    descriptions = faults.maybe(
        read_texts, config, kind.texts, class_names, room_for(tower, config.num_context_tokens) if tower else None
    )
    if class_names is None:
        faults.maybe(check_root, folders)
        raise UserError(faults.found)
    splits = [
        faults.maybe(build_split, config.split_path(fold), fold, members, slides, class_names)
        for fold, members in ids.items()
        if members
    ]
    wanted = {slide_id for members in ids.values() if members for part in members.values() for slide_id in part}
    memory = Path(config.results_dir) / config.task / config.feature_extractor / "checked_features.json"
    checked = [slides[slide_id] for slide_id in slides if slide_id in wanted]
    form = kind.form(config)
    width = tower.output_dim if tower else feature_width(folders, checked, form)
    if width and config.feature_dim not in (None, width):
        source = "text features of this model" if tower else "features"
        faults.add(f"--feature_dim {config.feature_dim}: the {source} are {width} wide")
    cache = BagCache(folders, width, cache_bytes(config.cache_gb), config.cache_half, form)
    digests = faults.maybe(check_features, cache, checked, memory)
    faults.raise_any()
    assert width and digests and descriptions
    task = Task(config.task, class_names, slides, descriptions, folders)
    return RunInputs(task, [split for split in splits if split], tower, cache, digests, width)


def choose_slides(config: Config, splits: list["Split"]) -> list["Split"]:
    """The folds as the options narrow them."""
    from datasets.splits import take_few, take_share

    if config.label_frac < 1:
        splits = [take_share(split, config.label_frac, config.seed) for split in splits]
    return [take_few(split, SLIDES_OF_A_QUICK_TRY) for split in splits] if config.testing else splits


def record_of(config: Config, run_inputs: RunInputs, splits: list["Split"]) -> dict[str, Any]:
    """What config.json holds: options, classes, descriptions, fingerprints of the inputs, versions."""
    from utils.files import file_sha256, text_sha256
    from utils.reproducibility import versions

    task, tower, digests = run_inputs.task, run_inputs.tower, run_inputs.digests
    inputs = {"dataset_csv": file_sha256(config.csv_path())}
    if tower is not None:
        inputs["text_prompt"] = text_sha256(json.dumps(task.descriptions.by_class))
        inputs["text_tower"] = tower.fingerprint()
    for split in splits:
        inputs[f"splits_{split.fold}"] = file_sha256(config.split_path(split.fold))
        slide_ids = sorted(slide.slide_id for _, slides in split.parts() for slide in slides)
        inputs[f"features_{split.fold}"] = text_sha256("\n".join(f"{name} {digests[name]}" for name in slide_ids))
    return {
        "options": config.to_dict(),
        "class_names": task.class_names,
        "feature_dim": run_inputs.feature_dim,
        "descriptions": task.descriptions.by_class,
        "inputs": inputs,
        "versions": versions(),
    }


def run_fold(
    config: Config, run_inputs: RunInputs, split: "Split", run: "RunFolder", device: "torch.device"
) -> "FoldResult":
    """Train one fold, test its best epoch, and write what both gave."""
    import pandas as pd

    from datasets.bag_cache import BagLoader
    from training.evaluation import evaluate
    from training.loop import EpochSampler, fit
    from training.run_folder import FoldResult
    from utils.files import write_text
    from utils.reproducibility import seed_everything

    if not config.resume:
        run.clear(split.fold)
    write_text(run.split(split.fold), split.to_csv())
    seed_everything(config.seed)
    task, cache = run_inputs.task, run_inputs.cache
    model = run_inputs.build_model(config).to(device)
    sampler = EpochSampler([slide.label for slide in split.train], config.seed, config.weighted_sample)
    cache.prefer([*split.train, *split.val])
    loaders = {
        name: BagLoader(
            cache, slides, sampler if name == "train" else None, config.num_workers, pin=device.type == "cuda"
        )
        for name, slides in split.parts()
    }
    progress = fit(
        model, loaders["train"], loaders["val"], sampler, config, run.training(split.fold), f"fold {split.fold}"
    )
    tables = {}
    for name in ("val", "test"):
        tables[name] = evaluate(model, loaders[name], device, config.precision)
    predictions = pd.concat(
        [tables[name].table(task.class_names).assign(split=name).set_index("split") for name in tables]
    )
    write_text(run.predictions(split.fold), predictions.to_csv())
    val, test = tables["val"], tables["test"]
    result = FoldResult.of(
        split.fold, test.metrics(), val.metrics(), test.hit_ratio, progress.best_epoch, progress.epochs
    )
    run.finish(result)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    config, given = parse(argv)

    from datasets.model_texts import text_source
    from datasets.splits import patient_audit
    from models.build import KINDS, options_without_effect
    from training.run_folder import RunFolder
    from utils.reproducibility import choose_device

    device = choose_device(config.device)
    without_effect = options_without_effect(config)
    for name in sorted(given & without_effect):
        print(f"note: --{name} has no effect on {config.model_type} --variant {config.variant}")
    run_inputs = load_inputs(config)
    task, splits = run_inputs.task, run_inputs.splits
    if run_inputs.tower is not None:
        run_inputs.tower.to(device)
    if len(shots := {count for split in splits for count in split.shots()} - {config.few_shot_num}):
        print(
            f"warning: --few_shot_num is {config.few_shot_num}, but classes with {', '.join(map(str, sorted(shots)))} "
            "training slides were found; the run's folder carries the former"
        )
    splits = choose_slides(config, splits)
    if sentence := patient_audit(splits):
        print(f"warning: {sentence}")
    for note in run_inputs.build_model(config).notes():
        print(f"warning: {note}")
    kind = KINDS[config.model_type]
    if kind.texts and kind.texts != "HiVE_MIL":
        print(f"texts of {config.model_type}: {text_source(config, kind.texts)}")
    print(
        f"task {task.name}: classes {', '.join(task.class_names)}; {len(task.slides)} slides; folds "
        f"{', '.join(str(split.fold) for split in splits)}; {config.model_type} ({config.variant}) on {device}"
    )
    if config.dry_run:
        print("dry run: all checks passed")
        return
    run = RunFolder(config.run_path())
    with run.lock("config", wait=True):
        run.open(record_of(config, run_inputs, splits), without_effect)
    finished = {split.fold: result for split in splits if (result := run.finished(split.fold))}
    if finished and not config.resume:
        raise UserError(
            f"{run.path}: fold {', '.join(map(str, finished))} of this run is finished; keep it with --resume, or name "
            "another --results_dir, or move that folder away. Nothing was changed"
        )
    for split in splits:
        result = finished.get(split.fold)
        if result is None:
            try:
                with run.lock(f"fold_{split.fold}"):
                    result = run_fold(config, run_inputs, split, run, device)
            except KeyboardInterrupt:
                print("finished epochs are kept: --resume goes on behind them", file=sys.stderr)
                raise
        print(
            f"fold {split.fold}: test auc {result.test_auc:.4f} f1 {result.test_f1:.4f} acc {result.test_acc:.4f} "
            f"(best epoch {result.best_epoch + 1} of {result.epochs})"
        )
    table = run.summarise([split.fold for split in splits], config.k)
    print(f"\n{table.to_string(float_format='{:.4f}'.format)}\n\nresults in {run.path}")


if __name__ == "__main__":
    sys.exit(run_script(main))
