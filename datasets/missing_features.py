"""What to do about features that are missing, by what lies where they are looked for."""

from glob import escape

from datasets.feature_layouts import REFERENCE, FeatureSource, encoders_of_jobs, find_source
from datasets.folders import FeatureFolders
from datasets.slide_names import file_of
from utils.commands import options_text
from utils.errors import UserError
from utils.interface import BagForm
from utils.model_types import FLAT
from utils.words import listed


def how_to_make(folders: FeatureFolders, form: BagForm = "hierarchy", slide_id: str | None = None) -> str:
    """A sentence with the command that makes a task's features, or those of one slide: it links or copies what another
    tool made, names the extractor whose features are there, or extracts the slides."""
    extract = f"make them with: {folders.extract_command()}"
    if folders.features_from:
        return f"{folders.features_from} lacks them: name another job with --features-from, or leave it out"
    low = _there(folders, folders.low_magnification, slide_id)
    high = _there(folders, folders.high_magnification, slide_id)
    if (low and high) or (high and form == "patches"):
        return _how_to_link(folders, [source for source in (low, high) if source])
    if slide_id:
        return extract
    if high:
        return (
            f"{high.folder} holds {folders.high_magnification}x features alone, enough for --model_type "
            f"{listed(FLAT, len(FLAT), quote=False)}; for the others extract both scales: {folders.extract_command()}"
        )
    if others := encoders_there(folders):
        return f"there are features of {listed(others)}: name one with --feature_extractor, or {extract}"
    if folders.root.is_dir():
        return extract
    return f"{extract} (or, from existing ones of both scales, {folders.hierarchy_command()})"


def encoders_there(folders: FeatureFolders) -> list[str]:
    """Other extractors whose features of the task are there."""
    start = f"{folders.task}_"
    own = [
        folder.name.removeprefix(start)
        for folder in sorted(folders.data_root.glob(f"{escape(start)}*"))
        if folder.is_dir() and any(folder.glob(f"{escape(folder.name.removeprefix(start))}_*x"))
    ]
    places = folders.root, folders.data_root / folders.task, folders.data_root
    found = dict.fromkeys([*own, *(name for place in places for name in encoders_of_jobs(place))])
    return [name for name in found if name != folders.feature_extractor]


def _how_to_link(folders: FeatureFolders, there: list[FeatureSource]) -> str:
    """there: the features of both scales, or of the high one alone."""
    *_, high = there
    told = " and ".join(f"{source.folder} ({source.layout.name})" for source in there)
    dirs = {"low-dir": there[0].folder, "high-dir": high.folder} if len(there) == 2 else {"high-dir": high.folder}
    away = any(not source.folder.is_relative_to(folders.root) for source in there)
    own = all(source.layout is REFERENCE for source in there)
    command = " ".join(filter(None, [folders.hierarchy_command(), options_text(dirs) if away and not own else ""]))
    if len(there) == 1:
        return f"features are in {told}: copy them with: {command}"
    in_place = ""
    if all(source.layout.name == "trident" for source in there):
        in_place = f", or read them in their place with {options_text({'features-from': high.folder.parent.parent})}"
    return f"features of both scales are in {told}: link them with: {command}{in_place}"


def _there(folders: FeatureFolders, magnification: int, slide_id: str | None) -> FeatureSource | None:
    """Features of a magnification, of one slide where it is named, in the task's folders or in the data root."""
    for given in (None, folders.data_root):
        try:
            source = find_source(folders, magnification, given=given)
        except UserError:
            continue
        if slide_id is None or file_of(source.folder, slide_id).is_file():
            return source
    return None
