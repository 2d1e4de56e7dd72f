"""Draw every figure of the catalogue into a folder."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from expander_sae.figures.catalogue import ENDINGS, FIGURES
from expander_sae.figures.layout import Sheet, compose
from expander_sae.figures.sources import Sources
from expander_sae.figures.style import PNG_DPI, house_style, write_pages
from expander_sae.storage.files import atomic_path


def draw_all(sources: Sources, folder: str | Path, names: Iterable[str] | None = None) -> list[Path]:
    """Write {name}.pdf (every page), {name}.png (the first) and {name}-column.png (the first, one column).

    A figure whose measurements are missing says so. Equal tables give equal bytes.
    """
    folder = Path(folder)
    written = []
    chosen = [figure for figure in FIGURES if names is None or figure.name in names]
    with house_style():
        for figure in chosen:
            sheets = figure.sheets(sources)
            pages = [compose(sheet) for sheet in sheets]
            paths = [folder / f"{figure.name}{end}" for end in ENDINGS]
            write_pages(pages, paths[0], paths[1])
            with atomic_path(paths[2]) as path:
                compose(sheets[0], columns=1).savefig(path, format="png", dpi=PNG_DPI)
            written += paths
    return written


def png_of(sheet: Sheet, columns: int = 1) -> bytes:
    """A sheet as the bytes of a PNG."""
    stream = BytesIO()
    with house_style():
        figure: Figure = compose(sheet, columns)
        figure.savefig(stream, format="png", dpi=PNG_DPI)
    return stream.getvalue()
