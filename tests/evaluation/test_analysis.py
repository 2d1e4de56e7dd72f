"""Analyses of a run on disk against the functions that they are made of, written out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from expander_sae.activations.label_table import LabelTable
from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.evaluation.analysis import ANALYSES, analyse_run, dead_feature_sizes
from expander_sae.evaluation.certificate_rows import evenly
from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.features import FiringSets, random_sets, random_signs
from expander_sae.evaluation.label_families import Documents, family_of
from expander_sae.evaluation.label_rows import LABELLED
from expander_sae.evaluation.probing import probes
from expander_sae.evaluation.selectivity import Selectivity
from expander_sae.measurements import tables
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.inference import inferences
from expander_sae.study.run import Analysis
from expander_sae.theory import certificates
from tests.evaluation.pools import LIMIT, K, N, write_label_table, write_pool, write_run

SETTINGS = Analysis(
    tuple(name for name in ANALYSES if name not in LABELLED),
    280,
    ("block_omp_2", "niht", "cosamp"),
    pursuit_tokens=30,
    inference=("encoder", "omp"),
    labelled_tokens=280,
)


def analysed(folder: Path, pool: Path, **settings: Any) -> pd.DataFrame:
    told, out, labels = replace(SETTINGS, **settings), folder / "analysis.parquet", write_label_table(pool)
    analyse_run(folder, told, pool, out, labels, backend="torch")
    return tables.read_metrics(folder / "analysis.parquet")


def values(frame: pd.DataFrame, inference: str, split: str) -> dict[str, float]:
    rows = frame[(frame["inference"] == inference) & (frame["split"] == split)]
    return dict(zip(rows["metric"], rows["value"], strict=True))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"))


def tokens_of(pool: Path) -> tuple[torch.Tensor, np.ndarray]:
    """Encoded ones of the first 280 test tokens: activations and ids."""
    opened = Pool.open(pool)
    place = np.flatnonzero(opened.norms[:280] <= LIMIT)
    assert len(place) == 274
    return torch.from_numpy(opened.activations[place]), opened.token_id[place]


@pytest.mark.parametrize("family", ["expander", "bernoulli"])
def test_rows_of_a_sparse_run(pool: Path, tmp_path: Path, family: str) -> None:
    write_run(tmp_path / "dense", "dense", seed=3)
    sae = write_run(tmp_path / "run", family)
    frame = analysed(tmp_path / "run", pool, reference=str(tmp_path / "dense"))
    h, ids = tokens_of(pool)
    code = sae.encode(h)
    assert set(frame["support"]) == {family} and np.isfinite(frame["value"]).all()

    few = h[[274 * place // 30 for place in range(30)]]
    for name in ("encoder", "omp", "block_omp_2", "niht", "cosamp"):
        found = values(frame, name, "pursuit")
        rebuilt = sae.decode(inferences(name)(sae, few))
        error = ((few - rebuilt).norm(dim=1) / few.norm(dim=1)).mean()
        assert found["relative_error"] == pytest.approx(float(error), rel=1e-4)
        assert set(found) == {"relative_error", "explained_variance"}

    found = values(frame, "encoder", "test")
    fired = [{int(t) for t in (code.index == j).any(dim=1).nonzero()[:, 0]} for j in range(N)]
    live = [j for j in range(N) if fired[j]]
    assert found["live_features"] == len(live) < N
    assert found["dead_fraction_t280"] == pytest.approx(1 - len(live) / N)
    entropies = []
    for j in live:
        share = np.unique(ids[list(fired[j])], return_counts=True)[1] / len(fired[j])
        entropies.append(-(share * np.log2(share)).sum())
    assert found["token_entropy"] == pytest.approx(np.mean(entropies))
    assert found["token_entropy_null"] != found["token_entropy"]

    rows = [sae.mask.rows[j, : sae.mask.degrees[j]] for j in range(N)]  # type: ignore[union-attr]
    coverage = [len(np.unique(np.concatenate([rows[j] for j in one]))) for one in code.index.tolist()]
    edges = [sum(len(rows[j]) for j in one) for one in code.index.tolist()]
    assert found["collision_coverage"] == pytest.approx(np.mean(coverage))
    assert found["collision_duplicate_edges"] == pytest.approx(np.subtract(edges, coverage).mean())
    assert found["collision_deficit"] == pytest.approx(1 - np.divide(coverage, edges).mean())
    assert found["collision_deficit_null"] != found["collision_deficit"]

    theirs_sae = SparseAutoencoder.load(tmp_path / "dense" / "weights.safetensors", backend="torch")
    theirs = theirs_sae.encode(h)
    other = [{int(t) for t in (theirs.index == j).any(dim=1).nonzero()[:, 0]} for j in range(N)]
    best = {j: max(len(fired[j] & o) / len(fired[j] | o) for o in other) for j in live}
    novel = [j for j in live if best[j] < 0.1]
    assert found["novel_share_jaccard"] == pytest.approx(len(novel) / len(live))
    cosine = sae.dictionary().columns(torch.arange(N)) @ theirs_sae.dictionary().columns(torch.arange(N)).T
    low = (cosine.abs().amax(dim=1) < 0.3)[live]
    assert found["novel_share_cosine"] == pytest.approx(float(low.float().mean()))
    mean = np.mean([entropies[live.index(j)] for j in novel])
    assert novel and found["token_entropy_novel"] == pytest.approx(mean)

    # Nulls: the same sets and columns, drawn anew, and everything else as above.
    drawn = random_sets(FiringSets.of([code], N), 0)
    chance = [set(drawn.token[drawn.starts[j] : drawn.starts[j + 1]].tolist()) for j in range(N)]
    assert [len(one) for one in chance] == [len(one) for one in fired]
    by_chance = {j: max(len(chance[j] & o) / len(chance[j] | o) for o in other) for j in live}
    null = np.mean([by_chance[j] < 0.1 for j in live])
    assert found["novel_share_jaccard_null"] == pytest.approx(null)
    signed = random_signs(sae.dictionary(), 0).columns(torch.arange(N))
    cosine = (signed @ theirs_sae.dictionary().columns(torch.arange(N)).T).abs().amax(dim=1)
    assert found["novel_share_cosine_null"] == pytest.approx(float((cosine < 0.3)[live].float().mean()))

    def entropy(tokens: set[int]) -> float:
        share = np.unique(ids[list(tokens)], return_counts=True)[1] / len(tokens)
        return float(-(share * np.log2(share)).sum())

    assert found["token_entropy_null"] == pytest.approx(np.mean([entropy(chance[j]) for j in live]))
    assert found["token_entropy_novel_null"] == pytest.approx(np.mean([entropy(chance[j]) for j in novel]))


@pytest.mark.parametrize("family", ["expander", "bernoulli", "dense"])
def test_certificates_of_columns_and_of_supports(pool: Path, tmp_path: Path, family: str) -> None:
    sae = write_run(tmp_path / "run", family)
    frame = analysed(tmp_path / "run", pool, analyses=("certificates",))
    h, _ = tokens_of(pool)
    columns = sae.dictionary().columns(torch.arange(N)).detach().double()
    overlap = (columns @ columns.T).abs().fill_diagonal_(0)
    found = values(frame, "none", "none")
    coherence = overlap.sort(dim=1, descending=True).values[:, :K].sum(dim=1).max()
    assert found.pop("cumulative_coherence_k") == pytest.approx(float(coherence), rel=1e-5)
    if family == "dense":
        assert found == {}
    else:
        degrees = torch.from_numpy(sae.mask.degrees).double()  # type: ignore[union-attr]
        beta = float((columns.abs().amax(dim=1) / columns.norm(dim=1) * degrees.sqrt()).max())
        assert found["flatness"] == pytest.approx(beta, rel=1e-5)
        wide, one = found["expansion_deficit_2k"], found["expansion_deficit_k1"]
        assert wide == certificates.expansion_deficit(sae.mask, 2 * K, 0).value
        assert one == certificates.expansion_deficit(sae.mask, K + 1, 0).value
        assert found["identifiability"] == pytest.approx(2 * beta**2 * wide, rel=1e-5)
        assert found["omp_condition"] == pytest.approx(beta**2 * one * (2 * K + 1), rel=1e-5)

    found = values(frame, "encoder", "test")
    smallest, margins = [], []
    for support in sae.encode(h).index[[274 * place // 256 for place in range(256)]]:
        used = columns[support]
        smallest.append(float(torch.linalg.svdvals(used)[-1]))
        weight = (torch.linalg.pinv(used.T) @ columns.T).abs().sum(dim=0)
        weight[support] = 0
        margins.append(1 - float(weight.max()))
    assert found["restricted_sigma_min"] == pytest.approx(np.median(smallest), rel=1e-4)
    assert found["restricted_sigma_min_p05"] == pytest.approx(np.quantile(smallest, 0.05), rel=1e-4)
    assert found["recovery_margin_median"] == pytest.approx(np.median(margins), rel=1e-4)
    assert found["recovery_margin_positive"] == pytest.approx(np.mean(np.array(margins) > 0))


def labelled_codes(sae: SparseAutoencoder, h: torch.Tensor) -> dict[str, FeatureValues]:
    return {name: FeatureValues.of_code(inferences(name)(sae, h), N) for name in ("encoder", "omp")}


@pytest.mark.parametrize("family", ["expander", "dense"])
def test_labels_by_each_inference(pool: Path, tmp_path: Path, family: str) -> None:
    sae = write_run(tmp_path / "run", family)
    frame = analysed(tmp_path / "run", pool, analyses=("selectivity", "probing"))
    h, ids = tokens_of(pool)
    place = np.flatnonzero(Pool.open(pool).norms[:280] <= LIMIT)
    documents = Documents.of(place // 10)
    table = LabelTable.read(write_label_table(pool)).columns
    for name, code in labelled_codes(sae, h).items():
        found = values(frame, name, "test")
        tokens = family_of("token", ids, documents)
        assert len(tokens.names) == 11, "each id is on many tokens of many documents"
        assert found["selectivity"] == Selectivity(code, tokens, documents).scores().mean()[0]
        assert found["selectivity_low"] < found["selectivity"] < found["selectivity_high"]
        null = Selectivity(code.elsewhere(0), tokens, documents).scores().mean()[0]
        assert found["selectivity_null"] == null != found["selectivity"]
        assert found["frequent_share"] == (np.diff(code.starts) > 27.4).mean()
        probed = probes(code, tokens, documents)
        labels = {"kind": "kind", "position": "place", "origin": "origin"}
        for size in (1, 5, 20):
            assert found[f"probe_f1_{size}_token"] == probed[size].mean()[0]
            parts = [found[f"probe_f1_{size}_{part}"] for part in ("token", *labels)]
            assert found[f"probe_f1_{size}"] == pytest.approx(np.mean(parts))
        for part, column in labels.items():
            family_labels = family_of(part, table[column][place], documents)
            expected = Selectivity(code, family_labels, documents).scores().mean()[0]
            assert found[f"selectivity_{part}"] == expected
        assert not any(metric.endswith("_user") for metric in found)
    assert {row for row in frame["inference"]} == {"encoder", "omp"}


def test_fewer_tokens_are_whole_documents_spread_over_the_test_set(pool: Path, tmp_path: Path) -> None:
    sae = write_run(tmp_path / "run")
    frame = analysed(
        tmp_path / "run", pool, analyses=("selectivity",), labelled_tokens=140, inference=("encoder",)
    )
    h, ids = tokens_of(pool)
    place = np.flatnonzero(Pool.open(pool).norms[:280] <= LIMIT)
    read = np.isin(place // 10, np.arange(14) * 2)
    code = FeatureValues.of_code(sae.encode(h[torch.from_numpy(read)]), N)
    documents = Documents.of(place[read] // 10)
    expected = Selectivity(code, family_of("token", ids[read], documents), documents).scores().mean()[0]
    assert values(frame, "encoder", "test")["selectivity"] == expected
    assert set(frame["inference"]) == {"encoder"}


def test_labels_of_other_tokens_or_none_are_refused(pool: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    asked = replace(SETTINGS, analyses=("probing",))
    with pytest.raises(UserError, match="labels: found no table of the test tokens' labels, expected one"):
        analyse_run(tmp_path / "run", asked, pool, tmp_path / "out.parquet", backend="torch")
    other = write_label_table(pool, tmp_path / "other.parquet", shift=1)
    with pytest.raises(UserError, match=r"other\.parquet: found other tokens than those of the test pool"):
        analyse_run(tmp_path / "run", asked, pool, tmp_path / "out.parquet", other, backend="torch")


def test_only_what_is_asked_for_is_measured(pool: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    metrics = set(analysed(tmp_path / "run", pool, analyses=("collisions",))["metric"])
    assert metrics and all(name.startswith("collision_") for name in metrics)
    assert analysed(tmp_path / "run", pool, analyses=("novelty",)).empty, "without a reference"
    write_run(tmp_path / "dense", "dense")
    assert analysed(tmp_path / "dense", pool, analyses=("collisions",)).empty, "a dense run has none"


def test_a_run_that_is_not_finite_has_no_rows(pool: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "broken", b_dec=float("nan"))
    write_run(tmp_path / "run")
    assert analysed(tmp_path / "broken", pool).empty
    frame = analysed(tmp_path / "run", pool, reference=str(tmp_path / "broken"))
    assert not frame["metric"].str.startswith("novel").any() and len(frame)


def test_the_same_bytes_each_time(pool: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "dense", "dense")
    write_run(tmp_path / "run")
    written = []
    for _ in range(2):
        analysed(tmp_path / "run", pool, reference=str(tmp_path / "dense"))
        written.append((tmp_path / "run" / "analysis.parquet").read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize(("total", "count"), [(10, 3), (10, 10), (3, 10), (0, 4), (8191, 256), (5, 0)])
def test_places_are_evenly_spread(total: int, count: int) -> None:
    places = evenly(total, count)
    assert len(places) == min(total, count) == len(set(places.tolist()))
    gaps = np.diff(places)
    assert len(places) < 2 or (places[0] == 0 and gaps.max() - gaps.min() <= 1)
    assert len(places) == 0 or places[-1] < total <= places[-1] + total / len(places) + 1


def test_sizes_of_the_test_set() -> None:
    assert dead_feature_sizes(8192) == [1024, 2048, 4096, 8192]
    assert dead_feature_sizes(5000) == [1024, 2048, 4096, 5000]
    assert dead_feature_sizes(1025) == [1024, 1025]
    assert dead_feature_sizes(512) == [512]


def test_mistakes_are_named(pool: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with pytest.raises(UserError, match=r"evaluation\.analyses: found 'colisions'"):
        analysed(tmp_path / "run", pool, analyses=("colisions",))
    with pytest.raises(UserError, match="inference: found 'lars'"):
        analysed(tmp_path / "run", pool, pursuits=("lars",))
    with pytest.raises(UserError, match="300 tokens, expected at least 400"):
        analysed(tmp_path / "run", pool, test_tokens=400)
