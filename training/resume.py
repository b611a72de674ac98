"""How far the training of a fold is, kept in resume_<k>.pt so that it can go on there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.errors import Fault, UserError
from utils.files import write_tensors
from utils.interface import SlideModel
from utils.tensors import is_weight, read_tensors
from utils.words import listed

MOMENTS = {torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.SGD: {"momentum_buffer"}}
"""What an optimiser keeps of each parameter."""
MEND = "remove it to train the fold from its first epoch"


@dataclass
class Progress:
    """How far a fold is. Epochs count from 0; best_error is the lowest validation error so far, best_weights what was
    trained by then."""

    epochs: int = 0
    best_epoch: int = -1
    best_error: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def waited(self) -> int:
        """Epochs since the best one."""
        return self.epochs - 1 - self.best_epoch


def trained_weights(model: SlideModel) -> dict[str, Tensor]:
    """A copy of what is trained, on the CPU."""
    named = model.named_parameters()
    return {name: parameter.detach().cpu().clone() for name, parameter in named if parameter.requires_grad}


@torch.no_grad()
def set_weights(model: SlideModel, weights: Mapping[str, Tensor]) -> None:
    """Take over what ``trained_weights`` gave."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(weights[name])


def save_state(
    model: SlideModel, optimizer: torch.optim.Optimizer, progress: Progress, origin: Mapping[str, str], path: Path
) -> None:
    """Write what ``restore`` reads. origin: what tells the run and the fold, by name."""
    write_tensors(
        path,
        {
            "model": trained_weights(model),
            "optimizer": optimizer.state_dict(),
            "progress": vars(progress),
            "origin": {**origin, "epochs": str(progress.epochs)},
        },
    )


def restore(
    model: SlideModel, optimizer: torch.optim.Optimizer, origin: Mapping[str, str], path: Path
) -> tuple[Progress, list[str]]:
    """Take over a saved state: -> the progress, and what the user should know, a line each. Without a file nothing was
    trained yet.

    Raises UserError where the file is damaged, does not fit the model, or is of another run or fold.
    """
    if not path.exists():
        return Progress(), []
    state = read_tensors(path)
    progress, faults = _read_progress(state, trained_weights(model), optimizer)
    if faults or progress is None:
        expected = "the state that main.py wrote"
        raise UserError(
            Fault("resume.unreadable", str(path), f"does not fit: {listed(faults, quote=False)}", expected, MEND)
        )
    told = state.get("origin")
    if told is not None:
        here = {**origin, "epochs": str(progress.epochs)}
        if others := sorted(name for name in {*told, *here} if told.get(name) != here.get(name)):
            found = f"of another run or fold: other {listed(others, 10, quote=False)}"
            raise UserError(Fault("resume.foreign", str(path), found, "the state of this fold", MEND))
    set_weights(model, state["model"])
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state["optimizer"]["state"]})
    notes = [] if told else [f"note: {path}: an earlier version wrote it, without telling of which run it is"]
    return progress, notes


def _read_progress(
    state: Any, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[Progress | None, list[str]]:
    """The progress in a state and the names of what does not fit: the state's parts, or tensors of the model."""
    parts = {"model", "optimizer", "progress"}
    if not isinstance(state, dict) or not parts <= set(state) <= {*parts, "origin"}:
        return None, ["its parts"]
    told = state["progress"]
    if not isinstance(told, dict) or set(told) != {item.name for item in fields(Progress)}:
        return None, ["progress"]
    progress = Progress(**told)
    faults = [
        *_misfits("model", state["model"], weights),
        *_misfits("best_weights", progress.best_weights, weights),
        *_optimizer_misfits(state["optimizer"], optimizer),
    ]
    types = {"epochs": int, "best_epoch": int, "best_error": float, "history": list}
    if wrong := [name for name, kind in types.items() if not isinstance(told[name], kind)]:
        faults += wrong
    elif len(progress.history) != progress.epochs or not 0 <= progress.best_epoch < progress.epochs:
        faults.append("epochs")
    if not isinstance(state.get("origin", {}), dict):
        faults.append("origin")
    return progress, faults


def _misfits(where: str, saved: Any, weights: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that are missing, unknown, or of another shape."""
    if not isinstance(saved, dict):
        return [where]
    expected = {name: weight.shape for name, weight in weights.items()}
    wrong = sorted(str(name) for name in {*saved, *expected} if _shape(saved.get(name)) != expected.get(name, "none"))
    return [f"{where}.{name}" for name in wrong]


def _optimizer_misfits(saved: Any, optimizer: torch.optim.Optimizer) -> list[str]:
    """``_misfits`` of what an optimiser keeps of each parameter; a parameter without a gradient has nothing."""
    moments = saved.get("state") if isinstance(saved, dict) else None
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    if not isinstance(moments, dict) or not set(moments) <= set(parameters):
        return ["optimizer"]
    names = MOMENTS[type(optimizer)]
    return [
        f"optimizer.{index}"
        for index, kept in moments.items()
        if not isinstance(kept, dict)
        or set(kept) != names
        or any(
            _shape(value) != (torch.Size() if name == "step" else parameters[index].shape)
            for name, value in kept.items()
        )
    ]


def _shape(value: Any) -> torch.Size | None:
    """None of what is no weight."""
    return value.shape if is_weight(value) else None
