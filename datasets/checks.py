"""Reads every feature file of a task once before any training, and remembers which were found good."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch.linalg import vector_norm
from tqdm import tqdm

from datasets.bag_cache import BagCache
from datasets.bags import read_bag
from datasets.features_model import FeaturesModel, one_model, told_by_files
from datasets.folders import FeatureFolders
from datasets.missing_features import how_to_make
from datasets.projection import has_unit_rows, model_of_unit_rows, projection_remedy
from datasets.task import Slide
from utils.errors import Fault, Faults, UserError
from utils.files import read_json, tensors_sha256
from utils.interface import Bag, BagForm
from utils.model_identity import ModelIdentity
from utils.sealed import DIGESTS, damaged_fields, write_sealed
from utils.typed import read_as
from utils.words import listed

MOST_NAMED = 5  # slides of a warning
DIGEST_NAMES = {
    "low_features": "low", "high_features": "high", "child_mask": "mask", "patch_features": "patches",
}  # fmt: skip


@dataclass(frozen=True)
class CheckedSlide:
    """A slide that was found good. stamp: what tells whether its files are the same as then. sha256: of the contents.
    unit_rows: whether all rows are of length 1. zero_rows: how many rows are all zero, which no encoder gives. models:
    what its files say of the model that they are of."""

    stamp: list[int | None]
    sha256: str
    unit_rows: bool
    zero_rows: int
    models: list[ModelIdentity | None]


@dataclass(frozen=True)
class CheckedFeatures:
    """digests: of the features, by slide_id. model: the one that they are of."""

    digests: Mapping[str, str] = field(default_factory=dict)
    model: FeaturesModel = field(default_factory=FeaturesModel)


def check_root(folders: FeatureFolders, form: BagForm = "hierarchy") -> None:
    """Raises UserError where the task has no features at all, or, of a flat bag, none at the high magnification. What
    mends that depends on what lies there."""
    if folders.features_from:
        _check_in_place(folders, form)
        return
    if not folders.root.is_dir():
        expected = f"the features of task {folders.task}"
        mend = how_to_make(folders, form)
        raise UserError(Fault("features.missing", str(folders.root), "no such folder", expected, mend))
    linked, flat = folders.hierarchical_file("x").parent, folders.high_file("x").parent
    if linked.is_dir() or (form != "hierarchy" and folders.has_flat_patches()):
        return
    if form == "hierarchy" and folders.low_file("x").parent.is_dir():
        return  # each slide's fault tells more
    where, found, expected = linked, "no such folder", f"the linked patches of task {folders.task}"
    if form != "hierarchy":
        where, found = flat, f"no such folder, nor {linked.name}/ beside it"
        expected = f"the high patches of task {folders.task}"
    raise UserError(Fault("features.missing", str(where), found, expected, how_to_make(folders, form)))


def _check_in_place(folders: FeatureFolders, form: BagForm) -> None:
    """Raises UserError where a job lacks features that are read, and where they are no HDF5 files."""
    faults = Faults()
    scales = folders.low_magnification, folders.high_magnification
    for magnification in scales[form == "patches" :]:
        source = faults.attempt(folders.source_in_place, magnification)
        if source and any(file.suffix != ".h5" for file in source.value.files().values()):
            expected = "HDF5 files, to be read in their place"
            mend = f"link them with: {folders.hierarchy_command()}, and leave --features-from out"
            faults.add(Fault("features.kind", str(source.value.folder), "files of PyTorch (.pt)", expected, mend))
    faults.raise_any()


def check_features(
    cache: BagCache,
    slides: Iterable[Slide],
    checked: Path | None = None,
    verify: bool = False,
    warn: Callable[[Fault], None] = lambda fault: print(f"warning: {fault}"),
) -> CheckedFeatures:
    """Check the features of some slides; those unchanged since an earlier check are not read again, others are kept in
    the cache.

    checked: a JSON file that keeps what was found good, and by which size, time and width it is known again. verify:
    read every file all the same, since files may change and keep their size and time. warn: gets a fault where features
    are all zero, where rows of CONCH or MUSK are not of unit length, and where contents have changed though size and
    time have not. Raises UserError with the faults of all slides, and where slides are of several models.
    """
    folders, form = cache.folders, cache.form
    known = _read_checked(checked) if checked else {}
    check_root(folders, form)
    faults = Faults()
    good: dict[str, CheckedSlide] = {}
    unread = []
    for slide in slides:
        entry = known.get(_name(folders, slide, form))
        if entry and not verify and entry.stamp == _stamp(cache, slide):
            good[slide.slide_id] = entry
        else:
            unread.append(slide)
    lied = []
    for slide in tqdm(unread, desc="checking features", unit="slide", disable=None, leave=False):
        if found := faults.attempt(_look, cache, slide):
            name = _name(folders, slide, form)
            if name in known and known[name].stamp == found.value.stamp and known[name].sha256 != found.value.sha256:
                lied.append(slide.slide_id)
            good[slide.slide_id] = known[name] = found.value
    if checked and unread:
        write_sealed(checked, {name: asdict(entry) for name, entry in known.items()})
    _warn(folders, good, lied, warn)
    model = faults.attempt(one_model, folders, {slide_id: entry.models for slide_id, entry in good.items()})
    faults.raise_any()
    return CheckedFeatures({slide_id: entry.sha256 for slide_id, entry in good.items()}, model.value)


def _look(cache: BagCache, slide: Slide) -> CheckedSlide:
    """What a slide's files hold, which the cache keeps. Raises UserError as ``read_bag``."""
    folders, form = cache.folders, cache.form
    stamp = _stamp(cache, slide)
    bag = read_bag(folders, slide, cache.feature_dim, form)
    contents = {DIGEST_NAMES[name]: value for name, value in bag.features().items()}
    digest, models = tensors_sha256(contents), told_by_files(folders, slide.slide_id, form)
    entry = CheckedSlide(stamp, digest, _is_normalised(bag), _zero_rows(bag), models)
    cache.put(bag)
    return entry


def _warn(
    folders: FeatureFolders, good: Mapping[str, CheckedSlide], lied: Sequence[str], warn: Callable[[Fault], None]
) -> None:
    """Of what is no fault. lied: slides whose contents changed with the same size and time."""
    if lied:
        found = f"{len(lied)} slides hold other features than at the last check, with the same size and time"
        mend = "train on them in another --results_dir, or bring the features of then back"
        warn(Fault("features.changed", "", f"{found} ({listed(lied)})", mend=mend))
    if empty := [slide_id for slide_id, entry in good.items() if entry.zero_rows]:
        rows = sum(good[slide_id].zero_rows for slide_id in empty)
        found = f"{rows} patches of {len(empty)} slides have features that are all zero ({listed(empty)})"
        mend = f"the files are named by: {folders.check_command()}"
        warn(Fault("features.zero", "", found, "features that an encoder gave", mend))
    longer = sum(not entry.unit_rows for entry in good.values())
    if longer and model_of_unit_rows(folders):
        found = f"{longer} of {len(good)} slides have rows that are not of length 1. {projection_remedy(folders)}"
        warn(Fault("features.length", "", found))


def _is_normalised(bag: Bag) -> bool:
    """Whether the features of all patches are of unit length."""
    rows = bag.low_features, bag.patches
    return all(has_unit_rows(vector_norm(features, dim=-1).numpy()) for features in rows)


def _zero_rows(bag: Bag) -> int:
    """How many patches have features that are all zero."""
    return sum(int((~features.any(-1)).sum()) for features in (bag.low_features, bag.patches))


def _name(folders: FeatureFolders, slide: Slide, form: BagForm) -> str:
    """What the file of checked features knows a slide by."""
    return f"{form} {folders.files(slide.slide_id, form)[0].resolve()}"


def _stamp(cache: BagCache, slide: Slide) -> list[int | None]:
    """What tells whether a slide's files are the same as before."""
    stamp: list[int | None] = [cache.feature_dim]
    for file in cache.folders.files(slide.slide_id, cache.form):
        status = file.stat() if file.is_file() else None
        stamp += [status.st_size, status.st_mtime_ns] if status else [None, None]
    return stamp


def _read_checked(checked: Path) -> dict[str, CheckedSlide]:
    """What the file keeps, without what was damaged or is of an earlier version; nothing of a file without digests."""
    try:
        known = read_json(checked)
    except (OSError, UserError):
        return {}
    if not isinstance(known, dict) or DIGESTS not in known:
        return {}
    damaged = {DIGESTS, *damaged_fields(known)} if isinstance(known[DIGESTS], dict) else set(known)
    whole = {name: read_as(CheckedSlide, entry) for name, entry in known.items() if name not in damaged}
    return {name: entry for name, entry in whole.items() if entry is not None}
