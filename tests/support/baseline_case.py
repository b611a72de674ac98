"""Loads a golden case of a baseline: what its official code computed for small random inputs.

A folder holds case.json, weights.npz (official names), inputs.npz and outputs.npz. ``--golden-baselines DIR`` names
another set of folders of the same form.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.interface import Bag, ModelOutput, SlideModel

TOLERANCE, TRACE_TOLERANCE = 1e-5, 1e-4


def read(file: Path) -> dict[str, Tensor]:
    """An npz file as tensors."""
    with np.load(file) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays.files}


def bag_of(features: Tensor, label: int, low: Tensor | None = None) -> Bag:
    """A slide of high patches (N, D), and of low ones where the model reads them."""
    low = features.new_zeros(0, features.shape[1]) if low is None else low
    children = low.new_zeros(len(low), 0, low.shape[1])
    return Bag("golden", low, children, torch.zeros(len(low), 0, dtype=torch.bool), label, patch_features=features)


class BaselineCase:
    """names: official name of a tensor or of its module -> ours; longer ones are tried first, and those that begin
    with an entry of ``unused`` are left out."""

    def __init__(self, folder: Path, names: Mapping[str, str], unused: tuple[str, ...] = ()):
        self.settings: dict[str, Any] = json.loads((folder / "case.json").read_text())
        self.folder, self.names, self.unused = folder, names, unused
        self.inputs, self.outputs = read(folder / "inputs.npz"), read(folder / "outputs.npz")
        self.labels: list[int] = self.inputs["labels"].tolist()
        self.checked: set[str] = set()

    @property
    def num_classes(self) -> int:
        return int(self.settings["num_classes"])

    def ours(self, official: str) -> str:
        """Our name of an official tensor."""
        for name in sorted(self.names, key=len, reverse=True):
            if official == name or official.startswith(f"{name}."):
                return self.names[name] + official.removeprefix(name)
        raise KeyError(f"{self.folder.name}: no name for {official}")

    def load(self, model: SlideModel, file: str = "weights.npz") -> SlideModel:
        """The model with the official weights: of all parameters but a text tower's. Dropout is off."""
        weights = {name: value for name, value in read(self.folder / file).items() if not name.startswith(self.unused)}
        state = {self.ours(name): value for name, value in weights.items()}
        for name, tensor in model.state_dict().items():  # axes of length one may differ
            if name in state and state[name].squeeze().shape == tensor.squeeze().shape:
                state[name] = state[name].reshape(tensor.shape)
        missing, unexpected = model.load_state_dict(state, strict=False)
        known = {name for name, _ in model.named_parameters() if ".tower." not in name}
        assert not unexpected and not known.intersection(missing), (missing, unexpected)
        return model.eval()

    def bags(self, name: str = "features", prefix: str = "bag") -> list[Bag]:
        return [bag_of(self.inputs[f"{prefix}{i}.{name}"], label) for i, label in enumerate(self.labels)]

    def check(self, name: str, ours: Tensor | float, tolerance: float = TOLERANCE) -> None:
        """|ours - expected| <= tolerance * max(1, max|expected|); integers exactly."""
        expected = self.outputs[name]
        self.checked.add(name)
        ours = torch.as_tensor(ours).detach()
        assert ours.shape == expected.shape, f"{name}: {tuple(ours.shape)}, expected {tuple(expected.shape)}"
        if not expected.is_floating_point():
            assert torch.equal(ours.to(expected.dtype), expected), name
            return
        bound = tolerance * max(1.0, float(expected.abs().max()))
        error = float((ours - expected).abs().max())
        assert error <= bound, f"{name}: differs by {error:.2e}, allowed {bound:.2e}"

    def unchecked(self) -> set[str]:
        """The outputs that ``check`` has not seen."""
        return set(self.outputs) - self.checked

    def check_gradients(self, model: SlideModel, loss: Tensor, prefix: str = "") -> None:
        """The norm of every parameter's gradient; -1 stands for none."""
        model.zero_grad()
        loss.backward()
        model.clip_gradients()
        parameters = dict(model.named_parameters())
        start = f"{prefix}grad_norm/"
        official = [name for name in self.outputs if name.startswith(start)]
        assert official
        for name in official:
            if name.removeprefix(start).startswith(self.unused):
                continue
            gradient = parameters[self.ours(name.removeprefix(start))].grad
            self.check(name, -1.0 if gradient is None else gradient.norm(), TRACE_TOLERANCE)

    def steps(
        self, model: SlideModel, bags: list[Bag], before: Callable[[int], None] = lambda step: None
    ) -> Iterator[ModelOutput]:
        """Six optimiser steps over bags 0, 1, 2, 0, 1, 2; what the model gave before each."""
        settings = self.settings["optimizer"]
        optimizer = torch.optim.Adam(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=settings["lr"], betas=settings["betas"], eps=settings["eps"], weight_decay=settings["weight_decay"],
        )  # fmt: skip
        for step in range(self.settings["trace_steps"]):
            before(step)
            output = model(bags[step % len(bags)])
            optimizer.zero_grad()
            output.loss.backward()
            model.clip_gradients()
            optimizer.step()
            yield output

    def check_trace(
        self,
        model: SlideModel,
        bags: list[Bag],
        trace: str = "trace.loss",
        columns: Callable[[ModelOutput], list[Tensor]] | None = None,
        prefix: str = "",
        after: str = "logits",
    ) -> None:
        """The losses of six steps, and the logits after them. columns: a step's losses, by default the total. after:
        "logits" or "log_probabilities", which the case holds."""
        rows = []
        for output in self.steps(model, bags):
            values = columns(output) if columns else [output.loss]
            rows.append(torch.stack([value.detach() for value in values]))
        found = torch.stack(rows)
        self.check(f"{prefix}{trace}", found if columns else found.squeeze(1), TRACE_TOLERANCE)
        for i, bag in enumerate(bags):
            with torch.no_grad():
                logits = model(bag).logits
            found = logits if after == "logits" else logits.log_softmax(0)
            self.check(f"{prefix}trace.after.bag{i}.{after}", found, TRACE_TOLERANCE)
