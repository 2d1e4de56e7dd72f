"""The page: whole, offline, safe, in the order that a reader needs."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from expander_sae.errors import UserError
from expander_sae.figures.catalogue import FIGURES
from expander_sae.report.answer_sentences import SHORT
from expander_sae.report.page import image, write_report
from tests.report.conftest import HOSTILE, PROVENANCE

# One process draws the page, which takes as long as all these tests.
pytestmark = pytest.mark.xdist_group("browser")


class Reader(HTMLParser):
    """Tags, addresses, and the parents of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tables: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.addresses += [known[name] for name in ("src", "srcset", "href", "action") if name in known]
        if tag == "table":
            self.tables.append(self.open[-1])
        if tag == "h2":
            self.headings.append(known["id"])
        if tag not in ("meta", "link", "img", "source", "br", "input"):
            self.open.append(f"{tag}.{known.get('class', '')}")

    def handle_endtag(self, tag):
        assert self.open.pop().split(".")[0] == tag


@pytest.fixture(scope="module")
def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    return Reader(text)


def test_it_is_well_formed_with_what_to_take_first_and_then_the_verdicts(read):
    assert read.open == []
    assert read.headings == ["choice", "verdicts", "figures", "tables", "config", "provenance"]


def test_the_table_of_choices_stands_there_once(text):
    assert text.count(", fidelity (encoder)</td>") == 4, "one a budget"
    assert 'id="table-choice"' not in text and 'id="table-headline" open' in text


def test_the_first_screen_answers(text, read):
    begin = text.index('<section id="answer"')
    answer = text[begin : text.index("</section>", begin)]
    assert begin < text.index('<h2 id="choice">')
    assert "For fidelity by the encoder, one product a token, take" in answer
    assert 'id="figure-frontier"' in answer and text.count('id="figure-frontier"') == 1
    for address in re.findall(r'class="tag [a-z-]+" href="#([^"]+)"', answer):
        assert f'id="{address}"' in text, "a verdict leads to its claim"


def test_claims_stand_under_their_topics_and_can_be_narrowed(text):
    for verdict in ("holds", "fails", "inconclusive"):
        assert f'id="show-{verdict}" checked' in text
        assert f"body:has(#show-{verdict}:not(:checked)) :is(.is-{verdict}, .only-{verdict})" in text
    assert "<h4>Compression</h4>" in text
    topic = text[text.index("<h4>Compression</h4>") :]
    assert 'id="smollm2-frontier-ends"' in topic[: topic.index("</section>")]


def test_the_first_figure_is_as_wide_as_the_text(text):
    figure = text[text.index('<figure id="figure-frontier">') :]
    width = re.search(r'<img src="[^"]+" width="(\d+)"', figure)
    assert width is not None and int(width[1]) == round(7.2 * 200 * 96 / 120) == 1152


def test_a_badge_says_its_claim_and_the_counts_are_those_of_one_setting(text, results):
    begin = text.index('<section id="answer"')
    answer = text[begin : text.index("</section>", begin)]
    badges = re.findall(r'class="tag [a-z-]+" href="#smollm2-([^"]+)">([^<]+): [a-z ]+<', answer)
    assert badges and all(SHORT[name] == said for name, said in badges)
    assert all(2 <= len(words.split()) <= 5 for words in SHORT.values())
    first = [record["verdict"] for record in results.claims if record["setting"] == "smollm2"]
    for verdict in ("holds", "fails", "not run"):
        (count,) = re.findall(rf'<b>(\d+)</b><span class="verdict [a-z-]+">{verdict}<', text)
        assert int(count) == first.count(verdict)
    assert "of this run&#39;s setting, smollm2" in text or "of this run's setting, smollm2" in text


def test_a_table_says_once_what_its_rows_share_and_names_its_rows(text):
    table = text[text.index('<h2 id="choice">') :]
    table = table[: table.index("</table>")]
    assert "All rows: model " in table and "<th>model</th>" not in table
    assert '<table class="named"><thead><tr><th>if you have, and want</th>' in table


def test_nothing_outside_the_file_is_asked_for(read, text):
    outside = [address for address in read.addresses if not address.startswith(("data:", "#"))]
    assert outside == ["frontier.pdf"], "a link to the file beside it, which nothing loads"
    assert '<a href="frontier.pdf">' in text
    assert "<script" not in text
    assert not re.search(r"url\(|@import|https?://", text)


def test_every_table_scrolls_in_its_own_box(read):
    assert read.tables and set(read.tables) == {"div.scroll"}


def test_what_it_shows_is_escaped(text):
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;window.hacked=1") == 2, "a claim's reason and the configuration"


def test_every_claim_figure_and_table_is_there(text):
    for name in ("frontier-ends", "retention", "omp-gain", "leakage"):
        assert name in text
    for figure in FIGURES:
        assert figure.title in text
    assert "0.0300 [0.0100, 0.0500], holds if above 0" in text
    assert "runs of the family dose{p}" in text, "what is missing is said"
    assert "d=7: too few features" in text and "1,234 s" in text


def test_the_same_sources_give_the_same_bytes(results, page, tmp_path):
    folder = page.parent / "figures"
    write_report(results, folder, folder / "controls.png", PROVENANCE, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_without_provenance_it_says_so(results, page, tmp_path):
    write_report(results, page.parent / "figures", None, {}, tmp_path / "bare.html")
    assert (tmp_path / "bare.html").read_text().count("Not recorded beside these tables.") == 2


def test_a_missing_or_broken_figure_is_named(results, tmp_path):
    with pytest.raises(UserError, match=r"claims\.png: no such figure"):
        write_report(results, tmp_path, None, {}, tmp_path / "report.html")
    (tmp_path / "claims.png").write_text("no picture")
    with pytest.raises(UserError, match=r"claims\.png: not a PNG"):
        write_report(results, tmp_path, None, {}, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_an_image_knows_its_size(page):
    found = image((page.parent / "figures" / "controls.png").read_bytes(), 200)
    assert found.width == round(7.2 * 96)
