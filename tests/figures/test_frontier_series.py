"""Which cells reach the frontier, as which series, and what is published beside them."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from expander_sae.figures.frontier_series import Series, measured_series, published_series
from expander_sae.measurements.results import Results
from expander_sae.measurements.view import View

Table = Callable[..., pd.DataFrame]


def only(found: list[Series], role: str, inference: str = "encoder") -> Series:
    (one,) = [one for one in found if (one.role, one.inference) == (role, inference)]
    return one


def of(frame: pd.DataFrame, metric: str = "relative_error") -> list[Series]:
    (view,) = Results(frame).every_view
    return measured_series(view, metric, one_n=True)


def test_a_mean_is_the_mean_of_its_rows(table: Table) -> None:
    frame = table()
    rows = frame[
        (frame["support"] == "expander")
        & (frame["d"] == 30)
        & (frame["inference"] == "omp")
        & (frame["metric"] == "relative_error")
    ]
    point = only(of(frame), "expander", "omp").points[1]
    assert point.cell.d == 30
    assert point.estimate.asked == len(point.estimate.values) == 3
    assert point.estimate.mean == pytest.approx(rows["value"].mean(), abs=1e-15)


def test_a_cell_that_diverged_altogether_still_has_its_point(table: Table, diverge: Table) -> None:
    point = only(of(diverge(table(), "expander", 7, [0, 1, 2]), "ce_recovered"), "expander").points[0]
    assert not point.estimate and (point.estimate.asked, point.estimate.diverged) == (3, 3)


def test_order_of_rows_does_not_matter(table: Table) -> None:
    frame = table()
    assert of(frame.sample(frac=1, random_state=0), "ce_recovered") == of(frame, "ce_recovered")


def test_the_axis_uses_the_measured_decoder_values(table: Table) -> None:
    frame = table()
    hit = (frame["metric"] == "decoder_values") & (frame["support"] == "bernoulli") & (frame["d"] == 7)
    frame.loc[hit, "value"] = 31_000.0
    assert only(of(frame), "bernoulli").points[0].stored == 31_000.0
    without = frame[frame["metric"] != "decoder_values"]
    assert only(of(without), "bernoulli").points[0].stored == 7 * 4608


def test_dense_runs_are_told_apart_by_their_features(table: Table) -> None:
    found = of(table())
    assert [point.cell.n for point in only(found, "dense").points] == [4608]
    assert [point.cell.n for point in only(found, "small_dense").points] == [240, 800]
    assert [point.stored for point in only(found, "small_dense").points] == [240 * 576, 800 * 576]


def test_of_a_sparse_support_the_tied_encoder_alone_is_shown_where_it_was_run(table: Table) -> None:
    frame = table()
    expander = frame["support"] == "expander"
    both = pd.concat([frame, frame[expander].assign(encoder="own_support", value=0.9)])
    shown = {(one.role, one.encoder) for one in of(both)}
    assert shown == {(one.role, one.encoder) for one in of(frame)}
    alone = frame.assign(encoder=frame["encoder"].mask(expander, "full"))
    assert ("expander", "full") in {(one.role, one.encoder) for one in of(alone)}


def test_with_two_n_a_small_dense_run_goes_where_its_storage_matches(table: Table) -> None:
    frame = pd.concat([table(), table(expansion=4, ds=(30, 100))]).drop_duplicates()
    small, large = Results(frame).every_view
    assert (small.place.n, large.place.n) == (2304, 4608)
    features = [
        [point.cell.n for point in only(measured_series(view, "relative_error", False), "small_dense").points]
        for view in (small, large)
    ]
    assert features == [[400], [240, 800]]


def view_of(frame: pd.DataFrame, published_csv: Path) -> View:
    (view,) = Results(frame, pd.read_csv(published_csv)).every_view
    return view


def test_published_points(table: Table, published_csv: Path) -> None:
    frame = table("pythia-70m-deduped", 3, 512, ds=(7, 50), train_tokens=200_000)
    roles = {"expander", "clustered", "dense", "small_dense"}
    found = published_series(view_of(frame, published_csv), "relative_error", roles)
    expander = only(found, "expander")
    assert [(point.cell.d, point.estimate.mean) for point in expander.points] == [
        (7, 0.532), (30, 0.503), (50, 0.489), (100, 0.453), (200, 0.415),
    ]  # fmt: skip
    assert only(found, "dense").encoder == "tied"
    assert [point.cell.n for point in only(found, "small_dense").points] == [240, 400, 800, 1600]


def test_published_points_need_the_same_model_layer_width_n_and_k(table: Table, published_csv: Path) -> None:
    for wrong in (
        table("another-model", 3, 512),
        table("pythia-70m-deduped", 2, 512),
        table("pythia-70m-deduped", 3, 512, k=48),
        table("pythia-70m-deduped", 3, 512, expansion=4),
    ):
        assert published_series(view_of(wrong, published_csv), "relative_error", {"expander"}) == []


def test_a_label_with_a_settings_hash_is_still_the_papers_model(table: Table, published_csv: Path) -> None:
    view = view_of(table("Qwen2.5-3B-0a1b2c", 12, 2048, ds=(7, 30, 102)), published_csv)
    found = published_series(view, "ce_recovered", {"expander", "dense"})
    assert [point.cell.d for point in only(found, "expander").points] == [7, 30, 102]
    assert only(found, "dense").encoder == "warm_tied"
