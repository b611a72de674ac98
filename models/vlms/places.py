"""Where a model's files are: a folder or a file that the user names, or a repository of the hub in the hub's cache.

Every family reads files on the disk alone, so that a hub id, its cached copy and a downloaded folder are read, checked
and refused alike.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from models.vlms.catalogue import Published
from models.vlms.loading import first_line, read_config, read_weights
from utils.errors import Fault, UserError

CONFIG, OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"
TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
INDEX = ".index.json"  # behind a weight file's name: the list of the shards in its place
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.spm")  # configurations and tokenizers
HOW_TO_DOWNLOAD = (
    "with internet access: hf download {} --local-dir FOLDER, and name the folder with --vlm_path (gated models: "
    "accept the terms on the model's page and hf auth login first)"
)


@dataclass(frozen=True)
class ModelFiles:
    """A model on the disk.

    told: how the user named it, for messages. folder: of its configuration and tokenizer. weights: one file, or all
    shards. entry: the published model that it is said to be. revision: the commit, of a hub id. architecture: of
    ``open_clip:ARCH``.
    """

    told: str
    folder: Path
    weights: tuple[Path, ...]
    entry: Published | None = None
    revision: str = ""
    architecture: str = ""

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """What ``read_weights`` gives. Raises UserError."""
        return read_weights(self.weights)

    def config(self, name: str = CONFIG) -> dict[str, Any] | None:
        """A configuration beside the weights; None where there is none. Raises UserError where it is no JSON object."""
        return read_config(self.folder / name) if (self.folder / name).is_file() else None

    def needed_config(self, model_type: str) -> dict[str, Any]:
        """config.json. Raises UserError where there is none, or where it is of another type of model."""
        config = self.config()
        kind = f"the folder of a Hugging Face model of type {model_type}"
        if config is None:
            raise UserError(Fault("vlm.missing", str(self.folder), f"no {CONFIG} found", expected=kind))
        found = config.get("model_type")
        if found != model_type:
            where = str(self.folder / CONFIG)
            raise UserError(Fault("vlm.other_type", where, f"model_type is {found!r}", expected=repr(model_type)))
        return config


def model_type_of(folder: Path) -> str | None:
    """What config.json says of its model's type. Raises UserError where it is no JSON object."""
    said = read_config(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    found = said.get("model_type")
    return str(found) if found else None


# ---- files and folders -----------------------------------------------------------------------------------------------


def files_of_path(path: Path, entry: Published | None, model_types: Collection[str]) -> ModelFiles:
    """A weight file with what lies beside it, or a folder. model_types: those of config.json that are known.

    Raises UserError where a folder holds no weights, or not all.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            expected = f"a weight file ({', '.join(SUFFIXES)}) or the folder of a model"
            raise UserError(Fault("vlm.not_weights", str(path), "is no weight file", expected=expected))
        return ModelFiles(str(path), path.parent, (path,), entry)
    return ModelFiles(str(path), path, _weights_in(path, entry, model_types), entry)


def _weights_in(folder: Path, entry: Published | None, model_types: Collection[str]) -> tuple[Path, ...]:
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    chosen = _choose(names, entry, model_type_of(folder) in model_types)
    if chosen is None:
        listed = ", ".join(names[:8]) or "nothing"
        raise UserError(
            Fault(
                "vlm.missing",
                str(folder),
                f"no weights found among its files ({listed})",
                expected=" or ".join([*OPEN_CLIP_FILES, *TRANSFORMERS_FILES]),
                mend="put the model's weights into the folder, or name the weight file itself with --vlm_path",
            )
        )
    return _shards(folder / chosen) if chosen.endswith(INDEX) else (folder / chosen,)


def _choose(names: Collection[str], entry: Published | None, is_transformers: bool) -> str | None:
    """The weight file, or the index of its shards, among the files of a model. Where a model lies there in two forms,
    the catalogue decides, else a config.json that transformers knows."""
    of_transformers = [found for name in TRANSFORMERS_FILES for found in (name, name + INDEX)]
    of_open_clip = [*OPEN_CLIP_FILES]
    ordered = of_transformers + of_open_clip if is_transformers else of_open_clip + of_transformers
    for name in [entry.file, *ordered] if entry and entry.file else ordered:
        if name in names:
            return name
    others = [name for name in names if name.endswith(SUFFIXES)]
    return others[0] if len(others) == 1 else None


def _shards(index: Path) -> tuple[Path, ...]:
    """All files that an index names. Raises UserError where some are not there."""
    listed = read_config(index).get("weight_map")
    names = sorted({*map(str, listed.values())}) if isinstance(listed, dict) else []
    absent = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if absent or not names:
        found = f"{len(absent)} of {len(names)} shards are missing ({', '.join(absent[:3])})"
        raise UserError(
            Fault(
                "vlm.incomplete",
                str(index),
                found if names else "no shards named",
                expected="every file of its weight_map beside it",
                mend="fetch the missing files (hf download OWNER/NAME --local-dir FOLDER)",
            )
        )
    return tuple(index.parent / name for name in names)


# ---- the hub ---------------------------------------------------------------------------------------------------------


def files_of_hub(hub_id: str, entry: Published | None, model_types: Collection[str]) -> ModelFiles:
    """A model of the hub: its small files and one form of its weights, fetched unless the cache has them; without
    network or with HF_HUB_OFFLINE=1 whatever the cache has.

    Raises UserError where neither has the model, and as ``files_of_path``.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        about = HfApi().model_info(hub_id)
    except Exception as error:  # the hub's client has many
        try:
            snapshot = Path(snapshot_download(hub_id, local_files_only=True))
        except Exception as absent:
            raise _not_downloaded(hub_id, error) from absent
    else:
        try:
            snapshot = Path(snapshot_download(hub_id, revision=about.sha, allow_patterns=[*SMALL_FILES]))
            names = [sibling.rfilename for sibling in about.siblings or []]
            chosen = _choose(names, entry, model_type_of(snapshot) in model_types)
            shards = [name.removesuffix(INDEX).replace(".", "*.") for name in [chosen or ""] if name.endswith(INDEX)]
            if chosen:
                snapshot_download(hub_id, revision=about.sha, allow_patterns=[*SMALL_FILES, chosen, *shards])
        except UserError:
            raise
        except Exception as error:
            raise _not_downloaded(hub_id, error) from error
    weights = _weights_in(snapshot, entry, model_types)
    return ModelFiles(hub_id, snapshot, weights, entry, revision=snapshot.name)


def _not_downloaded(hub_id: str, error: Exception) -> UserError:
    return UserError(
        Fault(
            "vlm.not_downloaded",
            hub_id,
            f"the vision-language model is not in the hub's cache and cannot be fetched: {first_line(error)}",
            mend=HOW_TO_DOWNLOAD.format(hub_id),
        )
    )
