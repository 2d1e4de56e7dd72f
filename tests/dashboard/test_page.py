import copy
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from expander_sae.cli.main import main
from expander_sae.dashboard.page import _read, render

pytestmark = pytest.mark.xdist_group("dashboard")

HOSTILE = [
    "<script>window.hacked=1</script>",
    "</script><img src=x onerror='window.hacked=1'>",
    '"><svg onload=window.hacked=1>',
    "{{SCRIPT}} <!--",
    "\u2028 &lt;b&gt; \\u003c",
]


def hostile(data):
    """The same run with a corpus and a model name that try to break out."""
    found = copy.deepcopy(data)
    for place, text in enumerate(HOSTILE):
        found["text"]["unique"][place] = text
        found["logits"]["unique"][place] = text
    found["title"] = found["spec"]["model"] = HOSTILE[1]
    return found


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names, self.attributes = [], []

    def handle_starttag(self, tag, attributes):
        self.names.append(tag)
        self.attributes += [name for name, _ in attributes]


def parsed(page):
    tags = Tags()
    tags.feed(page)
    return tags


def test_hostile_text_adds_no_element_and_no_attribute(data):
    clean, other = parsed(render(data)), parsed(render(hostile(data)))
    assert other.names == clean.names
    assert other.attributes == clean.attributes
    assert other.names.count("script") == 2 and "img" not in other.names


def test_the_data_comes_back_as_it_was(data):
    found = hostile(data)
    stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', render(found), re.S)
    assert json.loads(stored[1]) == found
    assert html.escape(HOSTILE[1]) in render(found)


def test_the_page_fetches_nothing_and_runs_its_own_script_only(data):
    page = render(data)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page


def test_the_command_writes_the_page_and_says_what_it_holds(run, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert main(["dashboard", str(run), "--out", str(out), "--omp-tokens", "8", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["bytes"] == out.stat().st_size and record["logit_effects"]
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_no_list_is_spread_into_the_arguments_of_a_call():
    """An engine takes about a hundred thousand; a feature may fire more often."""
    script = _read("page.js")
    assert not re.findall(r"Math\.(?:max|min)\([^;]*?\.\.\.", script)
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    functions = "\n".join(re.findall(r"^  const (?:largest|smallest)_of = .*$", script, re.M))
    check = "const long = Array.from({length: 1000000}, (_, i) => i - 7);"
    check += (
        "console.log(largest_of(long, 0), smallest_of(long, 0), largest_of([], 3), smallest_of([-1], -2))"
    )
    done = subprocess.run([node, "-e", f"{functions}\n{check}"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["999992", "-7", "3", "-2"]
