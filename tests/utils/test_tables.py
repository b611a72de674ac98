"""The reader of tables refuses what it would read otherwise than meant."""

from pathlib import Path

import pytest

from tests.support.faults import expect_faults
from utils.tables import read_csv, read_rows

TABLE = "slide_id,label\ns0,A\ns1,B\n"

# what the file holds, what the fault's sentence says
REFUSED = {
    "empty": (b"", "it is empty"),
    "blank": (b"\n \n,,\n", "it is empty"),
    "repeated": (b"slide_id,label,label\ns0,A,B\n", "several columns are called 'label'"),
    "repeated_but_for_blanks": (b"slide_id,label, label \ns0,A,B\n", "several columns are called 'label'"),
    "wide_row": (b"slide_id,label\ns0,A\ns1,B,C,D\n", "1 rows have more cells than the header, first line 3"),
    "every_row_wide": (b"slide_id,label\n0,s0,A\n1,s1,B\n", "2 rows have more cells than the header, first line 2"),
    "nul": (b"slide_id,label\ns0\0,A\n", "a NUL character in line 2"),
    "utf16": (TABLE.encode("utf-16"), "text in UTF-16"),
    "utf16_big": (b"\xfe\xff" + TABLE.encode("utf-16-be"), "text in UTF-16"),
    "utf16_without_mark": (TABLE.encode("utf-16-le"), "a NUL character in line 1"),
    "latin1": ("slide_id,label\ns0,A\nsé,B\n".encode("latin-1"), "line 3 has the byte 0xe9"),
    "excel": (b"PK\x03\x04\x14\0\x06\0", "as Excel's .xlsx is"),
    "old_excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook"),
    "gzip": (b"\x1f\x8b\x08\0", "a gzip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "semicolons": (b"slide_id;label\ns0;A\n", "separated by semicolons"),
    "tabs": (b"slide_id\tlabel\ns0\tA\n", "separated by tabs"),
    "quote_not_closed": (b'slide_id,label\n"s0,A\ns1,B\n', "unexpected end of data"),
    "quote_within": (b'slide_id,label\n"s0"x,A\ns1,B\n', "line 2: ',' expected after '\"'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table(tmp_path: Path, case: str) -> None:
    data, words = REFUSED[case]
    file = tmp_path / "t.csv"
    file.write_bytes(data)
    with expect_faults("table.unreadable") as faults:
        read_csv("table.unreadable", file)
    assert faults[0].where == str(file) and words in faults[0].found


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with expect_faults("table.unreadable") as faults:
        read_csv("table.unreadable", tmp_path)
    assert faults[0].found == "is a folder"


READ = {
    "plain": TABLE.encode(),
    "byte_order_mark": b"\xef\xbb\xbf" + TABLE.encode(),
    "windows": TABLE.replace("\n", "\r\n").encode(),
    "old_mac": TABLE.replace("\n", "\r").encode(),
    "no_end": TABLE.strip().encode(),
    "quoted": b'"slide_id","label"\n"s0", "A"\n s1 ,"B"\n',
    "blank_rows": b"\n\nslide_id,label\n,\ns0,A\n\n  \ns1,B\n,,,\n",
    "empty_cells_beyond": b"slide_id,label\ns0,A,\ns1,B,,,\n",
}


@pytest.mark.parametrize("case", READ)
def test_what_is_read_as_meant(tmp_path: Path, case: str) -> None:
    (tmp_path / "t.csv").write_bytes(READ[case])
    table = read_csv("table.unreadable", tmp_path / "t.csv")
    assert {name: table[name].tolist() for name in table} == {"slide_id": ["s0", "s1"], "label": ["A", "B"]}


def test_a_row_that_ends_early_has_blanks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n4\n")
    assert read_csv("table.unreadable", tmp_path / "t.csv").to_numpy().tolist() == [["1", "2", "3"], ["4", "", ""]]


def test_rows_carry_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n\n"x\ny",z\nNA,1.50\n')
    rows = [(1, ["a", "b"]), (4, ["x\ny", "z"]), (5, ["NA", "1.50"])]
    assert read_rows("table.unreadable", tmp_path / "t.csv") == rows
