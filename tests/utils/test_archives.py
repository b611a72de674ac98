"""Archives of all forms are unpacked; damaged and hostile ones are refused, and nothing leaves the folder."""

import contextlib
import gzip
import io
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.archive_files import archive_of, write_files
from tests.support.run_contents import files_below
from utils.archives import unpack
from utils.errors import Fault, UserError

UNREADABLE = ("archive.unreadable", "archive.unknown_form")
FORMS = ("zip", "tar", "gztar", "bztar", "xztar")
CONTENT = np.random.default_rng(0).bytes(300_000)
FILES = {"task_plip/plip_5x/a.h5": CONTENT, "task_plip/plip_5x/b.h5": b"", "task_plip/deep/er/c.h5": CONTENT[:1000]}


def refused(archive: Path, folder: Path) -> Fault:
    with pytest.raises(UserError) as caught:
        unpack(archive, folder)
    (fault,) = caught.value.faults
    assert fault.where == str(archive)
    return fault


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_told_by_its_content(tmp_path: Path, form: str) -> None:
    archive = archive_of(write_files(tmp_path / "in", FILES), form, tmp_path / "x.archive")
    unpack(archive, tmp_path / "out")
    assert files_below(tmp_path / "out") == FILES


def test_a_zip_that_is_deflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as opened:
        opened.mkdir("empty")
        opened.writestr("a/b", b"0" * 10**6)
    unpack(tmp_path / "x", tmp_path / "out")
    assert files_below(tmp_path / "out") == {"a/b": b"0" * 10**6}


@pytest.mark.parametrize("form", ["zip", "gztar", "bztar", "xztar"])
@settings(max_examples=25, deadline=None)
@given(place=st.floats(0.02, 0.98))
def test_a_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, form: str, place: float) -> None:
    """By the checksums of the form, anywhere in the content."""
    tmp_path = tmp_path_factory.mktemp("changed")
    archive = archive_of(write_files(tmp_path / "in", {"a.h5": CONTENT}), form, tmp_path / "x.archive")
    packed = bytearray(archive.read_bytes())
    packed[int(place * len(packed))] ^= 0x10
    archive.write_bytes(packed)
    assert refused(archive, tmp_path / "out").code in UNREADABLE


def test_a_broken_stream_is_found(tmp_path: Path) -> None:
    """Deflate has no block of type 3; the first one's type stands in bits 1 and 2 behind the entry's header."""
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a", b"0" * 1000)
    packed = bytearray((tmp_path / "x").read_bytes())
    packed[30 + len("a")] = 0b111
    (tmp_path / "x").write_bytes(packed)
    fault = refused(tmp_path / "x", tmp_path / "out")
    assert fault.code == "archive.unreadable" and "invalid block type" in fault.found


def test_the_checksum_behind_the_last_file_is_read(tmp_path: Path) -> None:
    """tarfile stops before it: the last bytes of gzip are the checksum and the length."""
    archive = archive_of(write_files(tmp_path / "in", FILES), "gztar", tmp_path / "x")
    packed = bytearray(archive.read_bytes())
    packed[-8] ^= 1
    archive.write_bytes(packed)
    fault = refused(archive, tmp_path / "out")
    assert fault.code == "archive.unreadable" and "CRC check failed" in fault.found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_archive_is_refused(tmp_path: Path, form: str, share: float) -> None:
    archive = archive_of(write_files(tmp_path / "in", {"a.h5": CONTENT}), form, tmp_path / "x")
    packed = archive.read_bytes()
    archive.write_bytes(packed[: int(len(packed) * share)])
    assert refused(archive, tmp_path / "out").code in UNREADABLE


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", b"7z\xbc\xaf\x27\x1c" + bytes(99)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    fault = refused(tmp_path / "x", tmp_path / "out")
    assert fault.code == "archive.unknown_form"
    said = "neither a zip nor a tar archive, or cut off; expected one of them; delete it and fetch it again"
    assert str(fault) == f"{tmp_path / 'x'}: {said}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "{tmp_path}/evil", "a/../b/../../evil"])
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_nothing_leaves_the_folder(tmp_path: Path, form: str, name: str) -> None:
    archive = tmp_path / "x"
    name = name.format(tmp_path=tmp_path)
    if form == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr(name, b"evil")
    else:
        with tarfile.open(archive, "w") as tar:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
    fault = refused(archive, tmp_path / "out")
    assert fault.code == "archive.unsafe" and repr(name) in fault.found
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["x"]


@pytest.mark.parametrize(
    ("kind", "target"),
    [(tarfile.SYMTYPE, "/etc"), (tarfile.SYMTYPE, "b"), (tarfile.LNKTYPE, "b"), (tarfile.FIFOTYPE, ""),
     (tarfile.CHRTYPE, "")],
)  # fmt: skip
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    with tarfile.open(tmp_path / "x", "w") as tar:
        member = tarfile.TarInfo("a")
        member.type, member.linkname = kind, target
        tar.addfile(member)
        inside = tarfile.TarInfo("a/passwd")
        tar.addfile(inside, io.BytesIO(b""))
    assert refused(tmp_path / "x", tmp_path / "out").code == "archive.link"
    assert not (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666, 0o060666, 0o140666])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as zipped:
        entry = zipfile.ZipInfo("a")
        entry.create_system, entry.external_attr = 3, mode << 16
        zipped.writestr(entry, "/etc")
    assert refused(tmp_path / "x", tmp_path / "out").code == "archive.link"
    assert not (tmp_path / "out").exists()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as zipped:
        zipped.writestr("a", b"secret")
    packed = bytearray((tmp_path / "x").read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(start) + offset] |= 1
    (tmp_path / "x").write_bytes(packed)
    fault = refused(tmp_path / "x", tmp_path / "out")
    assert fault.code == "archive.unreadable" and "encrypted" in fault.found


# ---- made to mislead -------------------------------------------------------------------------------------------------


def tar_of(*members: tuple[str, bytes], **fields: object) -> bytes:
    """A plain tar. fields: of every header."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(*members: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", how) as zipped:
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, content in members:
            zipped.writestr(name, content)
    return buffer.getvalue()


def with_header(packed: bytes, place: int, content: bytes, checksum: bool = True) -> bytes:
    """A tar whose header at a place is changed, with a fitting checksum again."""
    header = bytearray(packed[place : place + 512])
    header[: len(content)] = content
    if checksum:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return packed[:place] + bytes(header) + packed[place + 512 :]


def with_size(packed: bytes, size: bytes) -> bytes:
    return with_header(packed, 0, packed[:124] + size)


TWO = tar_of(("a", b"x" * 512), ("b", b"y" * 512))  # headers at 0 and 1024
MISLEADING: dict[str, tuple[bytes, str]] = {
    "tar_that_ends_in_a_zip": (tar_of(("a", b"1")) + zip_of(("b", b"2")), "archive.unreadable"),
    "zip_within_a_tar_at_its_end": (tar_of(("a", zip_of(("b", b"2"))))[: 512 + 200], "archive.unreadable"),
    "zip_behind_a_text": (b"#!/bin/sh\n" + zip_of(("b", b"2")), "archive.unknown_form"),
    "zip_that_ends_in_a_tar": (zip_of(("b", b"2")) + tar_of(("a", b"1")) * 20, "archive.unknown_form"),
    "two_tars": (tar_of(("a", b"1")) + tar_of(("b", b"2")), "archive.unreadable"),
    "damaged_first_header": (with_header(TWO, 0, b"z", checksum=False), "archive.unknown_form"),
    "damaged_second_header": (with_header(TWO, 1024, b"z", checksum=False), "archive.unreadable"),
    "zeroed_second_header": (TWO[:1024] + bytes(512) + TWO[1536:], "archive.unreadable"),
    "cut_between_members": (TWO[:1024], "archive.unreadable"),
    "cut_within_a_header": (TWO[:1200], "archive.unreadable"),
    "size_beyond_the_file": (with_size(TWO, b"00000777777\0"), "archive.unreadable"),
    "size_of_an_exabyte": (with_size(TWO, b"\x80\0\0\0" + (2**60).to_bytes(8, "big")), "archive.size"),
    "size_below_nothing": (with_size(TWO, b"\xff" * 11 + b"\0"), "archive.unreadable"),
    "size_that_is_no_number": (with_size(TWO, b"hello world\0"), "archive.unknown_form"),
    "pax_size_below_nothing": (tar_of(("a", b"1"), pax_headers={"size": "-512"}), "archive.unreadable"),
    "pax_size_of_any_length": (tar_of(("a", b"1"), pax_headers={"size": "9" * 40}), "archive.size"),
    "sparse": (
        tar_of(("a", b"1"), pax_headers={"GNU.sparse.size": str(2**60), "GNU.sparse.map": "0,1"}), "archive.link",
    ),
    "no_name": (with_header(TWO, 0, bytes(100)), "archive.unsafe"),
    "no_name_in_a_zip": (zip_of(("a", b"1")).replace(b"a", b"."), "archive.unsafe"),
    "dot": (tar_of((".", b"1")), "archive.unsafe"),
    "backslashes": (tar_of(("..\\evil", b"1")), "archive.unsafe"),
    "backslashes_in_a_zip": (zip_of(("a\\b", b"1")), "archive.unsafe"),
    "drive": (zip_of(("C:evil", b"1")), "archive.unsafe"),
    "line_break": (tar_of(("a\nb", b"1")), "archive.unsafe"),
    "escape": (zip_of(("a\x1b[2Jb", b"1")), "archive.unsafe"),
    "nul_in_a_zip": (zip_of(("a@b", b"1")).replace(b"a@b", b"a\0b"), "archive.unsafe"),
    "no_unicode": (with_header(TWO, 0, b"\xff\xfe"), "archive.unsafe"),
    "long_name": (tar_of(("a" * 300, b"1")), "archive.unsafe"),
    "absolute": (tar_of(("/etc/passwd", b"1")), "archive.unsafe"),
    "twice": (tar_of(("a", b"1"), ("a", b"2")), "archive.repeated"),
    "twice_by_another_spelling": (tar_of(("a/b", b"1"), ("a//./b", b"2")), "archive.repeated"),
    "twice_in_a_zip": (zip_of(("a", b"1"), ("a", b"2")), "archive.repeated"),
    "file_as_a_folder": (tar_of(("a", b"1"), ("a/b", b"2")), "archive.repeated"),
    "folder_as_a_file": (zip_of(("a/b", b"1"), ("a", b"2")), "archive.repeated"),
    "bomb": (zip_of(("a", bytes(2 * 10**8)), how=zipfile.ZIP_DEFLATED), "archive.size"),
    "bomb_of_gzip": (gzip.compress(tar_of(("a", bytes(2 * 10**8)))), "archive.size"),
    "bomb_of_a_header": (
        gzip.compress(tar_of(("a", b"1"), pax_headers={"comment": "0" * 2 * 10**6})), "archive.unknown_form",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISLEADING)
def test_what_misleads_is_refused(tmp_path: Path, case: str) -> None:
    content, code = MISLEADING[case]
    (tmp_path / "x").write_bytes(content)
    fault = refused(tmp_path / "x", tmp_path / "out")
    assert fault.code == code, fault
    assert fault.found.isprintable() and len(fault.found) < 300
    assert {entry.name for entry in tmp_path.iterdir()} <= {"x", "out"}
    assert not any("evil" in file.name or file.is_symlink() for file in tmp_path.rglob("*"))


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_bytes_are_a_fault_or_no_harm(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    tmp_path = tmp_path_factory.mktemp("changed")
    archive = archive_of(write_files(tmp_path / "in", {"a/b.h5": b"x" * 600, "c.h5": b"y"}), form, tmp_path / "x")
    packed = bytearray(archive.read_bytes())
    for share in data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=6)):
        packed[int(share * len(packed))] = data.draw(st.integers(0, 255))
    archive.write_bytes(packed)
    with contextlib.suppress(UserError):
        unpack(archive, tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_not_a_damaged_archive(tmp_path: Path) -> None:
    archive = archive_of(write_files(tmp_path / "in", {"a.h5": CONTENT}), "zip", tmp_path / "x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.h5").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        unpack(archive, tmp_path / "out")
