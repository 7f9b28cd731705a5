"""Tables in pages of the documentation."""

from pathlib import Path


def write_between(page: Path, name: str, text: str, maker: str = "make bench") -> None:
    """Put text between the page's marks of that name."""
    begin, end = f"<!-- made by {maker}: {name} -->", f"<!-- end of {name} -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")
