"""From what a user says of a model to its two sides: both are loaded from the same files, or nothing is."""

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from models.vlms.catalogue import CLIP, OPEN_CLIP, Published, find_published, why_refused
from models.vlms.places import HOW_TO_DOWNLOAD, SUFFIXES, ModelFiles, files_of_hub, files_of_path, model_type_of
from models.vlms.sides import Family, ImageSide, Origin, Side, TextSide
from utils.errors import Fault, UserError
from utils.image_head import ImageHead

# modules of this package: the first family that recognises the names of a model's weights has it
MODULES = (
    "conch",
    "keep",
    "musk",
    "open_clip_bert",
    "open_clip",
    "siglip",
    "dual_encoder",
    "clip",
)
FAMILIES: tuple[Family, ...] = tuple(import_module(f"models.vlms.{name}").FAMILY for name in MODULES)
MODEL_TYPES = {model_type: family for family in FAMILIES for model_type in family.model_types}

ARCHITECTURE_PREFIX = "open_clip:"
HUB_PREFIX = "hf-hub:"
HOW_TO_NAME = (
    "name it with --vlm_path (the folder, the weight file or the hub id OWNER/NAME of a model), or take a published "
    "one: python extract_features.py --list-models"
)
ONE_MODEL_IN_TWO_FORMS = {CLIP, OPEN_CLIP}

AnySide = TypeVar("AnySide", bound=Side)


@dataclass(frozen=True)
class Source:
    """What the user says of a model: ``--feature_extractor`` and ``--vlm_path``."""

    feature_extractor: str
    vlm_path: str | None = None

    def __str__(self) -> str:
        given = f"--feature_extractor {self.feature_extractor}"
        return f"{given} --vlm_path {self.vlm_path}" if self.vlm_path else given

    def entry(self) -> Published | None:
        """The published model that either option names."""
        named = find_published(self.feature_extractor)
        return named or (find_published(self.vlm_path.removeprefix(HUB_PREFIX)) if self.vlm_path else None)


# ---- files -----------------------------------------------------------------------------------------------------------


def find_model(source: Source) -> ModelFiles:
    """The files of a model. Raises UserError where the model is not known, refused, or not there."""
    for said in (source.feature_extractor, source.vlm_path or ""):
        if why := why_refused(said.removeprefix(HUB_PREFIX)):
            raise UserError(Fault("vlm.refused", str(source), f"this model cannot be used: {why}", mend=HOW_TO_NAME))
    if source.feature_extractor.startswith(ARCHITECTURE_PREFIX):
        return _checkpoint_of_architecture(source)
    entry = source.entry()
    if entry:
        _family_named(entry.family).check_installed()
    if source.vlm_path is None:
        return _default_files(source, entry)
    path = Path(source.vlm_path)
    if path.exists():
        return files_of_path(path, entry, MODEL_TYPES)
    hub_id = source.vlm_path.removeprefix(HUB_PREFIX)
    if path.is_absolute() or hub_id.startswith(".") or hub_id.count("/") != 1 or path.suffix in SUFFIXES:
        expected = "the folder or the weight file of a model, or a hub id (OWNER/NAME)"
        mend = HOW_TO_DOWNLOAD.format(entry.hub) if entry else ""
        where = f"--vlm_path {source.vlm_path}"
        raise UserError(Fault("vlm.missing", where, "no such folder or file", expected, mend))
    is_open_clip = source.vlm_path.startswith(HUB_PREFIX)
    return files_of_hub(hub_id, entry, () if is_open_clip else MODEL_TYPES)


def _default_files(source: Source, entry: Published | None) -> ModelFiles:
    """The model of a name alone: from the project's own folder, where the family has one, else from the hub."""
    if entry is None:
        raise UserError(Fault("vlm.unknown", str(source), "its vision-language model is not known", mend=HOW_TO_NAME))
    family = _family_named(entry.family)
    if family.own_weights:
        return files_of_path(family.own_weights(), entry, MODEL_TYPES)
    return files_of_hub(entry.hub, entry, MODEL_TYPES)


def _checkpoint_of_architecture(source: Source) -> ModelFiles:
    path = Path(source.vlm_path or "")
    if not path.is_file():
        expected = "--vlm_path with the path of one"
        raise UserError(Fault("vlm.missing", str(source), "no checkpoint file", expected=expected))
    architecture = source.feature_extractor.removeprefix(ARCHITECTURE_PREFIX)
    return ModelFiles(str(path), path.parent, (path,), architecture=architecture)


# ---- families --------------------------------------------------------------------------------------------------------


def _family_named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def family_of(files: ModelFiles) -> Family:
    """The family of a model's files. Raises UserError where there is none, or where the name says another."""
    if files.architecture:
        return _family_named(OPEN_CLIP)
    names = files.tensors.keys()
    said = _family_named(files.entry.family) if files.entry else None
    if said and said.recognises(names):
        return said
    found = next((family for family in FAMILIES if family.recognises(names)), None)
    if found is None:
        model_type = model_type_of(files.folder)
        found = MODEL_TYPES.get(model_type or "")
        if found is None:
            raise UserError(_unknown_weights(files, model_type))
    if said and said != found and not {said.name, found.name} <= ONE_MODEL_IN_TWO_FORMS:
        assert files.entry is not None
        raise UserError(
            Fault(
                "vlm.other_family",
                files.told,
                f"a model of the family {found.name}",
                expected=f"{said.name}, as {files.entry.name} is",
                mend="name the model that the files are of with --feature_extractor, or its own files with --vlm_path",
            )
        )
    return found


def _unknown_weights(files: ModelFiles, model_type: str | None) -> Fault:
    known = ", ".join(family.name for family in FAMILIES)
    if model_type is not None and model_type not in MODEL_TYPES:
        where, found = str(files.folder / "config.json"), f"model_type is {model_type!r}"
        return Fault("vlm.other_type", where, found, expected=" or ".join(map(repr, MODEL_TYPES)))
    names = ", ".join(sorted(files.tensors)[:3])
    found = f"{len(files.tensors)} weights that are no known model's ({names}, ...)"
    return Fault("vlm.unknown_weights", files.told, found, expected=f"a model of one of: {known}", mend=HOW_TO_NAME)


# ---- sides -----------------------------------------------------------------------------------------------------------


def load_text_side(feature_extractor: str, vlm_path: str | None = None) -> TextSide:
    """The text side of the vision-language model that a feature extractor belongs to.

    feature_extractor: a published name (models/vlms/catalogue.py), or any together with vlm_path. vlm_path: the folder,
    weight file or hub id of the model. Returns a frozen module in evaluation mode, on the CPU, in float32. Raises
    UserError where it cannot be had.
    """
    files = find_model(Source(feature_extractor, vlm_path))
    family = family_of(files)
    family.check_installed()
    return _finished(family.load_text(files), family, files)


def load_image_side(feature_extractor: str, vlm_path: str | None = None) -> ImageSide:
    """The image side of the same model. Arguments, state and faults are those of ``load_text_side``."""
    files = find_model(Source(feature_extractor, vlm_path))
    family = family_of(files)
    family.check_installed()
    return _finished(family.load_image(files), family, files)


def load_head(feature_extractor: str, vlm_path: str | None = None, option: str = "--vlm_path") -> ImageHead:
    """What the image side of the same model does to its tower's own features. Files that are named need no package of
    their family, and hold no more than the projection.

    option: the name of the option that gave ``vlm_path``, for faults. Raises UserError as ``load_text_side``, and where
    there is no projection.
    """
    source = Source(feature_extractor, vlm_path)
    try:
        path = Path(vlm_path) if vlm_path else None
        files = files_of_path(path, source.entry(), MODEL_TYPES) if path and path.exists() else find_model(source)
        return family_of(files).load_head(files)
    except UserError as error:
        raise UserError([_of_option(fault, option) for fault in error.faults]) from error


def _of_option(fault: Fault, option: str) -> Fault:
    """A fault that names another option in the place of ``--vlm_path``."""
    where, mend = (text.replace("--vlm_path", option) for text in (fault.where, fault.mend))
    return replace(fault, where=where, mend=mend)


def _finished(side: AnySide, family: Family, files: ModelFiles) -> AnySide:
    name = files.entry.name if files.entry else ""
    side.origin = Origin(family.name, name, files.told, files.revision, files.weights)
    return side.requires_grad_(False).eval()
