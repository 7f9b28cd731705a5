"""A name in text, whatever program wrote it there, and no other's."""

import json
from pathlib import Path

import pytest

from gliofed.client.round.redaction import hiding

COMPOSED, APART = "M\u00fcller", "Mu\u0308ller"


@pytest.mark.parametrize("typed", [COMPOSED, APART])
@pytest.mark.parametrize("written", [COMPOSED, APART])
def test_each_way_to_write_a_name(typed: str, written: str) -> None:
    hide = hiding([typed], [])
    for text in (written, ascii(written), json.dumps(written), Path(f"/scans/{written}/t1.nii").as_uri()):
        assert "ller" not in hide(text) and "(withdrawn)" in hide(text)


@pytest.mark.parametrize(
    "text", ["/scans/P1/P1_t1.nii", "sub-P1", "\u201eP1\u201c", "x\\nP1", "%20P1", "\\x1bP1\u00a0"]
)
def test_a_name_beside_anything_but_a_letter(text: str) -> None:
    """Quotation marks beyond ASCII, and the code of a line feed, were taken for letters."""
    assert "P1" not in hiding(["P1"], ["P2"])(text)


@pytest.mark.parametrize(
    "text", ["P10", "XP1", "P1\u00e9", "P1e\u0301", "P1\u0301", "P1\udce9", "P1-2", "A_P1", "P1-2_t1.nii"]
)
def test_the_name_of_another_stays(text: str) -> None:
    assert hiding(["P1"], ["P1-2", "A_P1", "P1", "Q"])(text) == text


def test_a_visit_is_the_patients() -> None:
    """P1-2 is another patient where there is one, and a visit of P1 where there is none."""
    assert hiding(["P1"], ["P12", "P1-20"])("P1-2 P1-20") == "(withdrawn)-2 P1-20"
