"""The texts that a model reads: of a task, or as a run's config.json keeps them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets.class_texts import arrange_class_texts, has_own_form, read_class_texts
from datasets.descriptions import Descriptions, arrange_descriptions, read_descriptions, with_composed_names
from utils.config import Config
from utils.effects import has_effect
from utils.files import read_json

NO_TEXTS = Descriptions({}, [], [])
SUFFIX = {"ViLa_MIL": "csv", "MSCPT": "json"}


def text_file(config: Config, form: str) -> Path:
    """The file that --text_prompt names; the task's in the folder of the model, or else HiVE-MIL's, from which other
    forms are made."""
    default = config.prompt_path()
    if config.text_prompt is None and form != "HiVE_MIL":
        own = config.texts_folder(config.model_type) / f"{config.task}.{SUFFIX[form]}"
        if own.is_file() or not default.is_file():
            return own
    return default


def text_paths(config: Config) -> list[Path]:
    """The file of texts and the files of the text tower, as far as the model reads any and they lie on this machine."""
    if config.text_form is None:
        return []
    return [text_file(config, config.text_form), *([Path(config.vlm_path)] if config.vlm_path else [])]


def text_source(config: Config, form: str) -> str:
    """Where the texts of a form come from, in words."""
    file = text_file(config, form)
    return str(file) if form == "HiVE_MIL" or has_own_form(form, file) else f"made from HiVE-MIL's in {file}"


def read_texts(
    config: Config, form: str | None, class_names: Sequence[str] | None, fits: Callable[[str], bool] | None = None
) -> Descriptions:
    """A task's texts in the form of a model (``Config.text_form``); none where that is None.

    class_names: by default all classes of the file. fits: whether a prompt, where it is made of HiVE-MIL's
    descriptions, is short enough. Raises UserError as ``read_descriptions`` and ``read_class_texts``.
    """
    if form is None:
        return NO_TEXTS
    file = text_file(config, form)
    if form == "HiVE_MIL":
        return read_descriptions(file, class_names, *_counts(config))
    return read_class_texts(form, file, class_names, *_counts(config), fits or (lambda prompt: True))


def in_class_order(config: Config, class_names: Sequence[str]) -> list[str]:
    """The classes as ``--class_order`` numbers them: as they are, or by their places in the file of descriptions; those
    that the file lacks come last. Raises UserError where the file is no JSON."""
    file = text_file(config, config.text_form) if config.text_form else None
    if not has_effect(config, "class_order") or config.class_order == "labels" or file is None or not file.is_file():
        return list(class_names)
    by_class = with_composed_names(read_json(file, "prompt.unreadable", "{class: {term: explanation}}"))
    places = {name: place for place, name in enumerate(by_class)} if isinstance(by_class, dict) else {}
    return sorted(class_names, key=lambda name: places.get(name, len(places)))


def arrange_texts(config: Config, form: str | None, record: Mapping[str, Any]) -> Descriptions:
    """The texts of a run, from its config.json."""
    if form is None:
        return NO_TEXTS
    by_class, class_names = record["descriptions"], record["class_names"]
    if form == "HiVE_MIL":
        return arrange_descriptions(by_class, class_names, *_counts(config))
    return arrange_class_texts(form, by_class, class_names)


def _counts(config: Config) -> tuple[int, int, str]:
    return config.num_low_mag_texts, config.num_high_mag_subtexts, config.text_format
