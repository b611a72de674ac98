"""Archives of all forms are unpacked; damaged and hostile ones are refused, and nothing leaves the folder."""

import io
import os
import tarfile
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
    assert str(fault) == f"{tmp_path / 'x'}: neither a zip nor a tar archive, or cut off; expected one of them"
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


def test_a_link_in_a_zip_becomes_no_link(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as zipped:
        entry = zipfile.ZipInfo("a")
        entry.create_system, entry.external_attr = 3, 0o120777 << 16
        zipped.writestr(entry, "/etc")
    unpack(tmp_path / "x", tmp_path / "out")
    assert not (tmp_path / "out" / "a").is_symlink()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w") as zipped:
        zipped.writestr("a", b"secret")
    packed = bytearray((tmp_path / "x").read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(start) + offset] |= 1
    (tmp_path / "x").write_bytes(packed)
    fault = refused(tmp_path / "x", tmp_path / "out")
    assert fault.code == "archive.unreadable" and "encrypted" in fault.found


@pytest.mark.skipif(not hasattr(os, "geteuid") or not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_not_a_damaged_archive(tmp_path: Path) -> None:
    archive = archive_of(write_files(tmp_path / "in", {"a.h5": CONTENT}), "zip", tmp_path / "x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.h5").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        unpack(archive, tmp_path / "out")
