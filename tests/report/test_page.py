"""The page: what goes where, what is hidden, what is obeyed, and how it behaves in a browser."""

import base64
import hashlib
import re
from types import SimpleNamespace

import pytest
from browser import browsing
from nbformat import v4, write

from roadseg.report.notebooks import CHAPTERS
from roadseg.report.page import render
from roadseg.report.style import figure_html

STUDY = SimpleNamespace(title="A <study>")
PNG = base64.b64encode(b"not looked at").decode()
TABLE = (
    "<table><thead><tr><th>name</th><th class='number'>x</th></tr></thead><tbody>"
    + "".join(f"<tr><td>{n}</td><td class='number'>{x}</td></tr>" for n, x in zip("abcd", ("2", "−10", "none", "1,000"), strict=True))
    + "</tbody></table>"
)  # fmt: skip


def md(source, *tags):
    return v4.new_markdown_cell(source, metadata={"tags": [*tags]})


def code(source, *outputs, tags=()):
    shown = [v4.new_output("display_data", {kind: data}) for kind, data in outputs]
    return v4.new_code_cell(source, outputs=shown, metadata={"tags": [*tags]})


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of all that notebooks may hold."""
    folder = tmp_path_factory.mktemp("page")
    words = "\n\n".join(f"Sentence {n} of a text. " * 8 for n in range(12))
    for name in CHAPTERS:
        cells = [
            md(f"# Chapter {name}\n\nIntro of {name}."),
            code("x = 1", tags=["parameters"]), code("import hidden", tags=["setup"]), code("shown_code = 1"),
            md(words), md(f"## Folded {name}\n\nFolded words.", "appendix"), md("More of it."),
            md(f"## Open {name}"), md("Back in the text."),
        ]  # fmt: skip
        write(v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    figure = figure_html("chart", '<svg viewBox="0 0 624 200"><text x="9" y="20">in it</text></svg>', "Found.", "C.")
    table = figure_html("table", TABLE, "Told.", "")
    cells = [
        code("say()", ("text/markdown", "# Title\n\nAbstract <b>x</b>.\n\n*Made.*")),
        md("A note.", "margin"),
        code("f()", ("text/html", figure), ("image/png", PNG), tags=["picture-one"]),
        code("t()", ("text/html", table), ("text/markdown", "| a |"), tags=["table-answer"]),
        code("p()", ("text/plain", "nothing"), tags=["picture-two"]),
        md("## All of it", "appendix"), code("a()", ("text/html", figure + table)),
        md("", "chapters"), md("# The end\n\n" + words),
    ]  # fmt: skip
    write(v4.new_notebook(cells=cells), folder / "report.ipynb")
    target = folder / "out/report.html"
    render(STUDY, folder, target)
    return target


def test_sections_of_the_appendix_go_to_the_end_and_are_linked(page):
    html = page.read_text()
    main, appendix = html.split('<h1 id="appendix">')
    for name in CHAPTERS:
        assert f'id="Folded-{name}"' in appendix and f'href="#Folded-{name}"' in main
        assert "Folded words." not in main and f"Open {name}" in main
    assert main.index("Intro of 1_data") < main.index("Intro of 2_baseline") < main.index('id="The-end"')
    assert appendix.index('id="All-of-it"') < appendix.index('id="Folded-1_data"')


def test_only_chapters_are_listed_at_the_side(page):
    nav = re.search("<nav.*?</nav>", page.read_text(), re.S)[0]
    links = re.findall('href="#([^"]*)"', nav)
    assert links == [f"Chapter-{name}" for name in CHAPTERS] + ["The-end", "appendix"]
    for link in links:
        assert page.read_text().count(f'id="{link}"') == 1


def test_parameters_and_set_up_are_hidden_and_html_in_markdown_is_shown(page):
    html = page.read_text()
    assert "import hidden" not in html and "shown_code" in html
    assert "Abstract &lt;b&gt;x&lt;/b&gt;." in html and "<title>A &lt;study&gt;</title>" in html
    assert "<aside><p>A note.</p>" in re.sub(r">\s+<", "><", html)


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


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_in_a_browser_nothing_is_cut_off(page, width):
    with browsing(viewport={"width": width, "height": 800}) as (tab, wrong):
        tab.goto(page.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width and not wrong
        first = tab.locator("figure.chart svg").first.bounding_box()
        assert first["width"] >= 500 or width < 500


def test_in_a_browser_it_is_read_chapter_by_chapter(page):
    with browsing(viewport={"width": 1280, "height": 800}) as (tab, wrong):
        tab.goto(page.as_uri())
        tab.locator("#Chapter-3_fcn").scroll_into_view_if_needed()
        tab.evaluate("document.getElementById('Chapter-3_fcn').scrollIntoView()")
        tab.wait_for_timeout(100)
        assert tab.locator("nav a.current").all_inner_texts() == ["Chapter 3_fcn"]
        assert not tab.locator("#Folded-1_data").evaluate("each => each.open")
        tab.locator("a[href='#Folded-1_data']").click()
        tab.wait_for_timeout(100)
        assert tab.locator("#Folded-1_data").evaluate("each => each.open")
        captions = "element => getComputedStyle(element, '::before').content"
        assert "Figure " in tab.locator("figure.chart figcaption").first.evaluate(captions)
        assert "Table A" in tab.locator(".appendix figure.table figcaption").first.evaluate(captions)
        assert not wrong


def test_in_a_browser_tables_are_sorted_by_value(page):
    with browsing(viewport={"width": 1280, "height": 800}) as (tab, _):
        tab.goto(page.as_uri())
        button = tab.locator("figure.table").first.locator("th button").nth(1)
        column = "table => [...table.tBodies[0].rows].map((row) => row.cells[1].innerText)"
        button.click()
        assert tab.locator("table").first.evaluate(column) == ["−10", "2", "1,000", "none"]
        button.click()
        assert tab.locator("table").first.evaluate(column) == ["1,000", "2", "−10", "none"]


def test_on_paper_the_appendix_is_a_list_of_titles(page):
    with browsing(viewport={"width": 1280, "height": 800}) as (tab, _):
        tab.goto(page.as_uri())
        tab.emulate_media(media="print")
        assert not tab.locator("nav").is_visible()
        assert tab.locator("#Folded-1_data summary").is_visible()
        assert not tab.get_by_text("Folded words.").first.is_visible()
