"""The fenced blocks of the README and the documentation, and the map of the package."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("sh", "bash", "shell", "console")


@dataclass(frozen=True)
class Block:
    """language, text, and where it stands, as FILE:LINE."""

    language: str
    text: str
    place: str

    @property
    def page(self) -> str:
        """FILE alone."""
        return self.place.partition(":")[0]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\S+)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            if match[1] in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(match[1], match[2], f"{page.relative_to(ROOT).as_posix()}:{line}"))
    return found


def commands() -> list[tuple[str, str]]:
    """(place, command) of every shell block, without comments, continued lines joined."""
    found = []
    for block in blocks(*SHELL):
        lines = re.sub(r"\\\n\s*", " ", block.text).splitlines()
        if block.language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in lines:
            command = re.sub(r"(^|\s)#.*", "", line).strip()
            if command:
                found.append((block.place, command))
    return found


def package_map() -> dict[str, str]:
    """The map in docs/design.md: path below expander_sae/ → what it says of it; folders end in a slash."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    block = re.search(r"^```\nexpander_sae/\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block, "docs/design.md has no block that begins with expander_sae/"
    found: dict[str, str] = {}
    folder = ""
    for line in block[1].splitlines():
        match = re.fullmatch(r"(  |    )([\w.]+/?)\s+(\S.*)", line)
        assert match, f"not NAME, two spaces, what it is: {line!r}"
        indent, name, said = match.groups()
        if len(indent) == 2:
            folder = name if name.endswith("/") else ""
            path = name
        else:
            path = folder + name
        assert path not in found, f"{path} is there twice"
        found[path] = said
    return found
