"""The folds of a task, drawn.

A fold divides all slides into a train pool, val and test as 4:3:3 within every class, and takes n training slides a
class from the pool, the other slides of which go to no split. Groups (patients, sites) are never divided.

What the authors' 16-shot splits show: in NSCLC and RCC, val and test hold round(0.3 n) slides of each class of n; in
BRCA, val and test both hold 48 slides of either class (of 844 IDC and 211 ILC), drawn anew for every fold, so that not
only the test set is balanced.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.splits import SPLIT_NAMES, Split, class_counts, take_few
from datasets.task import Slide, read_table
from utils.errors import Fault, UserError
from utils.words import listed

SHARES = {"train": 4, "val": 3, "test": 3}  # train: the pool
WHOLE = sum(SHARES.values())
MILLION = 10**6
TRIES = 20
CLOSE = 20  # a division is close to the shares within a slide or 1/20 of a class


def group_slides(path: Path, slides: Sequence[Slide], group: str, sites: Mapping[str, str]) -> list[list[Slide]]:
    """The slides that stay together, by ``group``: patient, site or slide; the order of ``slides`` does not matter.

    Sites that share a patient count as one, so that no patient is shared either. Raises UserError where a site is not
    known; ``path`` is the table, for the message.
    """
    slides = sorted(slides, key=lambda slide: slide.slide_id)
    names = [
        {"patient": slide.patient, "site": sites[slide.slide_id], "slide": slide.slide_id}[group] for slide in slides
    ]
    nameless = [slide.slide_id for slide, name in zip(slides, names, strict=True) if not name]
    if nameless:
        found = (
            f"{len(nameless)} slides without a {group} ({listed(nameless)}); found the columns "
            f"{listed(read_table(path))}"
        )
        expected = f"a column {group} without gaps (TCGA barcodes need none)"
        raise UserError(Fault("table.ungrouped_slide", str(path), found, expected))
    joined = {name: name for name in names}

    def first_of(name: str) -> str:
        while joined[name] != name:
            name = joined[name]
        return name

    if group == "site":
        home: dict[str, str] = {}
        for slide, name in zip(slides, names, strict=True):
            joined[first_of(name)] = first_of(home.setdefault(slide.patient, name))
    members: dict[str, list[Slide]] = {}
    for slide, name in zip(slides, names, strict=True):
        members.setdefault(first_of(name), []).append(slide)
    return list(members.values())


def divide(
    counts: np.ndarray, generator: np.random.Generator, parts: Sequence[int] = tuple(SHARES.values())
) -> np.ndarray:
    """The part of every group: (G,) of 0 train pool, 1 val, 2 test.

    counts: (G, K) int64, the slides of each group by class; every class has some. parts: the shares; the first two
    where the test set is given. In a random order, each group goes to
    the part where it brings the classes' shares nearest to 4:3:3 (squared deviations, summed); then groups move for as
    long as that helps. A part that lacks a class is worse than any deviation. The first order that ends close to 4:3:3,
    by a slide or a twentieth of every class, is taken, else the best of TRIES; always the best would be nearly the same
    division in every fold where a few large sites hold a class. All numbers are integers (shares in parts per million),
    so that every machine decides alike.
    """
    totals = counts.sum(0)
    shares, whole = np.array(parts, dtype=np.int64)[:, None], sum(parts)
    lacking = len(parts) * len(totals) * MILLION**2

    def cost(held: np.ndarray) -> np.ndarray:
        """(3, K) slides -> (3,)"""
        deviations = held * MILLION // totals - shares * MILLION // whole
        costs: np.ndarray = (deviations**2 + lacking * (held == 0)).sum(1)
        return costs

    found = []
    for _ in range(TRIES):
        held, places = _settle(counts, cost, generator.permutation(len(counts)), len(parts))
        close = abs(whole * held - shares * totals) <= np.maximum(whole, totals * whole // CLOSE)
        if close.all() and held.all():
            return places
        found.append((int(cost(held).sum()), places))
    return min(found, key=lambda one: one[0])[1]


def _settle(
    counts: np.ndarray, cost: Callable[[np.ndarray], np.ndarray], order: np.ndarray, num_parts: int
) -> tuple[np.ndarray, np.ndarray]:
    """Place the groups one by one where the cost rises least, over and over until none moves. Returns the slides held
    by part and class (3, K), and the part of each group (G,)."""
    held = np.zeros((num_parts, counts.shape[1]), dtype=np.int64)
    places = np.full(len(counts), -1)
    moved = True
    while moved:
        moved = False
        for group in order:
            before = places[group]
            if before >= 0:
                held[before] -= counts[group]
            rise = cost(held + counts[group]) - cost(held)
            place = before if before >= 0 and rise[before] == rise.min() else rise.argmin()
            held[place] += counts[group]
            places[group] = place
            moved |= bool(place != before)
    return held, places


def draw_folds(
    path: Path,
    groups: Sequence[Sequence[Slide]],
    class_names: Sequence[str],
    k: int,
    seed: int,
    tests: Sequence[Sequence[Slide]] = (),
) -> list[Split]:
    """``k`` folds of all slides (train is the pool), each split by class, within a class in random order.

    A fold depends on the slides, the seed and its number, and on nothing else. tests: the groups of a given test set,
    the same in every fold; the other groups are then divided into train pool and val as 4:3. Raises UserError naming
    each class that cannot be in all three splits; ``path`` is the table, for the message.
    """
    parts = tuple(SHARES.values())[: 2 if tests else 3]
    counts = np.array([list(class_counts(group, class_names).values()) for group in groups], dtype=np.int64)
    expected = (
        f"at least {len(parts)} groups, one each for train, val{' beside the test set' if tests else ' and test'}"
    )
    faults = [
        Fault(
            "table.few_groups",
            str(path),
            f"class {name!r}: found {column.sum()} slides in {(column > 0).sum()} groups",
            expected,
        )
        for name, column in zip(class_names, counts.T, strict=True)
        if (column > 0).sum() < len(parts)
    ]
    if faults:
        raise UserError(faults)
    folds = []
    for fold in range(k):
        generator = np.random.default_rng([seed, fold])
        places = [*divide(counts, generator, parts), *[SPLIT_NAMES.index("test")] * len(tests)]
        divided: dict[str, list[Slide]] = {}
        for part, name in enumerate(SPLIT_NAMES):
            members = [
                slide
                for group, place in zip([*groups, *tests], places, strict=True)
                if place == part
                for slide in group
            ]
            members.sort(key=lambda slide: slide.slide_id)
            drawn = [members[index] for index in generator.permutation(len(members))]
            divided[name] = sorted(drawn, key=lambda slide: slide.label)
        folds.append(Split(fold, **divided))
    return folds


def official_test(
    path: Path, groups: Sequence[list[Slide]], pattern: str, class_names: Sequence[str]
) -> tuple[list[list[Slide]], list[list[Slide]]]:
    """The groups outside a given test set, and those in it: all slides whose names match ``pattern`` at their start.

    Raises UserError where a group has slides in it and outside it, and for each class without a slide in it.
    """
    matched = [[bool(re.match(pattern, slide.slide_id)) for slide in group] for group in groups]
    torn = [group[0].patient for group, found in zip(groups, matched, strict=True) if any(found) and not all(found)]
    faults = []
    if torn:
        found = f"{len(torn)} groups have slides in the test set and outside it ({listed(torn)})"
        faults.append(Fault("split.torn_group", f"--test_slides {pattern}", found, mend="--group slide divides them"))
    tests = [group for group, found in zip(groups, matched, strict=True) if all(found)]
    counts = class_counts([slide for group in tests for slide in group], class_names)
    if missing := [name for name, number in counts.items() if not number]:
        found = f"matches no slide of {listed(missing)} in {path}"
        faults.append(Fault("split.no_test_slide", f"--test_slides {pattern}", found, "slides of every class"))
    if faults:
        raise UserError(faults)
    return [group for group, found in zip(groups, matched, strict=True) if not any(found)], tests


def take_slides(
    path: Path, folds: Sequence[Split], class_names: Sequence[str], numbers: Mapping[str, int]
) -> list[Split]:
    """The folds with the first ``numbers[split]`` slides of each class, so that fewer shots are nested in more; a split
    without a number keeps all. Raises UserError naming each class and split with too few."""
    faults = []
    for name, share in SHARES.items():
        needed = numbers.get(name, 1)
        for class_name in class_names:
            found, fold = min((class_counts(getattr(fold, name), class_names)[class_name], fold.fold) for fold in folds)
            if found < needed:
                part = (
                    f"class {class_name!r}: found {found} slides in the {name} part ({share} of {WHOLE}) of fold {fold}"
                )
                expected = f"{needed}: about {-(-needed * WHOLE // share)} in the table, or finer groups"
                faults.append(Fault("table.few_slides", str(path), part, expected))
    if faults:
        raise UserError(faults)
    return [replace(fold, **{name: getattr(take_few(fold, n), name) for name, n in numbers.items()}) for fold in folds]
