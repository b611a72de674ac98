"""Class descriptions: a JSON file of terms and explanations, low ones first, then their high ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import category

from datasets.slide_names import composed
from utils.commands import command
from utils.errors import Fault, UserError
from utils.files import read_json
from utils.words import listed

INVISIBLE = "ZCM"  # Unicode's categories of blanks, controls and marks
TEXT_FORMATS = {"both": "{term} : {explanation}", "term": "{term}", "explanation": "{explanation}"}


@dataclass(frozen=True)
class Descriptions:
    """A task's texts in the order used everywhere: class-major, then low text, then its high texts.

    by_class: {class: {term: explanation}} as read. low_texts: K*O strings. high_texts: K*O*S strings.
    """

    by_class: Mapping[str, Mapping[str, str]]
    low_texts: list[str]
    high_texts: list[str]


def read_descriptions(
    path: Path, class_names: Sequence[str] | None, num_low: int, num_subtexts: int, text_format: str = "both"
) -> Descriptions:
    """Read and check the descriptions of some classes; other classes of the file are passed over.

    class_names: by default all classes of the file, sorted. num_low: O low texts a class. num_subtexts: S high texts a
    low text. text_format: both, term or explanation. Raises UserError with every fault: a class without descriptions,
    another number than O + O*S, empty or doubled ones.
    """
    if not path.exists():
        mend = f"name a file with --text_prompt, or make it: {_command(str(path), class_names)}"
        raise UserError(Fault("prompt.missing", str(path), "the descriptions are not there", mend=mend))
    by_class = read_json(path, "prompt.unreadable", "{class: {term: explanation}}")
    by_class = with_composed_names(by_class)
    names = sorted(by_class) if class_names is None and isinstance(by_class, dict) else class_names or []
    return arrange_descriptions(by_class, names, num_low, num_subtexts, text_format, str(path))


def arrange_descriptions(
    by_class: Mapping[str, Mapping[str, str]],
    class_names: Sequence[str],
    num_low: int,
    num_subtexts: int,
    text_format: str = "both",
    source: str = "descriptions",
) -> Descriptions:
    """As ``read_descriptions``, from a mapping; ``source`` is named in the faults."""
    if not isinstance(by_class, dict):
        found = f"found a {type(by_class).__name__}"
        raise UserError(Fault("prompt.form", source, found, expected="{class: {term: explanation}}"))
    expected = num_low + num_low * num_subtexts
    faults: list[Fault] = []
    low_texts: list[str] = []
    high_texts: list[str] = []
    for name in class_names:
        entries = by_class.get(name)
        if entries is None:
            found = f"no descriptions of the class {name!r}; found [{listed(sorted(by_class))}]"
            mend = f"add them, or make a new file: {_command(source, class_names)}"
            faults.append(Fault("prompt.missing_class", source, found, mend=mend))
            continue
        if not isinstance(entries, dict) or not all(isinstance(text, str) for text in entries.values()):
            found = f"class {name!r} is not of the form {{term: explanation}}"
            faults.append(Fault("prompt.form", source, found))
            continue
        if len(entries) != expected:
            wanted = f"{expected} ({num_low} low ones and {num_subtexts} high ones for each)"
            mend = "see --num_low_mag_texts and --num_high_mag_subtexts"
            found = f"class {name!r} has {len(entries)} descriptions"
            faults.append(Fault("prompt.number", source, found, wanted, mend))
        faults += text_faults(source, name, [*entries, *entries.values()], "term or explanation")
        texts = [TEXT_FORMATS[text_format].format(term=term, explanation=text) for term, text in entries.items()]
        low_texts += texts[:num_low]
        high_texts += texts[num_low:]
    if faults:
        raise UserError(faults)
    return Descriptions({name: by_class[name] for name in class_names}, low_texts, high_texts)


def _command(source: str, class_names: Sequence[str] | None) -> str:
    classes = list(class_names or ["CLASS_A", "CLASS_B"])
    form, language_model = Path(source).parts[-3:-1] if len(Path(source).parts) > 2 else ("", "")
    is_asked = form == "HiVE_MIL" and language_model != "builtin"
    name = language_model if is_asked else "NAME"
    return command("create_text_prompt.py", task=Path(source).stem, classes=classes, LLM=name)


def text_faults(source: str, class_name: str, texts: Sequence[str], what: str) -> list[Fault]:
    """The texts of a class, ``what`` they are called, that describe nothing: nothing to be seen in them, or control
    characters."""
    empty = [text for text in texts if all(category(sign)[0] in INVISIBLE for sign in text)]
    controlled = [text for text in texts if any(category(sign) == "Cc" and not sign.isspace() for sign in text)]
    faults = []
    if empty:
        found = f"class {class_name!r} has an empty {what} ({listed(empty)})"
        faults.append(Fault("prompt.empty", source, found, "text that can be seen"))
    if controlled:
        found = f"class {class_name!r} has control characters in a {what} ({listed(controlled)})"
        faults.append(Fault("prompt.characters", source, found, "text alone"))
    return faults


def with_composed_names(by_class: Any) -> Any:
    """{class: anything} with the names of the classes as ``read_slides`` gives them; any other value as it is."""
    return {composed(name): value for name, value in by_class.items()} if isinstance(by_class, dict) else by_class
