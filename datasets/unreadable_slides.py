"""Why OpenSlide does not read a file: what the file is, and the command that makes a slide of it."""

import logging
from pathlib import Path

import tifffile

from datasets.foreign_slides import IMAGE, VIPS, ForeignFormat
from utils.errors import Fault

HEAD = 4096  # bytes
LONGEST_SIGN = 4  # bytes of UTF-8, which the end of the head may cut
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IMAGES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"BM": "a BMP image",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"RIFF": "a WebP image",
}
ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\xfd7zXZ": "an xz archive",
}
WEB_PAGES = ("<!doctype html", "<html", "<?xml", "<error", "{")
MOST_BITS = 16
COMPRESSIONS = "NONE", "JPEG", "LZW", "ADOBE_DEFLATE", "DEFLATE", "ZSTD", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB"
AGAIN = "download it again"


def why_unreadable(file: Path, error: str) -> Fault:
    """The fault of a file that OpenSlide refused. error: what OpenSlide said."""
    with file.open("rb") as opened:
        head = opened.read(HEAD)
    text = _text(head)
    if text.lower().startswith(WEB_PAGES):
        found = f"is a page of a server in place of a slide ({text[:60]!r}): a login, or an error, perhaps"
        return Fault("slide.web_page", str(file), found, "a slide", f"{AGAIN}, logged in")
    return (
        _without_companions(file, head)
        or _no_content(file, head)
        or _of_other_kind(file, head)
        or _of_text(file, text)
        or (why_tiff(file) if head.startswith(TIFF) else None)
        or Fault("slide.unreadable", str(file), f"not readable as a slide, it may be cut off ({error})", mend=AGAIN)
    )


def _no_content(file: Path, head: bytes) -> Fault | None:
    if not head:
        return Fault("slide.empty", str(file), "is an empty file", "a slide", AGAIN)
    if not head.strip(b"\0"):
        found = f"begins with {len(head)} zeros: the download has not ended"
        return Fault("slide.unfinished", str(file), found, "a whole file", AGAIN)
    return None


def _without_companions(file: Path, head: bytes) -> Fault | None:
    """A format of several files that has its first file only."""
    suffix = file.suffix.lower()
    if suffix == ".mrxs" and not (file.with_suffix("") / "Slidedat.ini").is_file():
        folder = file.with_suffix("")
        found = (
            f"its folder {folder.name} is not beside it" if not folder.is_dir() else f"{folder.name} lacks Slidedat.ini"
        )
        mend = "copy the folder with all its files to where the .mrxs file is"
        return Fault("slide.incomplete", str(file), found, "the .mrxs file and the folder of its name", mend)
    if suffix in (".vms", ".vmu") and b"Virtual Microscope" in head:
        found, mend = "files that it names are not beside it, or are not readable", "copy all of the slide's files"
        return Fault("slide.incomplete", str(file), found, "the files of the slide in one folder", mend)
    return None


def _of_other_kind(file: Path, head: bytes) -> Fault | None:
    image = next((what for start, what in IMAGES.items() if head.startswith(start)), None)
    if image and file.suffix.lower() != ".mrxs":  # whose first file is a JPEG image
        return Fault("slide.foreign_format", str(file), f"is {image}", "a slide", f"make one of it: {IMAGE.how(file)}")
    archive = next((what for start, what in ARCHIVES.items() if head.startswith(start)), None)
    if archive:
        return Fault("slide.archive", str(file), f"is {archive}", "a slide", "unpack it")
    return None


def _text(head: bytes) -> str:
    """The beginning of a text; empty where the file is none."""
    try:
        text = head.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        if error.start < len(head) - LONGEST_SIGN:
            return ""
        text = head[: error.start].decode("utf-8-sig").strip()
    return "" if "\0" in text else text


def _of_text(file: Path, text: str) -> Fault | None:
    if text.startswith("version https://git-lfs"):
        return Fault("slide.pointer", str(file), "is a pointer of Git LFS", "a slide", "fetch it: git lfs pull")
    return Fault("slide.text", str(file), f"is text ({text[:60]!r})", "a slide", AGAIN) if text else None


def why_tiff(file: Path) -> Fault | None:
    """What keeps a TIFF from being a slide: strips in place of tiles, or pixels that are no RGB; None where the file
    cannot be read."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # the fault tells what is wrong
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            ome, tiled, samples = tiff.is_ome, page.is_tiled, page.samplesperpixel
            bits, compression = page.bitspersample, tifffile.COMPRESSION(page.compression).name
    except Exception:  # on damaged files tifffile raises errors of any kind
        return None
    kind = "an OME-TIFF" if ome else "a TIFF"
    mend = f"make a slide of it: {ForeignFormat('', (), VIPS).how(file)}"
    if not tiled:
        found = f"is {kind} in strips, or in one piece, and not in tiles"
        code = "slide.ome_tiff" if ome else "slide.striped"
        return Fault(code, str(file), found, "tiles, which are read one by one", mend)
    if samples == 1:
        found = f"is {kind} of one channel, or of channels apart"
        return Fault("slide.one_channel", str(file), found, "pixels in red, green and blue", mend)
    if bits <= MOST_BITS and compression in COMPRESSIONS:
        return None
    found = f"is {kind} of {bits} bits, compressed by {compression}, which OpenSlide does not read"
    return Fault("slide.pixel_format", str(file), found, "JPEG, JPEG 2000, LZW or deflate of 8 bits", mend)
