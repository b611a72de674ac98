"""Class texts in other forms than HiVE-MIL's descriptions: those of ViLa-MIL (and FOCUS) and of MSCPT.

"ViLa_MIL" is a CSV ``class,scale,prompt`` with one low and one high prompt a class; "MSCPT" a JSON of
``{class: {"small_mag": [low texts], "big_mag": [high texts]}}``. Both can be made from HiVE-MIL's descriptions
(``texts_from_descriptions``), so every task that has these runs with every model.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets.descriptions import TEXT_FORMATS, Descriptions, read_descriptions, text_faults, with_composed_names
from datasets.slide_names import composed
from utils.errors import Fault, Faults, UserError
from utils.files import read_json
from utils.tables import read_rows

HEADER = ["class", "scale", "prompt"]
# how a form calls the low and the high scale
SCALES = {"ViLa_MIL": ("low", "high"), "MSCPT": ("small_mag", "big_mag")}
EXPECTED = {
    "ViLa_MIL": f"a CSV with the header {','.join(HEADER)} and one low and one high prompt for each class",
    "MSCPT": 'a JSON of {class: {"small_mag": [low texts], "big_mag": [high texts]}}',
}
PROMPT = "A slide of {name} at {scale} resolution shows {traits}."


def has_own_form(form: str, path: Path) -> bool:
    """Whether a file is of the form itself, not HiVE-MIL's JSON, from which the texts must be made."""
    if form == "ViLa_MIL":
        return path.suffix.lower() != ".json"
    text = path.read_bytes()
    return any(f'"{scale}"'.encode() in text for scale in SCALES[form])


def read_class_texts(
    form: str,
    path: Path,
    class_names: Sequence[str] | None,
    num_low: int,
    num_subtexts: int,
    text_format: str = "both",
    fits: Callable[[str], bool] = lambda prompt: True,
) -> Descriptions:
    """The texts of some classes; other classes of the file are passed over.

    form: "ViLa_MIL" or "MSCPT". path: a file of that form, or HiVE-MIL's JSON. class_names: by default all classes of
    the file, sorted. The rest is for texts made from HiVE-MIL's descriptions: their numbers, what of them MSCPT reads
    (both, term or explanation), and whether a prompt of ViLa-MIL is short enough for the text tower. Raises UserError
    with every fault.
    """
    if not path.exists():
        mend = f"name with --text_prompt {EXPECTED[form]}, or HiVE-MIL's JSON of descriptions"
        raise UserError(Fault("prompt.missing", str(path), "the class texts are not there", mend=mend))
    if not has_own_form(form, path):
        try:
            descriptions = read_descriptions(path, class_names, num_low, num_subtexts, text_format)
        except UserError as error:
            found = f"read as HiVE-MIL's descriptions; the other form would be {EXPECTED[form]}"
            raise UserError([*error.faults, Fault("prompt.other_form", str(path), found)]) from error
        made = texts_from_descriptions(form, descriptions.by_class, num_low, text_format, fits)
        return arrange_class_texts(form, made, [*made], str(path))
    faults = Faults()
    by_class = _read_csv(class_names, path, faults) if form == "ViLa_MIL" else _read_json(path)
    names = sorted(by_class) if class_names is None else class_names
    texts = faults.attempt(arrange_class_texts, form, by_class, names, str(path))
    faults.raise_any()
    return texts.value


def arrange_class_texts(
    form: str, by_class: Mapping[str, Mapping[str, Any]], class_names: Sequence[str], source: str = "class texts"
) -> Descriptions:
    """Class-major lists from {class: texts}: of ViLa_MIL {class: {"low": prompt, "high": prompt}}, of MSCPT as its
    file. ``source`` is named in the faults. Raises UserError with every fault: a class or scale without texts, empty
    ones, and, of MSCPT, classes with different numbers of them."""
    faults: list[Fault] = []
    texts: dict[str, list[str]] = {scale: [] for scale in SCALES[form]}
    numbers: dict[str, dict[str, int]] = {scale: {} for scale in SCALES[form]}
    for name in class_names:
        entry = by_class.get(name)
        if not isinstance(entry, Mapping):
            found_classes = f"no texts of the class {name!r}; found {sorted(by_class)}"
            faults.append(Fault("prompt.missing_class", source, found_classes, EXPECTED[form]))
            continue
        for scale in SCALES[form]:
            found = [entry.get(scale)] if form == "ViLa_MIL" else entry.get(scale)
            if not isinstance(found, list) or not found or not all(isinstance(text, str) for text in found):
                faults.append(Fault("prompt.form", source, f"class {name!r} lacks {scale} texts", EXPECTED[form]))
                continue
            faults += text_faults(source, name, found, f"{scale} text")
            numbers[scale][name] = len(found)
            texts[scale] += found
    for scale, counts in numbers.items():
        if len({*counts.values()}) > 1:
            differing = f"the numbers of {scale} texts differ ({counts})"
            faults.append(Fault("prompt.number", source, differing, expected="one for all classes"))
    if faults:
        raise UserError(faults)
    low, high = texts.values()
    return Descriptions({name: by_class[name] for name in class_names}, low, high)


def texts_from_descriptions(
    form: str,
    by_class: Mapping[str, Mapping[str, str]],
    num_low: int,
    text_format: str = "both",
    fits: Callable[[str], bool] = lambda prompt: True,
) -> dict[str, dict[str, Any]]:
    """{class: texts} of a form from HiVE-MIL's {class: {term: explanation}}, the ``num_low`` low ones first.

    ViLa_MIL: "A slide of CLASS at low resolution shows TERM, TERM." with the low terms, and so for high ones, as many
    as fit: first one of each low description, then a second of each, and so on. MSCPT: the descriptions in
    ``text_format``.
    """
    made: dict[str, dict[str, Any]] = {}
    for name, entries in by_class.items():
        if form == "ViLa_MIL":
            low, high = [*entries][:num_low], [*entries][num_low:]
            num_subtexts = len(high) // num_low
            in_turn = [high[o * num_subtexts + s] for s in range(num_subtexts) for o in range(num_low)]
            made[name] = {"low": _prompt(name, "low", low, fits), "high": _prompt(name, "high", in_turn, fits)}
        else:
            texts = [TEXT_FORMATS[text_format].format(term=term, explanation=text) for term, text in entries.items()]
            made[name] = {"small_mag": texts[:num_low], "big_mag": texts[num_low:]}
    return made


def _prompt(name: str, scale: str, terms: Sequence[str], fits: Callable[[str], bool]) -> str:
    """The longest prompt that fits; with one term where none does."""
    lengths = range(1, len(terms) + 1)
    prompts = [PROMPT.format(name=name, scale=scale, traits=", ".join(terms[:length])) for length in lengths]
    return next((prompt for prompt in reversed(prompts) if fits(prompt)), prompts[0])


def _read_json(path: Path) -> dict[str, Any]:
    by_class = with_composed_names(read_json(path, "prompt.unreadable", EXPECTED["MSCPT"]))
    if not isinstance(by_class, dict):
        found = f"found a {type(by_class).__name__}"
        raise UserError(Fault("prompt.unreadable", str(path), found, EXPECTED["MSCPT"]))
    return by_class


def _read_csv(class_names: Sequence[str] | None, path: Path, faults: Faults) -> dict[str, dict[str, str]]:
    """{class: {scale: prompt}}. Raises UserError where there is neither the header nor, as in the authors' files, one
    column with two prompts a class."""
    try:
        rows = read_rows("prompt.unreadable", path)
    except UserError as error:
        raise UserError([replace(fault, expected=EXPECTED["ViLa_MIL"]) for fault in error.faults]) from error
    header = [cell.lower() for cell in rows[0][1]]
    if {*HEADER} <= {*header}:
        entries = _rows_with_header(header, rows[1:], path, faults)
    elif class_names is not None and len(rows) == 2 * len(class_names) and all(len(row) == 1 for _, row in rows):
        entries = _rows_that_name_themselves([row[0] for _, row in rows], class_names, path, faults)
    else:
        found = f"{len(rows)} rows, the first of them {', '.join(header)[:80]!r}"
        raise UserError(Fault("prompt.unreadable", str(path), found, EXPECTED["ViLa_MIL"]))
    by_class: dict[str, dict[str, str]] = {}
    for name, scale, prompt in entries:
        by_class.setdefault(name, {})[scale] = prompt
    for (name, scale), number in Counter((name, scale) for name, scale, _ in entries).items():
        if number > 1:
            found = f"{number} {scale} prompts of the class {name!r}"
            faults.add(Fault("prompt.repeated", str(path), found, expected="one"))
    return by_class


def _rows_with_header(
    header: list[str], rows: list[tuple[int, list[str]]], path: Path, faults: Faults
) -> list[tuple[str, str, str]]:
    """(class, scale, prompt) of each row."""
    entries = []
    for number, row in rows:
        cells = dict(zip(header, row, strict=False))
        if len(row) != len(header):
            found, mend = f"row {number} has {len(row)} columns", "put prompts with commas into quotes"
            faults.add(Fault("prompt.row", str(path), found, expected=str(len(header)), mend=mend))
        elif cells["scale"] not in SCALES["ViLa_MIL"]:
            found = f"row {number} has the scale {cells['scale']!r}"
            faults.add(Fault("prompt.row", str(path), found, expected="low or high"))
        else:
            entries.append((composed(cells["class"]), cells["scale"], cells["prompt"]))
    return entries


def _rows_that_name_themselves(
    prompts: list[str], class_names: Sequence[str], path: Path, faults: Faults
) -> list[tuple[str, str, str]]:
    """(class, scale, prompt) of each prompt, which must name one class and one resolution."""
    entries = []
    for number, prompt in enumerate(prompts, start=1):
        classes = [name for name in class_names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", prompt)]
        scales = {*re.findall(r"\b(low|high)[\s-]+(?:resolution|magnification)", prompt.lower())}
        if len(classes) == 1 and len(scales) == 1:
            entries.append((classes[0], scales.pop(), prompt))
        else:
            found = f"row {number} names the classes {classes} and the resolutions {sorted(scales)} ({prompt[:60]!r})"
            faults.add(Fault("prompt.row", str(path), found, f"one of each, or the header {','.join(HEADER)}"))
    return entries
