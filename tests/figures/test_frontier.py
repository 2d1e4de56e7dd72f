"""The page itself: it is drawn for every shape of table, is byte-stable, and nothing runs out of it."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from expander_sae.figures.catalogue import FRONTIER
from expander_sae.figures.frontier_panel import compression, on_scale
from expander_sae.figures.frontier_series import Point, Series
from expander_sae.figures.layout import compose
from expander_sae.figures.style import SMALL, house_style, looks_for, text_width, wrap
from expander_sae.figures.write import draw_frontier
from expander_sae.masks.supports import SUPPORTS
from expander_sae.measurements.estimate import Estimate
from expander_sae.measurements.results import Results, read_results
from expander_sae.study.run import Cell

Table = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def cases(table: Table, diverge: Table) -> dict[str, pd.DataFrame]:
    """Tables of every shape that the figure must bear."""
    nan = table()
    nan.loc[nan["metric"] == "ce_recovered", "value"] = float("nan")
    return {
        "default": table(),
        "one d, one seed, nothing else": table(ds=(30,), seeds=(0,), controls=(), dense=False, omp=False),
        "two seeds, no controls": table(seeds=(0, 1), control_seeds=(0, 1), controls=()),
        "several k": pd.concat([table(k=16, ds=(7, 100)), table(k=64)]),
        "two models, two layers": pd.concat(
            [table(layer=layer) for layer in (10, 15)]
            + [table("pythia-70m-deduped", layer, 512, ds=(7, 30, 50, 100, 200)) for layer in (3, 5)]
        ),
        "diverged": diverge(diverge(table(), "expander", 7, [1]), "clustered", 7, [0]),
        "all diverged": diverge(table(ds=(7,), controls=(), dense=False), "expander", 7, [0, 1, 2]),
        "no value": nan,
        "long names": table(
            "a-model-whose-name-is-long-instruct-0a1b2c",
            recipe="standard-0a1b2c",
            corpus="texts-of-my-own-d4e5f6",
        ),
        "dense only": table(ds=(), controls=()),
        "other supports by a pursuit alone": table(controls=(), dense=False)
        .replace({"support": {"expander": "hybrid80"}})
        .loc[lambda frame: frame["inference"] != "encoder"],
        "later families, no cross-entropy by omp": table(controls=("dose64", "right_regular"), omp_ce=False),
        "encoders of their own": pd.concat([table(), table().replace({"encoder": {"tied": "warm_tied"}})]),
    }


def pages_of(frame: pd.DataFrame, published_csv: Path) -> list[Figure]:
    with house_style():
        pages = [compose(sheet) for sheet in FRONTIER.sheets(Results(frame, pd.read_csv(published_csv)))]
        for page in pages:
            page.draw_without_rendering()
    return pages


@pytest.fixture(scope="module")
def drawn(cases: dict[str, pd.DataFrame], published_csv: Path) -> dict[str, list[Figure]]:
    """The pages of every case."""
    return {name: pages_of(frame, published_csv) for name, frame in cases.items()}


def test_every_shape_of_table_is_drawn_and_no_text_leaves_the_page(drawn: dict[str, list[Figure]]) -> None:
    for name, pages in drawn.items():
        for page in pages:
            width, height = page.bbox.width, page.bbox.height
            texts = [*page.texts, *[text for legend in page.legends for text in legend.get_texts()]]
            texts += [label for axes in page.axes for label in (axes.xaxis.label, axes.yaxis.label)]
            for text in texts:
                box = text.get_window_extent()
                inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
                assert inside, f"{name}: {text.get_text()!r} leaves the page"


def test_no_two_texts_of_a_page_overlap(drawn: dict[str, list[Figure]]) -> None:
    for name, pages in drawn.items():
        for page in pages:
            legend = [text for legend in page.legends for text in legend.get_texts()]
            ticks = [
                label
                for axes in page.axes
                for child in (axes, *axes.child_axes)
                for label in child.get_xticklabels()
                if label.get_visible() and axes.get_xlim()[0] <= label.get_position()[0] <= axes.get_xlim()[1]
            ]
            labels = [axes.yaxis.label for axes in page.axes]
            texts = [text for text in [*page.texts, *legend, *labels, *ticks] if text.get_text()]
            boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
            for position, (first, box) in enumerate(boxes):
                for second, other in boxes[position + 1 :]:
                    apart = (
                        box.x1 <= other.x0 + 1
                        or other.x1 <= box.x0 + 1
                        or box.y1 <= other.y0 + 1.5
                        or other.y1 <= box.y0 + 1.5
                    )
                    assert apart, f"{name}: {first!r} overlaps {second!r}"


def test_no_text_is_smaller_than_the_least_size(table: Table, published_csv: Path) -> None:
    for page in pages_of(table(), published_csv):
        texts = [*page.texts, *[text for legend in page.legends for text in legend.get_texts()]]
        assert min(text.get_fontsize() for text in texts) >= SMALL


def test_same_table_same_bytes_and_nothing_else_is_left(
    table: Table, published_csv: Path, tmp_path: Path
) -> None:
    table().to_parquet(tmp_path / "metrics.parquet")
    written = []
    for name in ("first", "second"):
        folder = tmp_path / name
        results = read_results(tmp_path / "metrics.parquet", published_csv)
        draw_frontier(results, folder / "f.pdf", folder / "f.png")
        assert sorted(path.name for path in folder.iterdir()) == ["f.pdf", "f.png"]
        written.append(((folder / "f.pdf").read_bytes(), (folder / "f.png").read_bytes()))
    assert written[0] == written[1]
    assert b"CreationDate" not in written[0][0]
    assert b"/Type3" not in written[0][0].replace(b" ", b"")


def words(page: Figure) -> str:
    return " ".join(text.get_text() for text in page.texts)


def test_the_page_says_what_it_shows(table: Table, diverge: Table, published_csv: Path) -> None:
    page = pages_of(diverge(table(), "expander", 7, [1]), published_csv)[0]
    said = words(page)
    for expected in (
        "smollm2-135m, after layer 15",
        "k = 64 of n = 4,608",
        "1,500 steps on 120,000 tokens of docstrings",
        "“standard”",
        "3 for expander; 1 for",
        "expander d = 7 (1 of 3)",
        "No small dense dictionary at d = 7 (n′ = 56)",
        "itself 3.21 nats",
    ):
        assert expected in said
    assert "2607.01799" not in said


def test_published_points_are_cited_and_far_ones_are_told(table: Table, published_csv: Path) -> None:
    said = words(pages_of(table("pythia-70m-deduped", 5, 512), published_csv)[0])
    assert "2607.01799" in said
    assert "Published CE recovered [1] too far off for the panel: expander d = 7: −0.35" in said


def test_supplements_appear_only_where_measured(table: Table, published_csv: Path) -> None:
    frame = table()
    titles = [page.texts[0].get_text() for page in pages_of(frame, published_csv)]
    assert len(titles) == len(set(titles)) == 3
    plain = frame[~frame["metric"].str.startswith("ce_recovered_") & (frame["inference"] != "omp")]
    assert len(pages_of(plain, published_csv)) == 1


def test_every_series_of_a_page_has_its_own_legend_entry(drawn: dict[str, list[Figure]]) -> None:
    for name, pages in drawn.items():
        for page in pages:
            (legend,) = page.legends
            labels = [text.get_text() for text in legend.get_texts()]
            assert len(labels) == len(set(labels)), f"{name}: {labels}"


def test_on_scale() -> None:
    def point(d: int, *values: float) -> Point:
        cell = Cell("m", "c", 1, "r", "expander", "tied", 4, 8, d, 2, 10, 10)
        return Point(cell, 8.0 * d, Estimate(dict(enumerate(values)), len(values)))

    ours = [Series("expander", "tied", "encoder", (point(2, 0.8, 0.9),))]
    near, far = point(3, 0.65), point(4, -0.5)
    kept, left_out = on_scale(ours, [Series("expander", "tied", "encoder", (near, far))])
    assert kept[0].points == (near,)
    assert [point for _, point in left_out] == [far]
    assert on_scale([], kept) == (kept, [])


def test_looks_are_distinct() -> None:
    roles = ("expander", "bernoulli", "clustered", "clustered_cover", "small_dense", "dense")
    look = looks_for(roles)
    looks = [look(role, "encoder") for role in roles] + [look(role, "omp") for role in ("expander", "dense")]
    assert len({one.marker for one in looks}) == len(looks)


def test_later_families_get_looks_of_their_own() -> None:
    look = looks_for(["expander", "none", "another", "dose64"])
    new = [look(role, "encoder") for role in ("dose64", "another")]
    assert new[0].marker != new[1].marker
    assert {one.marker for one in new}.isdisjoint(known.look[1] for known in SUPPORTS.values() if known.look)


def test_wrap_keeps_every_word_and_the_width() -> None:
    text = "one two three four five six seven eight nine ten"
    lines = wrap(text, 1.0, SMALL)
    assert " ".join(lines) == text
    assert len(lines) > 1
    assert max(text_width(line, SMALL) for line in lines) <= 1.0
    assert wrap("", 1.0, SMALL) == []


def test_compressions() -> None:
    assert [compression(value) for value in (82.29, 5.76, 1.0)] == ["82×", "5.8×", "1×"]
