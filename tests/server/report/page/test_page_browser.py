"""The page of a run in which much went wrong, as a browser shows it: opened from disk, by a reader."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, browser
from reported_run import compared
from small_run import composed

from gliofed.server.report.page.page import SECTIONS, make_page
from gliofed.shared.files import write_json
from gliofed.shared.run_folder import SimulationFolder
from gliofed.simulation.simulate import report, simulate

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

BAD_RUN = (
    "sites=5",
    "rounds=3",
    "data.patients=8",
    "data.validation=0.3",
    "round.join=0.1",
    "round.expected=[site-1,site-2,site-3,site-4,site-5,hospital-that-is-away]",
    "faults={site-2:nan,site-3:scale@2}",
    "policies={site-4:{min_patients:90}}",
)
"""A site that is refused, one that is clipped, one below min_patients, and one that is missing."""
WAYS = [(width, scheme) for width in (400, 1600) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bad") / "run"
    outcome = simulate(composed(*BAD_RUN, f"out={out}"), words=BAD_RUN)
    write_json(SimulationFolder(out).comparison, compared())
    report(outcome)
    return SimulationFolder(out).page


@pytest.fixture(scope="module")
def page(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{way[1]}")
def shown(request: pytest.FixtureRequest, page: Page, file: Path) -> Page:
    page.look(*request.param)
    page.open(file)
    return page


def test_it_is_whole_quiet_and_asks_for_nothing(shown: Page, file: Path) -> None:
    assert shown.complaints() == []
    assert [url for url in shown.requests() if not url.startswith("data:image/png;base64,")] == [file.as_uri()]
    for id, title in SECTIONS.items():
        height = shown.js(f"document.getElementById({id!r}).getBoundingClientRect().height")
        assert height > 30, f"{title} is empty"
    text = shown.js("document.body.innerText")
    for words in (
        "site-2 refused: not finite",
        "site-3: met a limit in 2 of 3 rounds",
        "fewer training patients than its policy requires",
        "hospital-that-is-away missing",
    ):
        assert words in text
    assert shown.js("[...document.images].map(each => each.complete && each.naturalWidth > 50)") == [True] * 3


def test_nothing_is_wider_than_the_window(shown: Page) -> None:
    """Wide tables scroll in a frame of their own; texts in pictures stay in them."""
    shown.js("document.querySelectorAll('details').forEach(each => each.open = true)")
    frames = ".scroll > *, nav > *, pre, .track, #tip"
    wide = f"""[...document.querySelectorAll("body *")].filter(each => !each.closest("{frames}")
        && each.getBoundingClientRect().right > innerWidth + 0.5).map(each => each.outerHTML.slice(0, 80))"""
    assert shown.js("document.documentElement.scrollWidth <= innerWidth")
    assert shown.js(wide) == []
    clipped = """[...document.querySelectorAll("svg text")].filter(each => {
        const [a, b] = [each.getBoundingClientRect(), each.closest("figure").getBoundingClientRect()];
        return a.left < b.left - 1 || a.right > b.right + 1;}).map(each => each.textContent)"""
    assert shown.js(clipped) == []


def test_letters_stand_out_from_what_is_behind_them(shown: Page) -> None:
    """At least 4.5 to 1 (WCAG 2, AA) for whatever has a text of its own."""
    contrast = """(() => {
        const light = (colour) => {
            const c = document.createElement("canvas").getContext("2d");
            c.fillStyle = colour; c.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...c.getImageData(0, 0, 1, 1).data].map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const behind = (each) => {
            for (; each; each = each.parentElement) {
                const colour = getComputedStyle(each).backgroundColor;
                if (!/rgba\\(0, 0, 0, 0\\)|transparent/.test(colour)) return colour;
            }
            return matchMedia("(prefers-color-scheme: dark)").matches ? "black" : "white";
        };
        const poor = [];
        for (const each of document.querySelectorAll("body *:not(script, option)")) {
            if (![...each.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
            const style = getComputedStyle(each);
            const [a, b] = [light(each.closest("svg") ? style.fill : style.color), light(behind(each))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) poor.push(each.textContent.trim().slice(0, 30) + " " + ratio.toFixed(2));
        }
        return poor;
    })()"""
    assert shown.js(contrast) == []


def test_lines_are_told_apart_without_colour(shown: Page) -> None:
    """By who does not see it, and on a printer that has none; the legend shows the same line."""
    lines = """[...document.querySelectorAll("figure.chart")].map(figure =>
        [":scope > svg > g:not(.picked)", ".legend svg > g"].map(those => [...figure.querySelectorAll(those)]
            .map(each => getComputedStyle(each.querySelector("polyline")))
            .map(style => style.strokeDasharray + " of " + style.strokeWidth)))"""
    for drawn, named in shown.js(lines):
        assert drawn == named and len(set(drawn)) == len(drawn)


def test_a_table_does_not_cut_the_names_of_its_rows(shown: Page) -> None:
    """A name has its n or whose model it is at its end."""
    shown.js("document.querySelectorAll('details').forEach(each => each.open = true)")
    cut = "[...document.querySelectorAll('tbody th')].filter(each => each.scrollWidth > each.clientWidth + 1)"
    shown.js("document.querySelector('.heat tbody th').textContent = 'hospital-with-a-long-name '.repeat(2) + 'alone'")
    assert shown.js(f"{cut}.map(each => each.textContent)") == []


def test_paper_is_light(shown: Page) -> None:
    """Whoever prints from a dark system; white curves were on white paper there."""
    ink = "['--c6', '--ink', '--good'].map(each => getComputedStyle(document.documentElement).getPropertyValue(each))"
    shown.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    printed = shown.js(ink)
    shown.call("Emulation.setEmulatedMedia", media="")
    assert printed == ["#2b2f34", "#000", "#17733f"]


def test_a_wide_table_fits_on_paper(page: Page, tmp_path: Path) -> None:
    """A4 without its margins has 717 pixels, and nobody scrolls there: of ten models half was cut off."""
    comparison, wide = compared(), {"value": 0.5, "low": 0.45, "high": 0.55}
    locals = [f"local hospital-{number}" for number in range(6)]
    comparison["models"] |= {name: {} for name in locals}
    for group in comparison["subgroups"]["grade"].values():
        group["models"] |= dict.fromkeys(locals, wide)
    write_json(SimulationFolder(tmp_path).comparison, comparison)
    SimulationFolder(tmp_path).page.write_text(make_page(tmp_path))
    page.look(717, "light")
    page.open(SimulationFolder(tmp_path).page)
    page.call("Emulation.setEmulatedMedia", media="print")
    wider = "[...document.querySelectorAll('table')].filter(each => each.getBoundingClientRect().right > 717).length"
    try:
        assert page.js(wider) == 0 and page.js("document.documentElement.scrollWidth") == 717
    finally:
        page.call("Emulation.setEmulatedMedia", media="")


def test_the_pointer_reads_a_value(shown: Page) -> None:
    """Of the headline's curve: over its last round, which the page names too."""
    place = shown.js("""(async () => {
        const svg = document.querySelectorAll("figure.chart")[1].querySelector("svg");
        svg.scrollIntoView({block: "center"});
        for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);  // scrolling hides
        const box = svg.getBoundingClientRect();
        return [box.right - 0.03 * box.width, box.top + box.height / 2];})()""")
    assert shown.js("document.getElementById('tip').hidden")
    shown.point(*place)
    said = shown.js("document.getElementById('tip').innerText").split()
    assert said[:2] == ["round", "3"] and "sites" in said
    assert f"{float(said[-1]):.3f} after round 3" in shown.js("document.body.innerText")
    box = shown.js(
        "(({left, right}) => [left, right, innerWidth])(document.getElementById('tip').getBoundingClientRect())"
    )
    assert box[0] >= 0 and box[1] <= box[2]
    shown.point(1, 1)
    assert shown.js("document.getElementById('tip').hidden")


def test_the_keyboard_reads_a_value(shown: Page) -> None:
    shown.js("document.querySelector('.legend').closest('figure').focus({focusVisible: true})")
    shown.press("Home")
    assert "round 1" in shown.js("document.getElementById('tip').innerText")
    shown.press("ArrowRight")
    assert "round 2" in shown.js("document.getElementById('tip').innerText")
    shown.press("Escape")
    assert shown.js("document.getElementById('tip').hidden")
    shown.js("document.querySelectorAll('.row')[2].focus({focusVisible: true})")
    assert "refused in rounds 1-3" in shown.js("document.getElementById('tip').innerText")
