"""Commands inside sentences: what they name exists. Those in blocks are run, in test_commands.py."""

import importlib.util
import re
import shlex
import tomllib

import pytest
from snakemake.cli import get_argument_parser

from expander_sae.cli.main import build_parser
from tests.docs.blocks import ROOT, pages

PROGRAMS = r"(?:\.venv/bin/)?(?:make|snakemake|python|pip|expander-sae)"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
MORE = ("CONTRIBUTING.md", "CHANGELOG.md", "config/README.md", "studies/smollm2-135m/README.md")


def in_sentences():
    """(page, command) of what stands between backquotes, or indented by four spaces, and names a program."""
    for page in [*pages(), *(ROOT / name for name in MORE)]:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for pattern in (rf"`({PROGRAMS} [^`]+)`", rf"^    ({PROGRAMS} .+)$"):
            for command in re.findall(pattern, text, flags=re.MULTILINE):
                plain = " ".join(command.split()).removeprefix(".venv/bin/")
                yield page.relative_to(ROOT).as_posix(), plain.split(" # ")[0]


ALL = [pytest.param(*found, id=f"{found[0]} {found[1][:60]}") for found in dict.fromkeys(in_sentences())]


@pytest.mark.parametrize(("page", "command"), ALL)
def test_what_a_command_in_a_sentence_names_exists(page, command):
    # Placeholders and what may be left out are for people.
    program, *words = shlex.split(re.sub(r" \[[^\]']*\]", "", re.sub(r"<[^>]*>", "THAT", command)))
    if program == "make":
        for word in words:
            name, is_variable, _ = word.partition("=")
            known = rf"^{name} \?=" if is_variable else rf"^{name}:"
            assert re.search(known, MAKEFILE, re.MULTILINE), f"the Makefile has no {name}"
    elif program == "snakemake":
        options, unknown = get_argument_parser().parse_known_args(words)
        assert not unknown
        workflow = [ROOT / "Snakefile", ROOT / "workflow" / "Snakefile", *(ROOT / "workflow").rglob("*.smk")]
        rules = set(re.findall(r"^rule (\w+):", "".join(path.read_text() for path in workflow), re.MULTILINE))
        for target in options.targets:
            assert target in rules or target.startswith("results/")
        for config in options.configfile or []:
            assert config.name == "mine.yaml" or (ROOT / config).is_file()
    elif program == "python" and words[0] == "-m":
        assert importlib.util.find_spec(words[1])
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert words[0] == "install"
        for asked in re.findall(r"\[(.*?)\]", command):
            assert set(asked.split(",")) <= set(extras)
    else:
        (choice,) = (action for action in build_parser()._actions if action.choices)
        options = choice.choices[words[0]]._option_string_actions
        assert {word for word in words if word.startswith("--")} <= set(options)


def test_there_are_such_commands():
    assert len(ALL) > 30
