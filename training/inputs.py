"""What a run reads, loaded and checked: the steps that training, prediction and explanation share."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from datasets.bag_cache import BagCache
from datasets.bags import feature_width
from datasets.checks import CheckedFeatures, check_features
from datasets.descriptions import Descriptions
from datasets.features_model import FeaturesModel, read_features_model
from datasets.folders import FeatureFolders
from datasets.model_texts import read_texts
from datasets.splits import Split
from datasets.task import Slide
from models.build import KINDS, build_model
from models.text_length import room_for
from models.vlms import TextSide, load_text_side
from models.vlms.registry import Source
from training.run_record import RunRecord
from training.same_model import check_same_model
from training.unprojected import check_projected
from utils.config import Config
from utils.effects import has_effect
from utils.errors import Attempt, Fault, Faults
from utils.files import file_sha256, text_sha256
from utils.interface import SlideModel
from utils.memory import cache_bytes
from utils.model_identity import ModelIdentity
from utils.reproducibility import choose_device, make_deterministic, versions
from utils.sealed import json_sha256


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """What a run reads, checked.

    class_names: a label is an index into them. descriptions: texts of the classes; none where the model reads no texts,
    and then no tower either. slides: by slide_id, in the order of the table. cache: the features, as far as memory
    holds them. digests: of the features that were checked, by slide_id. features_model: the one that the features are
    of, None where their files do not say. splits: the folds to train; none of a trained
    run. notes: what the user should know, a line each.
    """

    config: Config
    class_names: list[str]
    descriptions: Descriptions
    slides: Mapping[str, Slide]
    tower: TextSide | None
    cache: BagCache
    digests: Mapping[str, str]
    features_model: ModelIdentity | None
    device: torch.device
    splits: Sequence[Split] = ()
    notes: list[str] = field(default_factory=list)

    def build_model(self) -> SlideModel:
        """The model on the device, newly initialised from the global generator."""
        texts = self.descriptions.low_texts, self.descriptions.high_texts
        model = build_model(self.config, self.tower, *texts, len(self.class_names), self.cache.feature_dim)
        return model.to(self.device)

    def record(self) -> RunRecord:
        """What config.json holds: options, classes, descriptions, fingerprints of what the folds read, of the features
        by slide as well, versions and threads."""
        config = self.config
        read = {"dataset_csv": file_sha256(config.csv_path())}
        if self.tower is not None:
            read["text_prompt"] = text_sha256(json.dumps(self.descriptions.by_class))
            read["text_tower"] = self.tower.fingerprint()
            read["tokenizer"] = tokens_sha256(self.tower, self.descriptions)
        if self.features_model is not None:
            read["features_model"] = self.features_model.sha256
        features: dict[str, str] = {}
        for split in self.splits:
            read[f"splits_{split.fold}"] = file_sha256(config.split_path(split.fold))
            of_fold = {slide.slide_id: self.digests[slide.slide_id] for _, slides in split.parts() for slide in slides}
            lines = [f"{slide_id} {digest}" for slide_id, digest in sorted(of_fold.items())]
            read[f"features_{split.fold}"] = text_sha256("\n".join(lines))
            features |= of_fold
        return RunRecord(
            options=config.to_dict(),
            class_names=self.class_names,
            feature_dim=self.cache.feature_dim,
            descriptions=self.descriptions.by_class,
            inputs=read,
            versions={**versions(), **self._revision()},
            num_threads=torch.get_num_threads(),
            features=dict(sorted(features.items())),
            features_model=self.features_model,
        )

    def _revision(self) -> dict[str, str]:
        """The commit of a vision-language model that is from the hub, by its hub id."""
        origin = self.tower.origin if self.tower is not None else None
        return {origin.told: origin.revision} if origin and origin.revision else {}


def tokens_sha256(tower: TextSide, descriptions: Descriptions) -> str:
    """A digest over what a tower's tokenizer makes of the texts of a run, and over its special tokens."""
    tokens = tower.tokenize([*descriptions.low_texts, *descriptions.high_texts])
    return json_sha256([list(tower.special_tokens), tokens])


def is_offline() -> bool:
    """Whether the libraries that fetch models were told not to use the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)


class InputReader:
    """The steps that a run to be trained and a trained one share.

    device, tower: attempts; the tower is on the device, and None where the model reads no texts. What is wrong is
    gathered in ``faults``.
    """

    def __init__(self, config: Config, faults: Faults):
        make_deterministic()
        self.config, self.faults = config, faults
        self.form = KINDS[config.model_type].form(config)
        self.folders = FeatureFolders.of(config)
        self.device = faults.check("device", choose_device, config.device)
        self.tower: Attempt[TextSide | None] = Attempt(None)
        if config.text_form:
            self.tower = faults.check("vision-language model", self._load_tower)

    def _load_tower(self) -> TextSide | None:
        tower = load_text_side(self.config.feature_extractor, self.config.vlm_path).to(self.device.value)
        source = self._source()
        self.faults.tell(f"text features {tower.output_dim} wide, up to {tower.room} tokens a text, from {source}")
        if not (self.config.vlm_path and Path(self.config.vlm_path).exists()) and not is_offline():
            found = "no local files are named: this machine's copy of the hub's files, or the network, gave the model"
            mend = "name a local folder with --vlm_path, or export HF_HUB_OFFLINE=1 to read this machine's copy alone"
            self.faults.warn(Fault("vlm.not_local", "", found, mend=mend))
        return tower

    def _source(self) -> Source:
        return Source(self.config.feature_extractor, self.config.vlm_path)

    def read_texts(self, class_names: Sequence[str] | None) -> Descriptions:
        """The texts of some classes (None: of all in the file), in the form of the model. Raises UserError."""
        tower = self.tower.value if self.tower else None
        has_context = has_effect(self.config, "num_context_tokens")
        fits = room_for(tower, self.config.num_context_tokens) if tower and has_context else None
        return read_texts(self.config, self.config.text_form, class_names, fits)

    def check_features(
        self,
        cache: BagCache,
        slides: Sequence[Slide],
        warn: Callable[[Fault], None],
        checked: Path | None = None,
        verify: bool = False,
        trained_with: ModelIdentity | None = None,
    ) -> CheckedFeatures:
        """``datasets.checks.check_features``, and that the features are of the model whose texts are read, and of the
        one that a trained run was trained with. Raises UserError, with one fault where they are from before the
        projection of that model."""
        tower = self.tower.value if self.tower else None
        if tower:
            width = feature_width(self.folders, slides, cache.form)
            check_projected(self.folders, width, self._source(), tower.output_dim)
        found = check_features(cache, slides, checked, verify, warn)
        self._check_same_model(found.model, warn, trained_with)
        return found

    def check_model(
        self,
        cache: BagCache,
        slides: Sequence[Slide],
        warn: Callable[[Fault], None],
        trained_with: ModelIdentity | None,
    ) -> None:
        """As ``check_features``, of the model alone: no feature is read."""
        self._check_same_model(read_features_model(self.folders, slides, cache.form), warn, trained_with)

    def _check_same_model(
        self, found: FeaturesModel, warn: Callable[[Fault], None], trained_with: ModelIdentity | None
    ) -> None:
        check_same_model(self.config, self.tower.value if self.tower else None, found, warn, trained_with)

    def open_cache(self, slides: Sequence[Slide], known_width: int | None = None) -> BagCache:
        """An empty cache of features as wide as the text tower reads them or, without one, as ``known_width`` or the
        files of the slides say. Another ``--feature_dim`` is a fault."""
        tower, given = self.tower.value if self.tower else None, self.config.feature_dim
        width = tower.output_dim if tower else known_width or feature_width(self.folders, slides, self.form)
        if width and given not in (None, width):
            source = "text features of this model" if tower else "features"
            expected = f"{width}, the width of the {source}"
            self.faults.add(Fault("option.value", f"--feature_dim {given}", "another width", expected))
        capacity = cache_bytes(self.config.cache_gb)
        return BagCache(self.folders, width or given, capacity, self.config.cache_half, self.form)
