"""Planned slides to feature files: in this process, or slide by slide in the processes of a Ray cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from datasets.extraction_plan import FirstLook, PlanJob, SlidePlan, plan_slide
from datasets.folders import FeatureFolders
from datasets.slide_features import Encode, Pace, SlideFeatures, extract_features, write_slide_features
from utils.errors import Fault, UserError
from utils.model_identity import ModelIdentity
from utils.ray_cluster import Cluster, Lost
from utils.reproducibility import choose_device, make_deterministic

RETRIES = 2
"""How often a slide is tried again whose process on the cluster was lost."""

Result = TypeVar("Result")


class PatchEncoder(Protocol):
    """A frozen image encoder: uint8 patches (N, 3, H, W) on its device -> float32 features (N, D).

    output_dim: D. identity: what feature files carry, for texts of another model to be refused.
    """

    output_dim: int

    def to(self, device: torch.device, /) -> Self: ...

    def identity(self) -> ModelIdentity: ...

    def encode_images(self, images: Tensor, /) -> Tensor: ...


LoadEncoder = Callable[..., PatchEncoder]
"""A function of a module, which the processes of a cluster can import."""


@dataclass(frozen=True)
class EncoderSource:
    """An encoder, and how another process loads the same one: by ``load(*given)``."""

    load: LoadEncoder
    given: tuple[Any, ...]
    encoder: PatchEncoder

    @classmethod
    def of(cls, load: LoadEncoder, *given: Any) -> "EncoderSource":
        return cls(load, given, load(*given))


@dataclass(frozen=True)
class Recipe:
    """How planned slides are encoded. folder: the one that relative paths start from. batch_size: patches encoded
    together, about. workers: processes that read slides. device, precision: as given, None for the default."""

    folders: FeatureFolders
    folder: Path
    batch_size: int
    workers: int
    device: str | None
    precision: str | None


class Encoded(NamedTuple):
    """A slide whose files are written, or what was wrong with it."""

    plan: SlidePlan
    fault: Fault | None = None


# ---- this process ----------------------------------------------------------------------------------------------------


def encode_here(plans: Sequence[SlidePlan], encoder: PatchEncoder, recipe: Recipe, pace: Pace) -> Iterator[Encoded]:
    """Encode slides in order and write their files. pace: told how the work goes. Raises UserError where the device is
    not there or its memory too small, and where a reading process was ended."""
    make_deterministic()
    device = choose_device(recipe.device)
    precision = recipe.precision or ("fp16" if device.type == "cuda" else "fp32")
    pace.device = f"{device}, {precision}"
    encode = _batch_encoder(encoder, device, precision)
    pinned = device.type == "cuda"
    results = extract_features(plans, encode, encoder.output_dim, recipe.batch_size, recipe.workers, pinned, pace)
    for result in _unless_ended(results):
        if isinstance(result, SlideFeatures):
            write_slide_features(recipe.folders, result, precision)
            yield Encoded(result.plan)
        else:
            yield Encoded(*result)


def _batch_encoder(encoder: PatchEncoder, device: torch.device, precision: str) -> Encode:
    """uint8 patches on the CPU -> features; a batch too large for the device is a UserError."""
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    encoder = encoder.to(device)

    @torch.inference_mode()
    def encode(patches: Tensor) -> Tensor:
        try:
            with torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32"):
                return encoder.encode_images(patches.to(device, non_blocking=True))
        except torch.OutOfMemoryError as error:
            found = f"{len(patches)} patches do not fit into the memory of {device}"
            raise UserError(Fault("device.memory", "--batch-size", found, mend="lower --batch-size")) from error

    return encode


def _unless_ended(results: Iterator[Result]) -> Iterator[Result]:
    """The same results; a reading process that was ended from outside is a UserError."""
    try:
        yield from results
    except RuntimeError as error:  # PyTorch has no exception of its own for it
        if "DataLoader worker" not in str(error):
            raise
        found = (
            "a process that reads slides was ended from outside, for want of memory perhaps (or of room in /dev/shm)"
        )
        mend = "run again with fewer --workers: what is finished is not repeated"
        raise UserError(Fault("worker.ended", "", found, mend=mend)) from error


# ---- a cluster -------------------------------------------------------------------------------------------------------


def look(job: PlanJob) -> FirstLook | UserError:
    """What the first look at the slide finds, or what is wrong with the slide."""
    try:
        return plan_slide(job)
    except UserError as error:
        return UserError(error.faults)


def look_on(cluster: Cluster, jobs: Sequence[PlanJob]) -> list[FirstLook | UserError]:
    """``look`` at every slide, on a cluster whose nodes share this machine's folders; in the order of the jobs."""
    found: dict[str, FirstLook | UserError] = {}
    stream = cluster.run(_look_from, jobs, Path.cwd(), cpus=1, gpus=0, retries=RETRIES)
    with closing(stream), tqdm(total=len(jobs), desc="finding tissue", unit="slide", disable=None) as bar:
        for ended in stream:
            for job, result in ended:
                found[job.slide_id] = UserError(_lost(job.file, result)) if isinstance(result, Lost) else result
            bar.update(len(ended))
    return [found[job.slide_id] for job in jobs]


def encode_on(
    cluster: Cluster, plans: Sequence[SlidePlan], source: EncoderSource, recipe: Recipe, gpus: float | None, pace: Pace
) -> Iterator[Encoded]:  # fmt: skip
    """``encode_here`` of one slide in each process of a cluster, as they end.

    source: a process loads the encoder once. gpus: of each process (None: one where the cluster has any). A process
    takes a CPU for each of the recipe's workers, as far as a node has them.
    """
    gpus = float(cluster.number("GPU") > 0) if gpus is None else gpus
    cpus = max(1, min(recipe.workers, cluster.largest("CPU")))
    needs: dict[str, Any] = {"cpus": cpus, "gpus": gpus, "retries": RETRIES}
    with closing(cluster.run(_encode_one, plans, source.load, source.given, recipe, **needs)) as stream:
        for ended in stream:
            for plan, result in ended:
                if isinstance(result, Lost):
                    yield Encoded(plan, _lost(plan.file, result))
                else:
                    fault, taken = result
                    pace.device = taken.device
                    pace.add(taken)
                    yield Encoded(plan, fault)


def _lost(file: Path, lost: Lost[Any]) -> Fault:
    return Fault("worker.lost", str(file), f"the process that worked at it was lost ({lost.fault})")


def _look_from(job: PlanJob, folder: Path) -> FirstLook | UserError:
    os.chdir(folder)
    return look(job)


def _encode_one(
    plan: SlidePlan, load: LoadEncoder, given: tuple[Any, ...], recipe: Recipe
) -> tuple[Fault | None, Pace]:
    os.chdir(recipe.folder)
    pace = Pace()
    try:
        [encoded] = encode_here([plan], _loaded(load, given), recipe, pace)
    except UserError as error:
        return replace(error.faults[0], where=f"{plan.file}: {error.faults[0].where}"), pace
    return encoded.fault, pace


@lru_cache(maxsize=1)
def _loaded(load: LoadEncoder, given: tuple[Any, ...]) -> PatchEncoder:
    return load(*given)
