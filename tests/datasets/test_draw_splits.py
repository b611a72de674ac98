"""Making folds: invariants on random tables, brute force on small ones, the released tables' shares."""

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from datasets.draw_splits import divide, draw_folds, group_slides, take_slides
from datasets.splits import PAIRS, Split, shared_patients, shared_sites
from datasets.task import Slide, read_sites, read_slides
from tests.support.faults import expect_faults
from utils.errors import UserError

TABLE = Path("table.csv")
PARTS = ("train", "val", "test")
SHARES = np.array([[0.4], [0.3], [0.3]])
TASKS = ("tcga_brca", "tcga_nsclc", "tcga_rcc")
repeatable = settings(derandomize=True, deadline=None, max_examples=40)


def make_slide(number: int, label: int, patient: int, site: int, tcga: bool) -> Slide:
    if tcga:
        return Slide(f"TCGA-S{site}-{patient:04d}-01Z-00-DX{number}", f"counter_{number}", label)
    return Slide(f"slide_{number}", f"patient_{patient}", label)


@st.composite
def any_table(draw: st.DrawFn) -> tuple[list[Slide], dict[str, str]]:
    """Up to 60 slides of 2 or 3 classes, sorted by slide_id, and their sites. A patient may have slides of several
    classes and sites."""
    num_classes = draw(st.integers(2, 3))
    tcga = draw(st.booleans())
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, num_classes - 1), st.integers(0, 30), st.integers(0, 9)), min_size=8, max_size=60
        )
    )
    slides = [make_slide(number, *row, tcga) for number, row in enumerate(rows)]
    sites = {slide.slide_id: f"S{row[2]}" for slide, row in zip(slides, rows, strict=True)}
    assume(len({slide.label for slide in slides}) == num_classes)
    return sorted(slides, key=lambda slide: slide.slide_id), sites


def class_names(slides: list[Slide]) -> list[str]:
    return [f"CLASS_{label}" for label in range(max(slide.label for slide in slides) + 1)]


def folds_of(slides: list[Slide], sites: dict[str, str], group: str, k: int = 2, seed: int = 1) -> list[Split]:
    """The folds; the example is dropped where a class cannot be everywhere."""
    try:
        folds = draw_folds(TABLE, group_slides(TABLE, slides, group, sites), class_names(slides), k, seed)
        take_slides(TABLE, folds, class_names(slides), {})
    except UserError:
        assume(False)
    return folds


def labels(slides: list[Slide]) -> Counter[int]:
    return Counter(slide.label for slide in slides)


# ---- slides, sites, groups -------------------------------------------------------------------------------------------


@repeatable
@given(any_table())
def test_groups_are_the_connected_slides(table: tuple[list[Slide], dict[str, str]]) -> None:
    slides, sites = table
    for group in ("patient", "site", "slide"):
        keys = {
            slide: {"patient": {slide.patient}, "slide": {slide.slide_id}}.get(
                group, {slide.patient, sites[slide.slide_id]}
            )
            for slide in slides
        }
        expected: list[tuple[set[str], set[Slide]]] = []  # brute force: merge all that have a key in common
        for slide in slides:
            touching = [one for one in expected if one[0] & keys[slide]]
            expected = [one for one in expected if one not in touching]
            names = keys[slide].union(*(one[0] for one in touching))
            expected.append((names, {slide}.union(*(one[1] for one in touching))))
        groups = group_slides(TABLE, slides, group, sites)
        assert sorted(sorted(slide.slide_id for slide in one) for one in groups) == sorted(
            sorted(slide.slide_id for slide in members) for _, members in expected
        )


def test_slides_without_a_site_are_named(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("case_id,slide_id,label\np,s1,A\nq,s2,B\nr,TCGA-A7-0001-01Z,A\n")
    _, slides = read_slides(table)
    with expect_faults("table.ungrouped_slide") as faults:
        group_slides(table, list(slides.values()), "site", read_sites(table))
    assert faults[0].where == str(table)
    assert faults[0].found.startswith("2 slides without a site (s1, s2); found the columns case_id, slide_id, label")
    assert faults[0].expected.startswith("a column site without gaps")


# ---- folds -----------------------------------------------------------------------------------------------------------


@repeatable
@given(any_table(), st.sampled_from(["patient", "site", "slide"]), st.integers(0, 2**40))
def test_every_slide_has_one_part_and_no_group_two(
    table: tuple[list[Slide], dict[str, str]], group: str, seed: int
) -> None:
    slides, sites = table
    for fold in folds_of(slides, sites, group, seed=seed):
        members = dict(fold.parts())
        assert Counter(slide for part in members.values() for slide in part) == Counter(slides)
        for name in PARTS:
            assert set(labels(members[name])) == {slide.label for slide in slides}, "a class is not in every split"
        for first, second in PAIRS:
            if group != "slide":
                assert not shared_patients(fold, first, second)
            if group == "site":
                assert not shared_sites(fold, first, second, sites)


@repeatable
@given(any_table(), st.sampled_from(["patient", "site", "slide"]), st.randoms(use_true_random=False))
def test_neither_the_order_of_the_table_nor_other_folds_matter(
    table: tuple[list[Slide], dict[str, str]], group: str, random: Random
) -> None:
    slides, sites = table
    shuffled = random.sample(slides, len(slides))
    assert folds_of(shuffled, sites, group, k=3)[:2] == folds_of(slides, sites, group, k=2)


@repeatable
@given(any_table(), st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 4), st.integers(1, 4))
def test_shots_are_exact_and_nested(
    table: tuple[list[Slide], dict[str, str]], shots: list[int], val: int, test: int
) -> None:
    slides, sites = table
    wholes = folds_of(slides, sites, "patient")
    names = class_names(slides)
    taken: dict[int, list[Split]] = {}
    for number in shots:
        try:
            taken[number] = take_slides(TABLE, wholes, names, {"train": number})
        except UserError:
            assert any(labels(whole.train)[label] < number for whole in wholes for label in range(len(names)))
            continue
        for whole, split in zip(wholes, taken[number], strict=True):
            assert labels(split.train) == dict.fromkeys(range(len(names)), number)
            assert set(split.train) <= set(whole.train)
            assert (split.val, split.test) == (whole.val, whole.test)
    for fewer, more in itertools.combinations(sorted(taken), 2):
        for small, large in zip(taken[fewer], taken[more], strict=True):
            assert set(small.train) <= set(large.train)
    try:
        balanced = take_slides(TABLE, wholes, names, {"train": 1, "val": val, "test": test})
    except UserError:
        return
    for whole, split in zip(wholes, balanced, strict=True):
        for name, number in (("val", val), ("test", test)):
            assert labels(getattr(split, name)) == dict.fromkeys(range(len(names)), number)
            assert set(getattr(split, name)) <= set(getattr(whole, name))


@repeatable
@given(st.integers(0, 10**6), st.lists(st.integers(3, 40), min_size=2, max_size=3))
def test_single_slides_are_divided_to_within_a_slide(seed: int, sizes: list[int]) -> None:
    counts = np.repeat(np.eye(len(sizes), dtype=np.int64), sizes, axis=0)
    places = divide(counts, np.random.default_rng(seed))
    held = np.stack([counts[places == part].sum(0) for part in range(3)])
    assert (abs(held - SHARES * np.array(sizes)) < 1).all()


def everywhere(counts: np.ndarray, places: np.ndarray) -> bool:
    """Whether every part holds every class."""
    return all((counts[places == part].sum(0) > 0).all() for part in range(3))


def test_a_class_is_everywhere_where_brute_force_finds_a_way() -> None:
    generator = np.random.default_rng(0)
    hard = [[5, 0, 20, 20], [0, 0, 0, 20], [0, 1, 20, 0], [1, 20, 20, 0], [20, 2, 0, 2], [2, 0, 5, 0]]
    tables = [np.array(hard)] + [generator.choice([0, 0, 0, 1, 2, 5, 20], (6, 2 + n % 3)) for n in range(250)]
    seen = {True: 0, False: 0}
    for counts in (table[table.any(1)] for table in tables):
        if ((counts > 0).sum(0) >= 3).all():
            ways = itertools.product(range(3), repeat=len(counts))
            possible = any(everywhere(counts, np.array(way)) for way in ways)
            assert everywhere(counts, divide(counts, np.random.default_rng(0))) is possible
            seen[possible] += 1
    assert seen[True] > 30
    assert seen[False] > 0


def badness(counts: np.ndarray, places: np.ndarray) -> float:
    """Squared deviations from 4:3:3 by part and class, summed; a part that lacks a class is worse than any."""
    held = np.stack([counts[places == part].sum(0) for part in range(3)])
    return float(((held / counts.sum(0) - SHARES) ** 2).sum() + 6 * (held == 0).sum())


def test_no_move_of_a_group_brings_the_parts_nearer_to_their_shares() -> None:
    generator = np.random.default_rng(3)
    for seed in range(40):
        counts = generator.integers(0, 12, (9, 2)) + np.eye(9, 2, dtype=np.int64)
        places = divide(counts, np.random.default_rng(seed))
        for group, part in itertools.product(range(9), range(3)):
            moved = places.copy()
            moved[group] = part
            assert badness(counts, moved) > badness(counts, places) - 1e-4, (seed, group, part)


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        (np.repeat(np.eye(2, dtype=np.int64), 10, axis=0), (0.4, 0.3, 0.3)),
        (np.full((4, 2), 10), (0.5, 0.25, 0.25)),  # equally far from 4:3:3 whichever is where
    ],
)
def test_no_group_is_favoured(counts: np.ndarray, shares: tuple[float, ...]) -> None:
    places = np.stack([divide(counts, np.random.default_rng([seed])) for seed in range(200)])
    for part, share in enumerate(shares):
        assert (abs((places == part).mean(0) - share) < 0.15).all()  # standard error 0.035


def test_every_slide_of_the_pool_can_be_a_shot() -> None:
    slides = [Slide(f"{name}{n}", f"{name}{n}", label) for label, name in enumerate("ab") for n in range(10)]
    drawn: Counter[Slide] = Counter()
    for seed in range(400):
        wholes = draw_folds(TABLE, [[slide] for slide in slides], ["A", "B"], 1, seed)
        drawn.update(take_slides(TABLE, wholes, ["A", "B"], {"train": 1})[0].train)
    assert all(abs(drawn[slide] - 40) < 24 for slide in slides)  # standard error 6


def test_too_few_groups_of_a_class_are_named() -> None:
    slides = [Slide(f"a{n}", f"p{n}", 0) for n in range(9)] + [Slide(f"b{n}", f"q{n % 2}", 1) for n in range(7)]
    groups = group_slides(TABLE, slides, "patient", dict.fromkeys((slide.slide_id for slide in slides), ""))
    with expect_faults("table.few_groups") as faults:
        draw_folds(TABLE, groups, ["A", "B"], 2, 1)
    assert faults[0].found == "class 'B': found 7 slides in 2 groups"
    assert faults[0].expected.startswith("at least 3 groups")


def test_too_few_slides_of_a_class_are_named() -> None:
    slides = [
        Slide(f"{name}{n}", f"{name}{n}", label) for label, name in enumerate("ab") for n in range(20 - 10 * label)
    ]
    wholes = draw_folds(TABLE, [[slide] for slide in slides], ["A", "B"], 2, 1)
    assert len(take_slides(TABLE, wholes, ["A", "B"], {"train": 4, "test": 3})) == 2
    with expect_faults("table.few_slides", "table.few_slides") as faults:
        take_slides(TABLE, wholes, ["A", "B"], {"train": 8, "test": 4})
    train, test = faults
    assert train.found == "class 'B': found 4 slides in the train part (4 of 10) of fold 0"
    assert train.expected.startswith("8: about 20 in the table")
    assert test.found == "class 'B': found 3 slides in the test part (3 of 10) of fold 0"
    assert test.expected.startswith("4: about 14 in the table")


def test_the_draw_is_the_same_on_every_machine() -> None:
    slides = [make_slide(n, n % 3, n % 50, n % 11, tcga=True) for n in range(120)]
    sites = {slide.slide_id: slide.slide_id[5:7] for slide in slides}
    folds = [fold for group in ("patient", "slide") for fold in folds_of(slides, sites, group, k=3, seed=5)]
    text = "".join(fold.to_csv() for fold in folds)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "7937adccbd0cf7d602d6de0d265bf6a5fd79cb0c97f3ee02a2e18f74bf617cbe"
    )


# ---- the released tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("group", "tolerance"), [("patient", 0.006), ("slide", 0.006), ("site", 0.05)])
def test_released_tables_are_divided_as_4_3_3(released: Path, task: str, group: str, tolerance: float) -> None:
    table = released / "dataset_csv" / f"{task}.csv"
    names, by_id = read_slides(table)
    slides, sites = [by_id[name] for name in sorted(by_id)], read_sites(table)
    folds = draw_folds(table, group_slides(table, slides, group, sites), names, 5, 1)
    totals = np.array([labels(slides)[label] for label in range(len(names))])
    for fold in folds:
        held = np.array([[labels(part)[label] for label in range(len(names))] for _, part in fold.parts()])
        assert (held.sum(0) == totals).all()
        assert abs(held / totals - SHARES).max() <= tolerance
    for one, other in itertools.combinations(folds, 2):
        assert len(set(one.test) & set(other.test)) < 0.8 * len(one.test), "folds are repeats of one another"
