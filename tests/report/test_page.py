"""The page: what goes where, what is hidden, what is obeyed, and how it behaves in a browser."""

import base64
import hashlib
import re
from types import SimpleNamespace

import pytest
from browser import browsing
from nbformat import v4, write

from roadseg.errors import InputError
from roadseg.report.notebooks import CHAPTERS
from roadseg.report.page import render
from roadseg.report.style import figure_html

STUDY = SimpleNamespace(title="A <study>")
PNG = base64.b64encode(b"not looked at").decode()
CELLS = zip("abcd", ("2", "−10", "none", "1,000"), strict=True)
TABLE = (
    "<table class='wide'><thead><tr><th>name</th><th class='number'>x</th><th>what it is</th></tr></thead><tbody>"
    + "".join(f"<tr><td>{n}</td><td class='number'>{x}</td><td>{'long ' * 30}</td></tr>" for n, x in CELLS)
    + "</tbody></table>"
)  # fmt: skip
CHART = '<svg viewBox="0 0 624 200"><text x="9" y="20">in it</text></svg>'
SCENE = '<div class="picture"><img alt="scene" src="data:image/png;base64,"><span>scene</span></div>'
SLIDER = (
    '<div class="comparison"><figure class="compare"><div class="layers"></div><input type="range" value="50">'
    "<figcaption>best</figcaption></figure></div>"
)  # fmt: skip


def md(source, *tags):
    return v4.new_markdown_cell(source, metadata={"tags": [*tags]})


def code(source, *outputs, tags=()):
    shown = [v4.new_output("display_data", {kind: data}) for kind, data in outputs]
    return v4.new_code_cell(source, outputs=shown, metadata={"tags": [*tags]})


def rendered(folder, cells, chapters):
    """Render a report of these cells and these cells of each chapter; return the file."""
    for name in CHAPTERS:
        write(v4.new_notebook(cells=chapters(name)), folder / f"{name}.ipynb")
    write(v4.new_notebook(cells=cells), folder / "report.ipynb")
    render(STUDY, folder, folder / "out/report.html")
    return folder / "out/report.html"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of all that notebooks may hold."""
    words = "\n\n".join(f"Sentence {n} of a text. " * 8 for n in range(12))
    figure = figure_html("chart", CHART, "Found.", "C.")
    table = figure_html("table", TABLE, "Told.", "")
    gallery = f'<div class="gallery many" style="--columns: 6; display: grid">{SCENE * 6}</div>'
    pictures = figure_html("photo wide", gallery, "Seen.", "") + figure_html("photo", SLIDER, "Slid.", "")
    cells = [
        code("say()", ("text/markdown", "# Title\n\nAbstract <b>x</b>.\n\n*Made.*"), tags=["front"]),
        md("A note.", "margin"),
        code("f()", ("text/html", figure), ("image/png", PNG), tags=["picture-one"]),
        code("t()", ("text/html", table), ("text/markdown", "| a |"), tags=["table-answer"]),
        code("p()", ("text/plain", "nothing"), tags=["picture-two"]),
        code("m()", ("text/html", pictures), ("text/html", figure_html("chart", CHART, "", ""))),
        md("## All of it", "appendix"), code("a()", ("text/html", figure + table)),
        md("", "chapters"),
        md("After the chapters."), md("# The end: 100 % of *it*\n\n" + words), md("## Open 1_data"),
    ]  # fmt: skip
    return rendered(
        tmp_path_factory.mktemp("page"), cells,
        lambda name: [
            md(f"# Chapter {name}\n\nIntro of {name}."), code("x = 1", tags=["parameters"]),
            code("import hidden", tags=["setup"]), code("shown_code = 1"), md(words),
            md(f"## Folded {name}\n\nFolded words.", "appendix"), md("More of it."), md(f"## Open {name}"),
            md("Back in the text."), md(f"## Last {name}", "appendix"), code("b()", ("text/html", figure)),
        ],
    )  # fmt: skip


def test_sections_of_the_appendix_go_to_the_end_and_are_linked(page):
    main, appendix = page.read_text().split('<h1 id="appendix">')
    for name in CHAPTERS:
        assert f'id="Folded-{name}"' in appendix and f'href="#Folded-{name}"' in main
        assert "Folded words." not in main and "More of it." not in main and f"Open {name}" in main
    assert main.index("Intro of 1_data") < main.index("Intro of 2_baseline") < main.index('id="The-end')
    assert appendix.index('id="All-of-it"') < appendix.index('id="Folded-1_data"')


def test_a_section_of_the_appendix_ends_with_its_notebook(page):
    main, appendix = page.read_text().split('<h1 id="appendix">')
    assert "After the chapters." in main and "After the chapters." not in appendix


def test_only_chapters_are_listed_at_the_side(page):
    nav = re.search("<nav.*?</nav>", page.read_text(), re.S)[0]
    links = re.findall('href="#([^"]*)"', nav)
    chapters = [f"Chapter-{name}" for name in CHAPTERS]
    assert links == ["top", *chapters, "The-end-100-of-it", "appendix"]
    assert ">The end: 100 % of it<" in nav and "Title" not in nav


def test_no_two_things_have_the_same_anchor(page):
    anchors = re.findall(r' id="([^"]*)"', page.read_text())
    assert len(anchors) == len({*anchors}) and "Open-1_data-2" in anchors
    for link in re.findall(r'href="#([^"]*)"', page.read_text()):
        assert link in anchors


def test_figures_and_tables_with_captions_have_numbers(page):
    main, appendix = page.read_text().split('<h1 id="appendix">')
    label = r'<figcaption><a class="label" href="#[^"]+">(.*?)</a> <b>(.*?)</b>'
    assert re.findall(label, main) == [
        ("Figure 1", "Found."), ("Table 1", "Told."), ("Figure 2", "Seen."), ("Figure 3", "Slid."),
    ]  # fmt: skip
    assert [number for number, _ in re.findall(label, appendix)] == [
        "Figure A1", "Table A1", *(f"Figure A{n}" for n in range(2, 2 + len(CHAPTERS))),
    ]  # fmt: skip


def test_parameters_and_set_up_are_hidden_and_html_in_markdown_is_shown(page):
    html = page.read_text()
    assert "import hidden" not in html and "shown_code" in html
    assert "Abstract &lt;b&gt;x&lt;/b&gt;." in html and "<title>A &lt;study&gt;</title>" in html
    assert '<aside class="margin"><p>A note.</p>' in html


def test_what_notebooks_call_things_is_no_html_either(tmp_path):
    evil = '<script>1</script> "x" & <b onclick=x>y</b>'
    cells = [
        md(f"# {evil}\n\nAbstract.\n\n*Made.*", "front"), md(f"## {evil}\n\n| a<i> | {evil} |\n|---|---|\n| 1 | <i> |"),
        md("", "chapters"), md(f"# {evil}"), md(f"## {evil}", "appendix"), md("x"),
    ]  # fmt: skip
    html = rendered(tmp_path, cells, lambda name: [md(f"# {name}")]).read_text()
    assert html.count("<script") == 1 and "<b onclick" not in html and "<i>" not in html
    assert len(re.findall(r'<h1 id="[\w-]+">', html)) == len(CHAPTERS) + 3  # title, chapters, evil, appendix


def test_markdown_that_cannot_be_shown_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be shown"):
        rendered(tmp_path, [md("# ![x](attachment:y)")], lambda name: [md(f"# {name}")])


def test_it_obeys_no_script_but_its_own_and_loads_nothing(page):
    html = page.read_text()
    (script,) = re.findall("<script>(.*?)</script>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html and "default-src 'none'" in html
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html) and "url(" not in html


def test_pictures_and_tables_that_tags_ask_for_lie_beside_it(page):
    assert (page.parent / "one.png").read_bytes() == b"not looked at"
    assert (page.parent / "answer.md").read_text() == "| a |\n"
    assert (page.parent / "two.png").read_bytes().startswith(b"\x89PNG")  # says that there is none


def open_page(**settings):
    """Give a tab of a browser, and what goes wrong in it."""
    return browsing(**{"viewport": {"width": 1280, "height": 800}, "offline": True, **settings})


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_in_a_browser_nothing_is_cut_off(page, width):
    with open_page(viewport={"width": width, "height": 800}) as (tab, wrong):
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width and not wrong
        first = tab.locator("figure.chart svg").first.bounding_box()
        assert first["width"] >= 440  # on a phone pushed aside, rather than too small to read
        note, figure = (tab.locator(each).first.bounding_box() for each in ("aside", "figure.chart"))
        beside = note["x"] >= figure["x"] + figure["width"]
        assert beside if width == 1280 else note["y"] + note["height"] <= figure["y"]


def test_in_a_browser_the_chapter_that_is_read_is_marked(page):
    with open_page() as (tab, wrong):
        tab.goto(page.as_uri())
        current = tab.locator("nav a[aria-current]")
        current.get_by_text("Summary").wait_for()
        middle = "each => scrollTo(0, each.getBoundingClientRect().top + 500)"  # far from any heading
        tab.locator("#Chapter-3_fcn").evaluate(middle)
        current.get_by_text("Chapter 3_fcn").wait_for()
        tab.evaluate("scrollTo(0, 0)")
        current.get_by_text("Summary").wait_for()
        assert current.count() == 1 and not wrong


def test_in_a_browser_links_open_the_appendix_again_and_again(page):
    with open_page() as (tab, wrong):
        tab.goto(page.as_uri())
        folded, link = tab.locator("#Folded-1_data"), tab.locator("a[href='#Folded-1_data']")
        for _ in range(2):
            assert not folded.evaluate("each => each.open")
            link.click()
            tab.get_by_text("Folded words.").first.wait_for()
            folded.evaluate("each => { each.open = false }")
        tab.goto(page.as_uri() + "#Figure-A2")  # a figure within
        tab.reload()
        assert tab.locator("#Figure-A2").is_visible()
        tab.goto(page.as_uri() + "#%")
        tab.reload()
        assert not wrong


@pytest.mark.parametrize("script", [True, False])
def test_on_a_phone_the_list_of_chapters_is_folded(page, script):
    phone = {"width": 390, "height": 844}
    with open_page(viewport=phone, java_script_enabled=script) as (tab, wrong):
        tab.goto(page.as_uri())
        assert tab.locator("nav").bounding_box()["height"] < 60
        tab.locator("nav summary").click()
        tab.locator("nav a", has_text="3_fcn").click()
        heading = tab.locator("#Chapter-3_fcn")
        assert not script or not tab.locator("nav a").first.is_visible()
        assert 0 < heading.bounding_box()["y"] < 200 and not wrong


def test_beside_the_text_the_list_of_chapters_needs_no_script(page):
    with open_page(java_script_enabled=False) as (tab, _):
        tab.goto(page.as_uri())
        assert tab.locator("nav a", has_text="3_fcn").is_visible()


def test_in_a_browser_tables_are_sorted_by_value(page):
    with open_page() as (tab, _):
        tab.goto(page.as_uri())
        button = tab.locator("figure.table").first.locator("th button").nth(1)
        column = "table => [...table.tBodies[0].rows].map((row) => row.cells[1].innerText)"
        height = button.bounding_box()["height"]
        for order in (["−10", "2", "1,000", "none"], ["1,000", "2", "−10", "none"]):
            button.click()
            assert tab.locator("table").first.evaluate(column) == order
        assert button.bounding_box()["height"] == height  # with its arrow


def test_on_paper_the_appendix_is_a_list_of_titles(page):
    with open_page() as (tab, _):
        tab.goto(page.as_uri() + "#Folded-1_data")
        tab.emulate_media(media="print")
        for hidden in ("nav", "input[type=range]", ".more >> nth=0"):
            assert not tab.locator(hidden).is_visible()
        assert tab.locator("#Folded-1_data summary").is_visible()
        assert not tab.get_by_text("Folded words.").first.is_visible()
