"""Trained models of a run, with all that they need to be used again on the same slides or on others."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.bag_cache import BagCache
from datasets.bags import feature_width
from datasets.checks import check_features
from datasets.descriptions import Descriptions
from datasets.folders import FeatureFolders
from datasets.model_texts import arrange_texts, read_texts
from datasets.splits import read_split_ids
from datasets.task import Slide, read_labels, read_slides
from models.build import KINDS, build_model, options_without_effect
from models.text_length import room_for
from models.vlms import load_text_side
from training.run_record import config_of, read_record
from utils.config import TRAINING_ONLY, Config
from utils.errors import Faults, UserError
from utils.files import read_tensors
from utils.interface import SlideModel
from utils.memory import cache_bytes
from utils.reproducibility import choose_device

CHECKPOINT = re.compile(r"s_(\d+)_checkpoint\.pt")


@dataclass(frozen=True)
class TrainedRun:
    """Models by the name of their fold, in evaluation mode on ``device``, and what they were trained on.

    slides: by slide_id. cache: their features. digests: of the features that were checked, by slide_id. parts: fold ->
    {slide_id: train, val or test}, of the folds whose split file lies beside the checkpoint.
    """

    name: str
    config: Config
    class_names: list[str]
    descriptions: Descriptions
    slides: Mapping[str, Slide]
    cache: BagCache
    digests: Mapping[str, str]
    models: Mapping[str, SlideModel]
    parts: Mapping[str, Mapping[str, str]]
    device: torch.device

    @property
    def folders(self) -> FeatureFolders:
        return self.cache.folders


def load_run(
    checkpoints: Sequence[Path], given: Mapping[str, Any], slide_ids: Sequence[str] | None = None, check: bool = True
) -> TrainedRun:
    """Load checkpoints of a run's folds.

    given: options of main.py, in place of those in the config.json beside the checkpoints or, for bare ones, all there
    are. slide_ids: the slides to use; those that are not in the table have no label. By default all of the table or,
    where a task has none, all with features. check: read and check the slides' features.

    Options without effect on the run's model are noted. Raises UserError with all faults: a checkpoint that is missing
    or does not fit, an option or an input other than the run's, slides that are faulty.
    """
    names = _fold_names(checkpoints)
    record = read_record(checkpoints[0], given, options_without_effect)
    config = config_of(record, given)
    for name in sorted(set(given) & options_without_effect(config) - TRAINING_ONLY):
        print(f"note: --{name} has no effect on {config.model_type} --variant {config.variant}")
    device = choose_device(config.device)
    kind, faults = KINDS[config.model_type], Faults()
    form = kind.form(config)
    tower = faults.maybe(load_text_side, config.feature_extractor, config.vlm_path) if kind.texts else None
    if tower and given.get("feature_dim") not in (None, tower.output_dim):
        faults.add(f"--feature_dim {given['feature_dim']}: the text features are {tower.output_dim} wide")
    if tower and record and tower.fingerprint() != record["inputs"]["text_tower"]:
        faults.add(f"--vlm_path {config.vlm_path}: not the vision-language model that the checkpoint was trained with")
    fits = room_for(tower, config.num_context_tokens) if tower else None
    texts = faults.maybe(_read_texts, config, kind.texts, record, given, fits)
    folders = FeatureFolders(
        Path(config.data_root_dir), config.task, config.feature_extractor, config.low_mag, config.high_mag
    )
    class_names = record["class_names"] if record else faults.maybe(_class_names, config, texts)
    slides = faults.maybe(_read_slides, config, folders, form, class_names, slide_ids) if class_names else None
    chosen = list(slides.values()) if slides else []
    width = tower.output_dim if tower else (record or {}).get("feature_dim") or config.feature_dim
    width = width or feature_width(folders, chosen, form)
    cache = BagCache(folders, width, cache_bytes(config.cache_gb), config.cache_half, form)
    digests = faults.maybe(check_features, cache, chosen) if check else None
    faults.raise_any()
    assert texts and class_names and slides
    models, parts = {}, {}
    for name, file in zip(names, checkpoints, strict=True):
        model = build_model(config, tower, texts.low_texts, texts.high_texts, len(class_names), width)
        saved = read_tensors(file)
        try:
            model.load_checkpoint(saved)
        except ValueError as error:
            raise UserError(
                f"{file}: does not fit --variant {config.variant} of --model_type {config.model_type} and its options: "
                f"{error}"
            ) from error
        models[name] = model.to(device).eval()
        split = file.with_name(f"splits_{name.removeprefix('fold ')}.csv")
        if split.is_file():
            parts[name] = {slide_id: part for part, ids in read_split_ids(split).items() for slide_id in ids}
    run_name = checkpoints[0].parent.resolve().name
    return TrainedRun(run_name, config, class_names, texts, slides, cache, digests or {}, models, parts, device)


def _fold_names(checkpoints: Sequence[Path]) -> list[str]:
    absent = [file for file in checkpoints if not file.is_file()]
    if absent:
        raise UserError([f"{file}: no such checkpoint; main.py writes s_<fold>_checkpoint.pt" for file in absent])
    names = [f"fold {match[1]}" if (match := CHECKPOINT.fullmatch(file.name)) else file.stem for file in checkpoints]
    if len({file.parent.resolve() for file in checkpoints}) > 1 or len(set(names)) < len(names):
        raise UserError(f"--checkpoint {' '.join(map(str, checkpoints))}: expected different folds of one run's folder")
    return names


def _read_texts(
    config: Config,
    form: str | None,
    record: Mapping[str, Any] | None,
    given: Mapping[str, Any],
    fits: Callable[[str], bool] | None,
) -> Descriptions:
    """The run's own; for a bare checkpoint those of the labels of the table or, where it has not got two, of all
    classes of the file."""
    if record is None:
        labels = _labels(config)
        return read_texts(config, form, labels if len(labels) > 1 else None, fits)
    own = arrange_texts(config, form, record)
    if "text_prompt" in given and read_texts(config, form, record["class_names"], fits) != own:
        raise UserError(f"--text_prompt {config.text_prompt}: not what the checkpoint was trained with")
    return own


def _labels(config: Config) -> list[str]:
    """Those of the table; none where there is no table and none was named."""
    return read_labels(config.csv_path()) if config.dataset_csv or config.csv_path().exists() else []


def _class_names(config: Config, texts: Descriptions | None) -> list[str]:
    """The classes of a bare checkpoint: those of the descriptions, or of a table with at least two."""
    if texts and texts.by_class:
        return list(texts.by_class)
    labels = _labels(config)
    if texts is not None and len(labels) < 2:
        raise UserError(
            f"{config.csv_path()}: the classes of a checkpoint without config.json are those of the table; found "
            f"{labels}, expected at least two labels"
        )
    return labels


def _read_slides(
    config: Config, folders: FeatureFolders, form: Any, class_names: list[str], slide_ids: Sequence[str] | None
) -> dict[str, Slide]:
    path = config.csv_path()
    if config.dataset_csv or path.exists():
        table = read_slides(path, class_names)[1]
    elif slide_ids is None:
        found = folders.slide_ids(form)
        print(f"note: {path} is not there; all {len(found)} slides with features are taken, without labels")
        table = {slide_id: Slide(slide_id, slide_id) for slide_id in found}
    else:
        table = {}
    if slide_ids is None:
        return table
    return {slide_id: table.get(slide_id) or Slide(slide_id, slide_id) for slide_id in slide_ids}
