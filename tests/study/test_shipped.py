"""The shipped configurations hold what is compared."""

import csv
import re
from dataclasses import replace

from expander_sae.model.precisions import RUN_PRECISIONS
from expander_sae.pursuit.inference import ENCODER
from expander_sae.study.run import CELL_PATTERN, RUN_COLUMNS
from expander_sae.study.study import Study, load_config
from tests.study.configs import ROOT


def test_the_paper_grid_measures_every_published_value():
    study = Study(load_config(ROOT / "configs/paper.yaml"))
    own = ("corpus", "recipe", "precision", "codes", "steps", "seed")
    columns = [name for name in RUN_COLUMNS if name not in own]
    # The seeds from 3 on serve the claims, and are measured by less.
    runs = [run for run in study.runs if (run.seed, run.steps) == (0, 5000)]
    held = {tuple(str(getattr(run, name)) for name in columns): run for run in runs}
    with open(ROOT / "resources/paper_figures.csv", encoding="utf-8") as stream:
        published = list(csv.DictReader(stream))
    missing = set()
    for row in published:
        run, inference = held.get(tuple(row[name] for name in columns)), row["inference"]
        if run is None:
            missing.add(tuple(row.values()))
        elif inference in ("niht", "cosamp"):
            asked = "pursuits" in run.analysis.analyses and inference in run.analysis.pursuits
            missing |= set() if asked else {tuple(row.values())}
        elif inference != "omp_single_block":  # one round of a block pursuit, in CE: not spliced here
            kind = "cross_entropy" if row["metric"].startswith("ce") else "inference"
            missing |= set() if inference in getattr(run.evaluation, kind) else {tuple(row.values())}
    assert len(published) > 800 and not missing
    assert {run.recipe for run in study.runs} == {"paper"}


def test_the_paper_grid_has_ten_seeds_of_the_cells_that_carry_a_claim():
    study = Study(load_config(ROOT / "configs/paper.yaml"))
    seeds: dict[tuple[str, int, str, int], set[int]] = {}
    for run in study.runs:
        main = (run.encoder, run.n, run.k, run.train_tokens, run.steps)
        if main == ("tied", 8 * run.m, 64, 200_000, 5000):
            seeds.setdefault((run.model, run.layer, run.support, run.d), set()).add(run.seed)
    for d in (7, 100):
        for support in ("expander", "clustered_cover", "bernoulli"):
            assert seeds["pythia-70m-deduped", 3, support, d] == set(range(10))
    assert seeds["pythia-70m-deduped", 3, "dense", 512] == set(range(10))
    assert seeds["qwen2.5-3b", 12, "expander", 7] == seeds["qwen2.5-3b", 12, "dense", 2048] == set(range(10))
    assert seeds["pythia-70m-deduped", 3, "expander", 30] == {0, 1, 2}


def test_the_shipped_study_holds_what_its_claims_compare():
    study = Study(load_config(ROOT / "configs/smollm2-135m.yaml"))
    seeds: dict[tuple[str, int, int, int], set[int]] = {}
    for run in study.runs:
        if run.encoder == "tied" and run.train_tokens == 200000 and run.steps == 5000:
            seeds.setdefault((run.support, run.n, run.d, run.k), set()).add(run.seed)
    ten, three = set(range(10)), {0, 1, 2}
    for support in ("expander", "clustered_cover", "bernoulli"):
        assert seeds[support, 4608, 7, 64] == seeds[support, 4608, 100, 64] == ten
    assert seeds["dense", 4608, 576, 64] == ten
    for d in (7, 100):
        for support in ("pruned_retuned", "dose144", "dose576", "dose2304", "right_regular"):
            assert seeds[support, 4608, d, 64] == three
        for k in (16, 32, 128):
            assert seeds["expander", 4608, d, k] == seeds["pruned_retuned", 4608, d, k] == three
    assert seeds["dense", 240, 576, 64] == seeds["dense", 800, 576, 64] == three
    compared = [run for run in study.runs if "novelty" in run.analysis.analyses]
    told = {path: spec for task in study.analyses.values() for path, spec in task.spec.items()}
    assert compared and all(told[run.path]["reference"] for run in compared)
    assert study.rows == "studies/smollm2-135m/rows" and len(study.synthetic) == 5


def test_rules_find_the_folders_of_all_cells():
    """Of every shipped configuration, and of every pursuit beside every precision."""
    names = [
        run.cell.name
        for file in [ROOT / "config.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]
        for run in Study(load_config(file)).trained
    ]
    codes = [ENCODER, "omp", "block_omp_4", "cosamp"]
    one = Study(load_config(ROOT / "configs/smollm2-tuned.yaml")).runs[0]
    names += [replace(one, codes=c, precision=p).cell.name for c in codes for p in RUN_PRECISIONS]
    assert len(set(names)) > 400
    assert [name for name in names if not re.fullmatch(CELL_PATTERN, name)] == []
    assert not re.fullmatch(CELL_PATTERN, f"{names[0]}_seed0")
