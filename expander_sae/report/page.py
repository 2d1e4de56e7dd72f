"""results/report.html: one file that opens offline. Verdicts, figures, tables, config, provenance."""

from __future__ import annotations

import base64
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from expander_sae.errors import UserError
from expander_sae.figures.catalogue import FIGURES, FRONTIER, Figure
from expander_sae.figures.verdicts import VERDICTS, by_setting, decided, estimate_text, one_claim
from expander_sae.figures.write import png_of
from expander_sae.measurements.results import Results
from expander_sae.report.answer_sentences import SHORT, sentences
from expander_sae.report.formats import shown
from expander_sae.report.tables import all_tables
from expander_sae.storage.files import atomic_path

TEMPLATE = "report.html.j2"

_SHOWN = tuple(name for name in VERDICTS if name != "not run")
"""Verdicts that the list of claims can be narrowed to."""

_FULL_WIDTH = 120
"""Dots to the inch at which a page's width is that of the report's text."""


@dataclass(frozen=True)
class Image:
    """A PNG as a data address, with its size in CSS pixels at 96 to the inch."""

    address: str
    width: int
    height: int


def image(content: bytes, dots_per_inch: int = 160) -> Image:
    """A PNG's bytes as an `Image`, a quarter larger than on paper; its size stands in its header."""
    width, height = struct.unpack(">II", content[16:24])
    address = "data:image/png;base64," + base64.b64encode(content).decode("ascii")
    return Image(address, round(width * 96 / dots_per_inch), round(height * 96 / dots_per_inch))


def write_report(
    results: Results,
    figures: str | Path,
    frontier: str | Path | None,
    provenance: Mapping[str, Any],
    out: str | Path,
) -> None:
    """Write the page.

    Args:
        figures: the folder of the drawn figures.
        frontier: the PNG of its first page, if drawn.
        provenance: the content of provenance.json; empty where it was not recorded.
    """
    jinja2 = template_engine()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("expander_sae.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(shown=shown, verdict_class=lambda verdict: verdict.replace(" ", "-"))
    settings, tables, drawn = (
        _settings(results),
        all_tables(results),
        _figures(results, Path(figures), frontier),
    )
    text = environment.get_template(TEMPLATE).render(
        places=[str(view.place) for view in results.views],
        settings=settings,
        counts=Counter(claim["verdict"] for claim in settings[0]["claims"]) if settings else {},
        short=SHORT,
        verdicts=list(VERDICTS),
        # What is hidden where all of these verdicts are: claims, and topics that have no others.
        together=[several for size in range(1, len(_SHOWN) + 1) for several in combinations(_SHOWN, size)],
        answer=sentences(results),
        first=next((figure for figure in drawn if figure["name"] == FRONTIER.name), None),
        figures=[figure for figure in drawn if figure["name"] != FRONTIER.name],
        tables=tables,
        choice=next(table for table in tables if table.name == "choice"),
        config=_config(provenance),
        provenance=_provenance(provenance),
        left_out=list(provenance.get("left_out", [])),
    )
    with atomic_path(out) as path:
        path.write_text(text, encoding="utf-8")


def template_engine() -> Any:
    """The module jinja2; `UserError` where it is not installed."""
    try:
        import jinja2
    except ImportError:
        raise UserError(
            "jinja2: not installed, expected it, to write the report; "
            "install it with `pip install 'expander-sae[workflow]'`"
        ) from None
    return jinja2


def _settings(results: Results) -> list[dict[str, Any]]:
    """Settings with their claims."""
    return [
        {
            "name": name,
            "claims": [_claim(record) for record in claims],
            "topics": _topics(claims),
            "ran": decided(claims),
        }
        for name, claims in by_setting(results.claims).items()
    ]


def _topics(claims: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Topics of the claims that were run, each once, and the verdicts that its claims have."""
    found: dict[str, set[str]] = {}
    for record in claims:
        if record["verdict"] != "not run":
            found.setdefault(record.get("topic", ""), set()).add(record["verdict"])
    return [
        {"name": name, "verdicts": [one for one in _SHOWN if one in verdicts]}
        for name, verdicts in found.items()
    ]


def _claim(record: dict[str, Any]) -> dict[str, Any]:
    picture = image(png_of(one_claim(record))) if record["estimate"] is not None else None
    return {"topic": "", **record, "shown": estimate_text(record), "image": picture}


def _figures(results: Results, folder: Path, frontier: str | Path | None) -> list[dict[str, Any]]:
    found = []
    if frontier is not None:
        found.append(
            _figure(FRONTIER, page=_read(Path(frontier), _FULL_WIDTH), beside=f"{FRONTIER.name}.pdf")
        )
    for entry in FIGURES:
        sheets = entry.sheets(results)
        if sheets[0].panels:
            page, column = (_read(folder / f"{entry.name}{end}") for end in (".png", "-column.png"))
            found.append(_figure(entry, pages=len(sheets), page=page, column=column))
        else:
            found.append(_figure(entry, remarks=sheets[0].remarks))
    return found


def _figure(entry: Figure, **shown: Any) -> dict[str, Any]:
    about = {"name": entry.name, "title": entry.title, "caption": entry.caption}
    return {**about, "remarks": [], "pages": 1, "page": None, "column": None, "beside": "", **shown}


def _read(path: Path, dots_per_inch: int = 160) -> Image:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such figure, expected it to be drawn before the report") from None
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise UserError(f"{path}: not a PNG; remove it to have it drawn again")
    return image(content, dots_per_inch)


def _config(provenance: Mapping[str, Any]) -> str:
    if "config" not in provenance:
        return ""
    return yaml.safe_dump(provenance["config"], sort_keys=False, allow_unicode=True)


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of (name, value) pairs."""
    sections = []
    for name, title in (("code", "Code"), ("versions", "Versions"), ("hardware", "Machine")):
        if provenance.get(name):
            sections.append((title, [(str(key), _flat(value)) for key, value in provenance[name].items()]))
    cost = provenance.get("cost", {})
    if cost:
        sections.append(("Cost", [
            (stage, f"{row['jobs']} jobs, {row['seconds']:,.0f} s, at most {row['peak_mb']:,.0f} MB")
            for stage, row in cost.items()
        ]))  # fmt: skip
    for label, parts in provenance.get("inputs", {}).items():
        pairs = [
            (f"{kind} {key}", _flat(value))
            for kind, part in parts.items()
            for key, value in part.items()
            if isinstance(value, str | int | float)
        ]
        sections.append((f"Inputs: {label}", pairs))
    return sections


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)
