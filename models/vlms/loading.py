"""What loading a vision-language model has in common: quiet libraries, complete weights, and clear faults."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import utils.torchvision_compat  # noqa: F401  (before transformers)
from utils.errors import Fault, UserError
from utils.files import read_json
from utils.words import listed

HOW_TO_DOWNLOAD = "with internet access: hf download {} --local-dir FOLDER"


@contextmanager
def loading_from_transformers(source: str, model_type: str, files: str) -> Iterator[None]:
    """Around loading a local Hugging Face folder or a hub id: the library is silent, callers report what is missing.

    model_type: what config.json must say. files: what the folder should hold. Raises UserError where ``source`` is
    neither, where it holds another type of model, and for what goes wrong within.
    """
    from transformers.utils import logging

    _check_folder(source, model_type)
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except Exception as error:  # each file format has exceptions of its own
        is_local = Path(source).exists()
        mend = f"give --vlm_path the folder of a Hugging Face model of type {model_type}"
        raise UserError(
            Fault(
                "vlm.unreadable" if is_local else "vlm.not_downloaded",
                source,
                f"the vision-language model cannot be loaded: {first_line(error)}",
                expected=files,
                mend=mend if is_local else f"{mend}, {HOW_TO_DOWNLOAD.format(source)}",
            )
        ) from error
    finally:
        logging.set_verbosity(verbosity)


def first_line(error: Exception) -> str:
    """What an error says, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def check_complete(
    source: str, side: str, missing: Iterable[str], misshapen: Iterable[Any], unknown: Iterable[str] = ()
) -> None:
    """Raises UserError where weights of one side of a model are missing, of another shape than its configuration says,
    or unknown to it.

    source: the file or folder of the weights. side: "text" or "image". The names of misshapen weights may stand first
    in a tuple with their shapes, as transformers reports them.
    """
    kinds = {"missing": missing, "of another shape": misshapen, "unknown": unknown}
    named = {
        kind: sorted(name if isinstance(name, str) else name[0] for name in names) for kind, names in kinds.items()
    }
    counted = [
        f"{len(names)} weights are {kind} ({listed(names, 3, quote=False)})" for kind, names in named.items() if names
    ]
    if counted:
        raise UserError(
            Fault(
                "vlm.incomplete",
                source,
                f"the {side} side does not fit its configuration: {', '.join(counted)}",
                expected=f"all weights of the {side} side",
                mend="give --vlm_path the files of the whole model, as they were published",
            )
        )


def _check_folder(source: str, model_type: str) -> None:
    path, kind = Path(source), f"the folder of a Hugging Face model of type {model_type}"
    if path.is_file():
        raise UserError(Fault("vlm.not_a_folder", source, "is a file", expected=kind))
    if not path.is_dir():
        if path.is_absolute() or source.startswith(".") or source.count("/") != 1:
            raise UserError(
                Fault(
                    "vlm.missing",
                    f"--vlm_path {source}",
                    "no such folder",
                    expected=f"{kind}, or a hub id (owner/name)",
                )
            )
        return
    config_file = path / "config.json"
    if not config_file.exists():
        raise UserError(Fault("vlm.missing", source, "no config.json found", expected=kind))
    config = read_json(config_file)
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != model_type:
        raise UserError(
            Fault("vlm.other_type", str(config_file), f"model_type is {found!r}", expected=f"{model_type!r}")
        )
