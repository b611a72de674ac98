"""The reader of tables refuses what it would read otherwise than meant; the reader of foreign ones finds their form."""

from pathlib import Path

import pytest

from tests.support.faults import expect_faults
from utils.tables import read_csv, read_foreign, read_rows

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


# ---- tables of other programs ----------------------------------------------------------------------------------------


FOREIGN = 'slide,label,note\nsé,A,"x"\ns1,B,\n'
ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "utf-8-sig": lambda text: text.encode("utf-8-sig"),
    "utf-16 with a mark": lambda text: text.encode("utf-16"),
    "utf-16 big endian with a mark": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "cp1252": lambda text: text.encode("cp1252"),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_and_separators_are_found(tmp_path: Path, encoding: str, separator: str, end: str) -> None:
    file = tmp_path / "t.txt"
    file.write_bytes(ENCODINGS[encoding](FOREIGN.replace(",", separator).replace("\n", end)))
    table = read_foreign("table.unreadable", file)
    assert table.cells.to_dict("list") == {"slide": ["sé", "s1"], "label": ["A", "B"], "note": ["x", ""]}
    assert table.separator == separator
    assert ("cp1252" in table.form, "utf-16" in table.form) == ("cp1252" in encoding, "utf-16" in encoding)


OTHER_SIGNS = {
    "decimal commas": ("a;b\n0,25;x\n0,5;y\n", ";", ["0,25", "0,5"]),
    "a comma in the header": ("a;b, of two\n1;x\n2;y\n", ";", ["1", "2"]),
    "commas in the cells": ("a\tb\nx, y, z\tq\nu, v, w\tr\n", "\t", ["x, y, z", "u, v, w"]),
    "semicolons in the cells": ("a,b\nx;y;z,q\nu;v;w,r\n", ",", ["x;y;z", "u;v;w"]),
    "quoted separators": ('a,b\n"x,y",1\n"u,v",2\n', ",", ["x,y", "u,v"]),
    "Excel's first line": ("sep=;\na;b\n1;x\n2;y\n", ";", ["1", "2"]),
    "comments of cBioPortal": ("#A name\tB\n#A text, long\tB\n#1\t1\na\tb\n1\tx\n2\ty\n", "\t", ["1", "2"]),
    "a line of words": ("# made of two, three files\na;b\n1;x\n2;y\n", ";", ["1", "2"]),
    "one column": ("a\n1\n2\n", ",", ["1", "2"]),
    "rows that end early": ("a;b;c\n1\n2;x\n", ";", ["1", "2"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER_SIGNS)
def test_signs_that_separate_nothing_are_told_from_the_one_that_does(tmp_path: Path, case: str) -> None:
    text, separator, first = OTHER_SIGNS[case]
    (tmp_path / "t.csv").write_text(text)
    table = read_foreign("table.unreadable", tmp_path / "t.csv")
    assert (table.separator, table.cells["a"].tolist()) == (separator, first)


def test_a_header_may_begin_like_a_comment_and_faults_name_the_lines_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("#a,b\n1,x\n")
    assert list(read_foreign("table.unreadable", file).cells) == ["#a", "b"]
    file.write_text("#one\n#two\na;b\n1;x;y\n")
    with expect_faults("table.unreadable") as faults:
        read_foreign("table.unreadable", file)
    assert "first line 4" in faults[0].found


def test_the_separator_that_is_given_counts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a;b,c\n1;2,3\n")
    for separator, columns in ((";", ["a", "b,c"]), (",", ["a;b", "c"])):
        assert list(read_foreign("table.unreadable", tmp_path / "t.csv", separator).cells) == columns


@pytest.mark.parametrize(
    "case", ["empty", "blank", "excel", "old_excel", "gzip", "hdf5", "quote_not_closed", "wide_row"]
)
def test_what_is_no_table_of_other_programs_either(tmp_path: Path, case: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(REFUSED[case][0])
    with expect_faults("table.unreadable"):
        read_foreign("table.unreadable", file)


def test_bytes_of_no_encoding_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\n\xe9,1\n\x81,2\n")
    with expect_faults("table.unreadable") as faults:
        read_foreign("table.unreadable", tmp_path / "t.csv")
    assert "line 3 has the byte 0x81" in faults[0].found


def test_a_foreign_table_that_is_not_there(tmp_path: Path) -> None:
    with expect_faults("file.missing"):
        read_foreign("table.unreadable", tmp_path / "t.csv")
