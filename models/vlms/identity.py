"""The identity of a model's image side, computed once and remembered as long as the model's files stay the same."""

import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from models.vlms.places import ModelFiles
from models.vlms.registry import Source, find_model, load_image_side
from utils import __version__
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.model_identity import ModelIdentity
from utils.sealed import json_sha256
from utils.typed import read_as

CACHE_VARIABLE = "HIVE_MIL_CACHE"
MEMORY = "image_sides.json"


def image_identity(source: Source) -> ModelIdentity:
    """What features that the model's image side makes must carry.

    The first call for a model loads its image side. What it finds is remembered in the user's cache folder
    (``HIVE_MIL_CACHE``, by default ~/.cache/hive-mil) with path, size and time of the model's files; without a folder
    that can be written, each call loads the image side. Raises UserError where the model has none that can be loaded.
    """
    key = _stamp(find_model(source))
    memory = _cache_folder() / MEMORY
    remembered = _remembered(memory)
    known = read_as(ModelIdentity, remembered.get(key))
    if known is None:
        known = load_image_side(source.feature_extractor, source.vlm_path).identity()
        with suppress(OSError, UserError):
            write_json(memory, {**_remembered(memory), key: asdict(known)})
    return known


def _stamp(files: ModelFiles) -> str:
    """What tells whether a model is the same as before: its files, how it is read, and by which version of the code."""
    read = sorted({*files.weights, *files.folder.glob("*.json")})
    stamps = [[str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns] for file in read]
    return json_sha256([stamps, files.architecture, files.entry.name if files.entry else "", __version__])


def _cache_folder() -> Path:
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hive-mil"


def _remembered(memory: Path) -> dict[str, object]:
    """What the memory holds; nothing where it is missing or damaged."""
    try:
        known = read_json(memory)
    except (OSError, UserError):
        return {}
    return known if isinstance(known, dict) else {}
