"""Every figure of the catalogue: drawn where measured, saying what is missing where not."""

from pathlib import Path

import pandas as pd
import pytest

from expander_sae.figures.catalogue import FIGURES, outputs
from expander_sae.figures.layout import Sheet, compose
from expander_sae.figures.style import SMALL, house_style
from expander_sae.figures.write import draw_all
from expander_sae.measurements.results import Results
from tests.figures import study

ROOT = Path(__file__).resolve().parents[2]
NAMES = [figure.name for figure in FIGURES]


@pytest.fixture(scope="module")
def full() -> Results:
    return Results(
        study.study(),
        pd.read_csv(ROOT / "resources" / "paper_figures.csv"),
        pd.read_csv(ROOT / "resources" / "paper_synthetic_omp.csv"),
        study.curves(),
        study.CLAIMS,
        study.benchmarks(),
    )


@pytest.fixture(scope="module")
def bare() -> Results:
    """One d, one seed, relative error alone."""
    frame = study.study(later=False)
    kept = (frame["metric"] == "relative_error") & (frame["d"] == 7) & (frame["seed"] == 0)
    return Results(frame[kept & (frame["inference"] == "encoder")], pd.DataFrame(columns=["mean"]))


def sheets(results: Results) -> dict[str, list[Sheet]]:
    return {figure.name: figure.draw(results) for figure in FIGURES}


def test_a_whole_study_leaves_no_figure_empty_and_nothing_missing(full: Results) -> None:
    for name, pages in sheets(full).items():
        assert pages[0].panels, name
        assert list(pages[0].missing) == (["leakage"] if name == "claims" else []), name


def test_a_bare_table_draws_what_it_has_and_names_the_rest(bare: Results) -> None:
    found = sheets(bare)
    drawn = {name for name, pages in found.items() if pages[0].panels}
    assert drawn == {"controls"}
    for name in NAMES:
        assert found[name][0].missing, name
        assert "Not measured" in found[name][0].remarks[-1]


@pytest.mark.parametrize("columns", [1, 2])
def test_text_stays_on_the_page_and_is_legible(full: Results, bare: Results, columns: int) -> None:
    with house_style():
        for name, sheet in [(n, s[0]) for src in (full, bare)[: 3 - columns] for n, s in sheets(src).items()]:
            page = compose(sheet, columns)
            page.draw_without_rendering()
            legend = [text for one in page.legends for text in one.get_texts()]
            labels = [one for axes in page.axes for one in (axes.xaxis.label, axes.yaxis.label, axes.title)]
            names = [one for axes in page.axes for one in axes.get_yticklabels() if one.get_visible()]
            for text in [*page.texts, *legend, *labels, *names]:
                if not text.get_text():
                    continue
                box = text.get_window_extent()
                inside = box.x0 >= -1 and box.x1 <= page.bbox.width + 1
                assert inside and box.y0 >= -1, f"{name}: {text.get_text()!r} leaves the page"
                assert text.get_fontsize() >= SMALL, name


def test_the_same_table_in_any_order_gives_the_same_bytes(full: Results, tmp_path: Path) -> None:
    names = ["controls", "storage", "claims"]
    shuffled = Results(
        full.metrics.sample(frac=1, random_state=1), full.published_figures, claims=full.claims,
    )  # fmt: skip
    for folder, results in (("a", full), ("b", shuffled)):
        written = draw_all(results, tmp_path / folder, names)
        assert len(written) == 3 * len(names)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert b"/Type3" not in (tmp_path / "a" / "controls.pdf").read_bytes().replace(b" ", b"")


def test_each_place_has_its_page_and_each_claim_its_own(full: Results) -> None:
    found = sheets(full)
    assert len(found["storage"]) == 2
    assert "layer 20" in found["storage"][1].subtitle
    assert [page.title for page in found["claims"][1:]] == [
        "frontier-ends: holds", "retention: fails", "omp-gain: inconclusive",
    ]  # fmt: skip


def test_names_and_captions() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert all(figure.caption.endswith(".") for figure in FIGURES)
    assert len(outputs("results/figures")) == 3 * len(NAMES)
    page = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page] == []
