"""The manifest that a hospital writes itself: read as meant, or refused with the row and the column."""

import pytest

from gliofed.shared.data.cases import Case
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.volume import DataError, Scan

HEADER = "patient,visit,date,t1,flair,mask,grade,scanner,split"


@pytest.fixture
def root(tmp_path):
    """A folder with four files and one outside of it."""
    for name in ("in/a.nii.gz", "in/b.nii.gz", "in/c.nii.gz", "in/m.nii.gz", "out.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "in"


def written(root, *lines, encoding="utf-8"):
    (root / "cases.csv").write_text("\n".join(lines) + "\n", encoding=encoding)
    return root


def fault(root, *lines, **kwargs):
    with pytest.raises(DataError) as caught:
        find_cases(written(root, *lines, **kwargs), "brats2021")
    assert "cases.csv" in str(caught.value)
    return caught.value


def test_a_row_is_a_visit_and_visits_are_in_order_of_their_dates(root):
    """Named pre and post, visits sort the wrong way round; dates know. An absolute path and `..` may lead elsewhere."""
    written(
        root,
        HEADER,
        f"P2,pre,2024-02-01,a.nii.gz,{root / 'b.nii.gz'},m.nii.gz,lgg,Siemens,val",
        "",
        "P2,post,2024-11-30,../out.nii.gz,,,IV,GE,validation",
        'P1,,,"c.nii.gz",,,,,',
        encoding="utf-8-sig",  # as Excel writes UTF-8
    )
    one, pre, post = find_cases(root, "brats2021")
    assert one == Case("P1", "000", {"t1": Scan(root / "c.nii.gz")}, None, None, "brats2021")
    images = {"t1": Scan(root / "a.nii.gz"), "flair": Scan(root / "b.nii.gz")}
    mask = Scan(root / "m.nii.gz")
    assert pre == Case("P2", "pre", images, mask, "LGG", "brats2021", "validation", "Siemens")
    assert (post.visit, post.grade, post.images) == ("post", "HGG", {"t1": Scan(root / "../out.nii.gz")})


def test_without_dates_visit_2_comes_before_visit_10(root):
    written(root, "Patient,Visit,T1C", "P,10,a.nii.gz", "P,2,b.nii.gz")
    cases = find_cases(root, "brats2021")
    assert [case.visit for case in cases] == ["2", "10"] and set(cases[0].images) == {"t1ce"}


def test_without_names_dates_are_the_visits_and_the_site_stands_for_the_scanner(root):
    written(root, "patient,date,adc,site,", "P,2024-03-01,a.nii.gz,Bern,", "P,2023-12-31,b.nii.gz,Bern,")
    cases = find_cases(root, "brats2021")
    assert [(case.visit, case.scanner) for case in cases] == [("2023-12-31", "Bern"), ("2024-03-01", "Bern")]
    assert cases[0].images == {"adc": Scan(root / "b.nii.gz")}


def test_each_row_has_the_side_that_it_declares(root):
    written(root, "patient,t1,split", "P,a.nii.gz,Test", "Q,b.nii.gz,train", "R,c.nii.gz,")
    sides = [(case.patient, case.side) for case in find_cases(root, "mock")]
    assert sides == [("P", "test"), ("Q", "training"), ("R", None)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["patient,t1", "P,nowhere.nii.gz"], "row 2, column t1: no file 'nowhere.nii.gz'"),
        (["patient,t1", "P," + "x" * 300], "row 2, column t1: no file"),  # too long to be a file's name
        (["patient,t1", "P,."], "row 2, column t1: no file '.'"),
        (["patient,t1,mask", "P,a.nii.gz,m.nii"], "row 2, column mask: no file 'm.nii'"),
        (["patient,t1,age", "P,a.nii.gz,63"], "column age: holds no files (row 2 has '63')"),
        (["patient,t1,note", "P,a.nii.gz,"], "column note: holds no files (it is empty)"),
        (["patient,t1,T1w", "P,a.nii.gz,b.nii.gz"], "column t1w: t1 is in another column"),
        (["patient,t1,Patient", "P,a.nii.gz,Q"], "column patient: is there 2 times"),
        (["patient,visit", "P,1"], "no column of images"),
        (["name,t1", "a.nii.gz,a.nii.gz"], "column patient: is empty or missing"),
        (["patient,t1", "P,a.nii.gz", ",b.nii.gz"], "row 3, column patient"),
        (["patient,t1", "P,a.nii.gz", "P,b.nii.gz"], "row 3: P visit 000 again"),
        (["patient,date,t1", "P,31.01.2024,a.nii.gz"], "row 2, column date: '31.01.2024'"),
        (["patient,visit,date,t1", "P,1,2024-01-31,a.nii.gz", "P,2,,b.nii.gz"], "row 3, column date: P has"),
        (["patient,t1,grade", "P,a.nii.gz,V"], "row 2, column grade: 'V'"),
        (["patient,t1,split", "P,a.nii.gz,dev"], "row 2, column split: 'dev'"),
        (["patient;t1", "P;a.nii.gz"], "separated by ';'"),
        (["patient,t1", "P,a.nii.gz,b.nii.gz"], "row 2: has 3 values for 2 columns"),
        (["patient,t1,", "P,a.nii.gz,63"], "row 2: '63' is in a column without a name"),
        (["patient,t1"], "no rows"),
        ([""], "is empty"),
    ],
)
def test_what_is_wrong_is_named_by_row_and_column(root, lines, words):
    """Rows are counted as a spreadsheet shows them, the header being the first."""
    error = fault(root, *lines)
    assert error.code == "bad_table" and words in str(error)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_named(root, encoding):
    assert fault(root, "patient,t1", "Müller,a.nii.gz", encoding=encoding).code == "unreadable"


def test_quotes_that_never_close_are_named(root):
    assert fault(root, "patient,t1", 'P,"a.nii.gz').code == "unreadable"
