"""What loading either side of a CLIP model through transformers has in common: a quiet library, and clear faults."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import utils.torchvision_compat  # noqa: F401  (before transformers)
from utils.errors import UserError

HOW_TO_DOWNLOAD = "; with internet access: hf download {} --local-dir FOLDER"


@contextmanager
def loading_clip(source: str, files: str) -> Iterator[None]:
    """Around loading a local Hugging Face folder or a hub id: the library is silent, callers report what is missing.

    files: what the folder should hold. Raises UserError where ``source`` is neither, and for what goes wrong within.
    """
    from transformers.utils import logging

    _check_clip_folder(source)
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except Exception as error:  # each file format has exceptions of its own
        raise UserError(
            f"cannot load the vision-language model {source!r}: {first_line(error)}. Give --vlm_path the folder of a "
            f"Hugging Face CLIP model ({files})" + ("" if Path(source).exists() else HOW_TO_DOWNLOAD.format(source))
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def first_line(error: Exception) -> str:
    """What an error says, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _check_clip_folder(source: str) -> None:
    path = Path(source)
    if path.is_file():
        raise UserError(f"{source}: is a file; expected the folder of a Hugging Face CLIP model")
    if not path.is_dir():
        if path.is_absolute() or source.startswith(".") or source.count("/") != 1:
            raise UserError(f"--vlm_path {source}: no such folder, and it is no hub id (owner/name) either")
        return
    config_file = path / "config.json"
    if not config_file.exists():
        raise UserError(f"{source}: no config.json found; expected the folder of a Hugging Face CLIP model")
    try:
        config = json.loads(config_file.read_text())
    except ValueError as error:
        raise UserError(f"{config_file}: not valid JSON ({error})") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != "clip":
        raise UserError(f"{config_file}: model_type is {model_type!r}, expected 'clip'")
