"""Weights of published models: read without running what is in a file, checked against the module that takes them."""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before transformers, timm and open_clip)
from utils.errors import Fault, UserError
from utils.files import read_json
from utils.tensors import NESTS, load_tensors, other_kind, without_prefixes
from utils.words import listed

LFS_POINTER = b"version https://git-lfs"
FETCH_AGAIN = "fetch the whole file again (hf download OWNER/NAME --local-dir FOLDER, or git lfs pull)"
TORCHSCRIPT = (
    "save its state_dict as safetensors; OpenAI's RN50 is such a file at the hub: timm/resnet50_clip.openai "
    "(--feature_extractor clip-rn50)"
)

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def first_line(error: Exception) -> str:
    """What an error says, in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


# ---- files -----------------------------------------------------------------------------------------------------------


def check_file(file: Path, code: str = "vlm.unreadable") -> None:
    """Raises UserError, with that code, where a file is empty or a git-lfs pointer."""
    with file.open("rb") as opened:
        start = opened.read(len(LFS_POINTER))
    if not start or start == LFS_POINTER:
        found = "a git-lfs pointer, not the file itself" if start else "an empty file"
        raise UserError(Fault(code, str(file), found, mend=FETCH_AGAIN))


def read_config(file: Path) -> dict[str, Any]:
    """A configuration of a model. Raises UserError where the file is no JSON object."""
    check_file(file)
    config = read_json(file)
    if not isinstance(config, dict):
        found = f"a JSON {type(config).__name__}"
        raise UserError(Fault("vlm.config", str(file), found, expected="the configuration of a model, an object"))
    return config


@contextmanager
def quiet() -> Iterator[None]:
    """transformers is silent within: what it would say is said here as a fault, or does not matter."""
    from transformers.utils import logging

    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()


@contextmanager
def reading_config(told: str) -> Iterator[None]:
    """Around making something of a configuration: what goes wrong within is a fault of what is ``told``."""
    try:
        with quiet():
            yield
    except UserError:
        raise
    except Exception as error:  # what a library makes of a wrong description
        raise UserError(
            Fault(
                "vlm.config",
                told,
                f"describes no model that can be built ({type(error).__name__}: {first_line(error)})",
                expected="the configuration that was published with the model",
            )
        ) from error


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of a model by name, on the CPU; tensors of files in PyTorch's form stay on the disk until used.

    files: one file, or all shards of a model. What training scripts wrap around weights is taken off. No code of a
    file is run. Raises UserError where a file cannot be read so.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            _check_kind(file)
            held = load_tensors(file, mmap=True)
        except UserError:
            raise
        except Exception as error:  # each file format has exceptions of its own
            found = f"not readable as the weights of a model ({first_line(error)}): damaged, or cut off"
            raise UserError(Fault("vlm.unreadable", str(file), found, mend=FETCH_AGAIN)) from error
        tensors |= _unwrapped(held)
    if not tensors:
        names = ", ".join(map(str, files))
        raise UserError(Fault("vlm.unreadable", names, "no tensors in it", expected="the weights of a model"))
    return tensors


def _check_kind(file: Path) -> None:
    """Raises UserError where a file holds no tensors, or code beside them."""
    if other := other_kind(file):
        raise UserError(Fault("vlm.unreadable", str(file), other, expected="weights", mend=FETCH_AGAIN))
    if zipfile.is_zipfile(file) and _is_torchscript(file):
        found = "a TorchScript archive, which holds code"
        raise UserError(Fault("vlm.unreadable", str(file), found, expected="weights alone", mend=TORCHSCRIPT))


def _is_torchscript(file: Path) -> bool:
    with zipfile.ZipFile(file) as archive:
        return any(name.split("/")[1:2] in (["code"], ["constants.pkl"]) for name in archive.namelist())


def _unwrapped(held: Any) -> dict[str, Tensor]:
    """The named tensors within what a training script saved, without a common prefix."""
    while isinstance(held, Mapping) and (inner := next((name for name in NESTS if _is_wrapper(held, name)), None)):
        held = held[inner]
    named = held.items() if isinstance(held, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and isinstance(value, Tensor)}
    return without_prefixes(tensors)


def _is_wrapper(held: Mapping[Any, Any], name: str) -> bool:
    return isinstance(held.get(name), Mapping)


# ---- modules ---------------------------------------------------------------------------------------------------------


def with_prefix(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """The tensors whose names start with one of the prefixes; the names are kept."""
    return {name: value for name, value in tensors.items() if name.startswith(prefixes)}


def renamed(tensors: Mapping[str, Tensor], prefix: str, new: str = "") -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, which is replaced."""
    return {new + name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def without_position_ids(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors but for 0, 1, 2, ... which older versions of transformers saved among the weights."""
    return {name: value for name, value in tensors.items() if not name.endswith(".position_ids")}


def count_layers(names: Iterable[str], prefix: str) -> int:
    """How many numbers stand behind a prefix: layers are named <prefix>0.<weight>, <prefix>1.<weight>, ..."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    return len(numbers)


def build(make: Callable[[], AnyModule], tensors: Mapping[str, Tensor], side: str, told: str) -> AnyModule:
    """A module that has exactly these weights, in float32.

    make: builds the module; no time is spent on weights that are replaced. tensors: by the module's names. side: "text"
    or "image", told: the file or folder, for faults. Raises UserError where weights are missing, unknown, or of
    another shape than the module's.
    """
    with torch.random.fork_rng(devices=[]), _no_initialisation():
        module = make()
    wanted = module.state_dict()
    misshapen = [name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape]
    check_complete(told, side, wanted.keys() - tensors.keys(), misshapen, tensors.keys() - wanted.keys())
    copies = {name: value.detach().clone() for name, value in tensors.items()}
    module.load_state_dict(copies, assign=True)
    return module.float()


def build_converted(config: Any, tensors: Mapping[str, Tensor], side: str, told: str) -> Any:
    """The transformers model of a configuration, in float32, by transformers' own loader: that knows the names which
    weights had in earlier versions of the library. Arguments and faults are those of ``build``."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    kind: Any = MODEL_MAPPING[type(config)]
    with quiet():
        loaded: Any = kind.from_pretrained(
            None, config=config, state_dict=dict(tensors), output_loading_info=True, ignore_mismatched_sizes=True
        )
    model, report = loaded
    misshapen = [name for name, *_ in report["mismatched_keys"]]
    check_complete(told, side, report["missing_keys"], misshapen, report["unexpected_keys"])
    return model.float()


@contextmanager
def _no_initialisation() -> Iterator[None]:
    """Parameters that are registered within hold no memory; buffers do, as not all of them are in weight files."""
    register = nn.Module.register_parameter

    def register_on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, None if param is None else nn.Parameter(param.to("meta"), param.requires_grad))

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def check_complete(
    source: str, side: str, missing: Iterable[str], misshapen: Iterable[str], unknown: Iterable[str] = ()
) -> None:
    """Raises UserError where weights of one side of a model are missing, of another shape than its configuration says,
    or unknown to it.

    source: the file or folder of the weights. side: "text" or "image".
    """
    kinds = {"missing": missing, "of another shape": misshapen, "unknown": unknown}
    named = {kind: sorted(names) for kind, names in kinds.items()}
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


def only_tensor(tensors: Mapping[str, Tensor], name: str, told: str) -> Tensor:
    """One tensor. Raises UserError where it is missing."""
    if name not in tensors:
        check_complete(told, "text", [name], [])
    return tensors[name]
