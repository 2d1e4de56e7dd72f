"""Draw figures of the catalogue into files."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from expander_sae.figures.catalogue import ENDINGS, FIGURES, FRONTIER
from expander_sae.figures.layout import Sheet, compose
from expander_sae.figures.style import PNG_DPI, house_style, write_pages
from expander_sae.measurements.results import Results
from expander_sae.storage.files import atomic_path


def draw_all(results: Results, folder: str | Path, names: Iterable[str] | None = None) -> list[Path]:
    """Write {name}.pdf (every page), {name}.png (the first) and {name}-column.png (the first, one column).

    A figure whose measurements are missing says so. Equal tables give equal bytes.
    """
    written = []
    with house_style():
        for figure in FIGURES:
            if names is None or figure.name in names:
                paths = [Path(folder) / f"{figure.name}{end}" for end in ENDINGS]
                sheets = figure.sheets(results)
                write_pages([compose(sheet) for sheet in sheets], paths[0], paths[1])
                with atomic_path(paths[2]) as path:
                    path.write_bytes(png_of(sheets[0]))
                written += paths
    return written


def draw_frontier(results: Results, out_pdf: str | Path, out_png: str | Path) -> None:
    """Write the frontier: out_pdf holds every page, out_png the first."""
    with house_style():
        write_pages([compose(sheet) for sheet in FRONTIER.sheets(results)], out_pdf, out_png)


def png_of(sheet: Sheet, columns: int = 1) -> bytes:
    """A sheet as the bytes of a PNG."""
    stream = BytesIO()
    with house_style():
        compose(sheet, columns).savefig(stream, format="png", dpi=PNG_DPI)
    return stream.getvalue()
