"""Features from before the projection of their model, told by a width that is the image tower's and not the texts'."""

from datasets.folders import FeatureFolders
from models.vlms.registry import Source, load_head
from utils.errors import Fault, Faults, UserError


def check_projected(folders: FeatureFolders, width: int | None, source: Source, output_dim: int) -> None:
    """Raises UserError where features are as wide as what the model's image tower gives before its projection, with the
    command that projects them.

    width: of the features of a run (None: not known). source: the model of the texts. output_dim: the width of the text
    features. Only where the two widths differ is the model's projection looked at.
    """
    if width in (None, output_dim):
        return
    head = Faults().attempt(load_head, source.feature_extractor, source.vlm_path)
    if not head or width not in head.value.widths:
        return
    model = head.value.told
    found = (
        f"features are {width} wide, as the image tower of {model} gives them before its projection "
        f"({head.value.name}): no cosine of them and a text means anything"
    )
    expected = f"projected features, {output_dim} wide as those of the texts"
    mend = f"project them with: {folders.projection_command(source.vlm_path or model)}"
    if not folders.low_file("slide").parent.is_dir():
        mend = f"extract them projected: {folders.extract_command()}"
    raise UserError(Fault("features.unprojected", str(folders.place), found, expected, mend))
