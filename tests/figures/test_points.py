"""Which seeds, means and intervals reach the figure."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expander_sae.errors import UserError
from expander_sae.measurements.points import (
    Point,
    Series,
    model_cross_entropies,
    published_series,
    read_metrics,
    read_published,
    runs_of,
    series,
    settings,
)

Table = Callable[..., pd.DataFrame]


def only(found: list[Series], role: str, inference: str = "encoder") -> Series:
    (one,) = [one for one in found if (one.role, one.inference) == (role, inference)]
    return one


def of(frame: pd.DataFrame, metric: str) -> list[Series]:
    (setting,) = settings(frame)
    return series(runs_of(frame, setting, one_n=True), metric)


def test_interval_is_student_t() -> None:
    point = Point(n=8, d=2, stored=16.0, values=(1.0, 2.0, 4.0), asked=3)
    # t(0.975, 2) = 4.302653, sd = 1.527525
    assert point.mean == pytest.approx(7 / 3)
    assert point.half_interval == pytest.approx(4.302653 * 1.527525 / math.sqrt(3), rel=1e-6)


def test_one_seed_has_no_interval_and_none_no_mean() -> None:
    assert math.isnan(Point(8, 2, 16.0, (1.0,), 1).half_interval)
    assert math.isnan(Point(8, 2, 16.0, (), 1).mean)


def test_a_mean_is_the_mean_of_its_rows(table: Table) -> None:
    frame = table()
    rows = frame[
        (frame["support"] == "expander")
        & (frame["d"] == 30)
        & (frame["inference"] == "omp")
        & (frame["metric"] == "relative_error")
    ]
    point = only(of(frame, "relative_error"), "expander", "omp").points[1]
    assert point.d == 30
    assert point.asked == len(point.values) == 3
    assert point.mean == pytest.approx(rows["value"].mean(), abs=1e-15)


def test_order_of_rows_does_not_matter(table: Table) -> None:
    frame = table()
    shuffled = frame.sample(frac=1, random_state=np.random.RandomState(0))
    assert of(frame, "ce_recovered") == of(shuffled, "ce_recovered")


def test_diverged_runs_are_counted_and_left_out_of_both_inferences(table: Table, diverge: Table) -> None:
    frame = diverge(table(), "expander", 7, [1])
    for inference in ("encoder", "omp"):
        point = only(of(frame, "relative_error"), "expander", inference).points[0]
        assert (point.asked, point.diverged, point.missing, len(point.values)) == (3, 1, 0, 2)
        assert max(point.values) < 1


def test_a_diverged_run_without_rows_of_the_metric_is_still_counted(table: Table, diverge: Table) -> None:
    frame = diverge(table(), "expander", 7, [1])
    gone = (
        (frame["support"] == "expander")
        & (frame["d"] == 7)
        & (frame["seed"] == 1)
        & (frame["metric"] == "ce_recovered")
    )
    point = only(of(frame[~gone], "ce_recovered"), "expander").points[0]
    assert (point.asked, point.diverged, len(point.values)) == (3, 1, 2)


def test_omp_alone_may_be_flagged(table: Table) -> None:
    frame = table()
    hit = (
        (frame["support"] == "expander")
        & (frame["d"] == 7)
        & (frame["seed"] == 0)
        & (frame["metric"] == "diverged")
        & (frame["inference"] == "omp")
    )
    frame.loc[hit, "value"] = 1.0
    found = of(frame, "relative_error")
    assert only(found, "expander", "omp").points[0].diverged == 1
    assert only(found, "expander", "encoder").points[0].diverged == 0


def test_a_value_that_is_not_finite_is_missing_not_diverged(table: Table) -> None:
    frame = table()
    hit = (
        (frame["metric"] == "ce_recovered")
        & (frame["seed"] == 2)
        & (frame["d"] == 100)
        & (frame["support"] == "expander")
    )
    frame.loc[hit, "value"] = float("inf")
    point = only(of(frame, "ce_recovered"), "expander").points[2]
    assert (point.asked, point.diverged, point.missing, len(point.values)) == (3, 0, 1, 2)


def test_splits_are_not_mixed(table: Table) -> None:
    frame = table()
    foreign = frame[(frame["metric"] == "relative_error")].assign(split="train", value=99.0)
    assert of(pd.concat([foreign, frame]), "relative_error") == of(frame, "relative_error")


def test_the_axis_uses_the_measured_decoder_values(table: Table) -> None:
    frame = table()
    hit = (frame["metric"] == "decoder_values") & (frame["support"] == "bernoulli") & (frame["d"] == 7)
    frame.loc[hit, "value"] = 31_000.0
    assert only(of(frame, "relative_error"), "bernoulli").points[0].stored == 31_000.0
    without = frame[frame["metric"] != "decoder_values"]
    assert only(of(without, "relative_error"), "bernoulli").points[0].stored == 7 * 4608


def test_dense_runs_are_told_apart_by_their_features(table: Table) -> None:
    found = of(table(), "relative_error")
    assert [point.n for point in only(found, "dense").points] == [4608]
    assert [point.n for point in only(found, "small_dense").points] == [240, 800]
    assert [point.stored for point in only(found, "small_dense").points] == [240 * 576, 800 * 576]


def test_of_a_sparse_support_the_tied_encoder_alone_is_shown_where_it_was_run(table: Table) -> None:
    frame = table()
    expander = frame["support"] == "expander"
    both = pd.concat([frame, frame[expander].assign(encoder="own_support", value=0.9)])
    shown = {(one.role, one.encoder) for one in of(both, "relative_error")}
    assert shown == {(one.role, one.encoder) for one in of(frame, "relative_error")}
    alone = frame.assign(encoder=frame["encoder"].mask(expander, "full"))
    assert ("expander", "full") in {(one.role, one.encoder) for one in of(alone, "relative_error")}


def test_with_two_n_a_small_dense_run_goes_where_its_storage_matches(table: Table) -> None:
    frame = pd.concat([table(), table(expansion=4, ds=(30, 100))]).drop_duplicates()
    small, large = settings(frame)
    assert (small.n, large.n) == (2304, 4608)
    features = [
        [
            point.n
            for point in only(
                series(runs_of(frame, setting, one_n=False), "relative_error"), "small_dense"
            ).points
        ]
        for setting in (small, large)
    ]
    assert features == [[400], [240, 800]]


def test_rows_are_sorted_and_dense_only_settings_follow_no_sparse_one(table: Table) -> None:
    frame = pd.concat([table(layer=15), table(layer=3), table(k=16)])
    assert [(setting.layer, setting.k) for setting in settings(frame)] == [(3, 64), (15, 16), (15, 64)]
    longer = table(steps=9000, ds=(), controls=())
    assert len(settings(pd.concat([frame, longer]))) == 3
    assert [setting.n for setting in settings(longer)] == [4608]


def test_the_k_with_most_d_comes_first_and_smaller_budgets_last(table: Table) -> None:
    ends = [table(k=16, ds=(7, 100)), table(k=128, ds=(7, 100))]
    frame = pd.concat([*ends, table(), table(steps=9, ds=(7, 30, 50, 100, 200))])
    assert [(one.k, one.steps) for one in settings(frame)] == [
        (64, 1500), (16, 1500), (128, 1500), (64, 9),
    ]  # fmt: skip


def test_the_models_own_cross_entropies(table: Table) -> None:
    frame = table()
    (setting,) = settings(frame)
    assert model_cross_entropies(frame, setting)["ce_clean"] == 3.21
    assert model_cross_entropies(frame[frame["support"] != "none"], setting) == {}


def test_published_points(table: Table, published_csv: Path) -> None:
    published = read_published(published_csv)
    frame = table("pythia-70m-deduped", 3, 512, ds=(7, 50), train_tokens=200_000)
    (setting,) = settings(frame)
    roles = ["expander", "clustered", "dense", "small_dense"]
    found = published_series(published, setting, "relative_error", roles)
    expander = only(found, "expander")
    assert [(point.d, point.mean) for point in expander.points] == [
        (7, 0.532), (30, 0.503), (50, 0.489), (100, 0.453), (200, 0.415),
    ]  # fmt: skip
    assert only(found, "dense").encoder == "tied"
    assert [point.n for point in only(found, "small_dense").points] == [240, 400, 800, 1600]


def test_published_points_need_the_same_model_layer_width_n_and_k(table: Table, published_csv: Path) -> None:
    published = read_published(published_csv)
    for wrong in (
        table("another-model", 3, 512),
        table("pythia-70m-deduped", 2, 512),
        table("pythia-70m-deduped", 3, 512, k=48),
        table("pythia-70m-deduped", 3, 512, expansion=4),
    ):
        (setting,) = settings(wrong)
        assert published_series(published, setting, "relative_error", ["expander"]) == []


def test_a_label_with_a_settings_hash_is_still_the_papers_model(table: Table, published_csv: Path) -> None:
    (setting,) = settings(table("Qwen2.5-3B-0a1b2c", 12, 2048, ds=(7, 30, 102)))
    found = published_series(read_published(published_csv), setting, "ce_recovered", ["expander", "dense"])
    assert [point.d for point in only(found, "expander").points] == [7, 30, 102]
    assert only(found, "dense").encoder == "warm_tied"


def test_bad_tables(table: Table, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.parquet: no such file"):
        read_metrics(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(UserError, match=r"torn\.parquet: not a readable Parquet table"):
        read_metrics(tmp_path / "torn.parquet")
    frame = table()
    frame.drop(columns="split").to_parquet(tmp_path / "short.parquet")
    with pytest.raises(UserError, match="column 'split' is missing"):
        read_metrics(tmp_path / "short.parquet")
    frame[:0].to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="found 0 rows and no measurement of an SAE"):
        read_metrics(tmp_path / "empty.parquet")
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        read_published(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="column 'model' is missing"):
        read_published(tmp_path / "other.csv")
