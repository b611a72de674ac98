"""Formats of slides that OpenSlide does not read, downloads that have not ended, and the commands that help."""

import shlex
from dataclasses import dataclass
from pathlib import Path

PYRAMID = "--tile --pyramid --compression jpeg --Q 90 --bigtiff"
VIPS = f"vips tiffsave {{file}} {{slide}} {PYRAMID}"
BIO_FORMATS = (
    f"bfconvert -series 0 -tilex 512 -tiley 512 {{file}} {{tiles}} && vips tiffsave {{tiles}} {{slide}} {PYRAMID}"
)
DICOM = "wsidicomizer --input {file} --output {folder}, a DICOM series (pip install 'wsidicomizer[isyntax]')"
EXPORTED = "export {{file}} as SVS or tiled TIFF with {program}"


@dataclass(frozen=True)
class ForeignFormat:
    """what: the format, in words. convert: how a slide is made of a file: {file} stands for the file, {slide} for the
    slide, {tiles} and {folder} for what else the command writes."""

    what: str
    suffixes: tuple[str, ...]
    convert: str

    def how(self, file: Path) -> str:
        """How a slide of the same name is made of this file."""
        slide = file.with_suffix(".tif")
        made = slide if slide != file else file.with_suffix(".new.tif")
        places = {"file": file, "slide": made, "tiles": file.with_suffix(".tiles.tif"), "folder": file.with_suffix("")}
        told = self.convert.format(**{name: shlex.quote(str(place)) for name, place in places.items()})
        return told if made == slide else f"{told} && mv {shlex.quote(str(made))} {shlex.quote(str(file))}"


IMAGE = ForeignFormat("plain images", (".png", ".jpg", ".jpeg", ".bmp", ".jp2", ".j2k", ".webp"), VIPS)
FORMATS = (
    ForeignFormat("of Olympus", (".vsi", ".oir"), BIO_FORMATS),
    ForeignFormat("of Akoya or PerkinElmer", (".qptiff",), VIPS),
    ForeignFormat("of Philips", (".isyntax",), DICOM),
    ForeignFormat("of KFBIO", (".kfb",), EXPORTED.format(program="KFBIO's K-Viewer")),
    ForeignFormat("of Sqray", (".sdpc", ".dyqx"), EXPORTED.format(program="Sqray's viewer")),
    ForeignFormat("of UNIC", (".tmap",), EXPORTED.format(program="UNIC's viewer")),
    ForeignFormat("of Motic", (".mds", ".mdsx"), EXPORTED.format(program="Motic's DSAssistant")),
    ForeignFormat("BigTIFF", (".btf", ".tf2", ".tf8"), VIPS),
    ForeignFormat("of microscopes", (".zvi", ".lif", ".nd2", ".ims"), BIO_FORMATS),
    IMAGE,
)
FOREIGN = {suffix: one for one in FORMATS for suffix in one.suffixes}
"""By suffix."""
UNFINISHED = (".partial", ".part", ".crdownload", ".download", ".filepart", ".aria2")
"""Behind the name of a file: what gdc-client, browsers and other programs call a download that has not ended."""
