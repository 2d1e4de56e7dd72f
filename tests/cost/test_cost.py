"""The cost model's arithmetic, and what the command prints; the coefficients here are made up."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.fit import fit_all, holding_out
from expander_sae.cost import __main__ as cost
from expander_sae.cost.disk_estimate import disk
from expander_sae.cost.job_estimates import Plan
from expander_sae.cost.memory_estimate import ModelSize
from expander_sae.cost.time_model import (
    COEFFICIENTS,
    CPU_FILE,
    GPU_FILE,
    JOB_CONSTANTS,
    Machine,
    Shape,
    terms,
)
from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import EVALUATED_TOKENS
from expander_sae.masks.shapes import Piece
from expander_sae.masks.supports import support_of
from expander_sae.study.study import Study, load_config

ROOT = Path(__file__).resolve().parents[2]


HALF = {"a": 0.5, "b": 0.0, "c": 0.0, "e": 0.0}


def machine(**jobs):
    """Every task takes 1 s a call, jobs nothing but what is given."""
    one = {"a": 1.0, "b": 0.0, "c": 0.0, "e": 0.0}
    constants = dict.fromkeys(JOB_CONSTANTS, 0.0)
    constants |= {
        name: 1e30 for name in JOB_CONSTANTS if name.endswith("_bytes") or name.startswith("forward")
    }
    tasks = {"encode_topk": {"dense": one, "numba": one}, "train_step": {"dense": one, "numba": one}}
    tasks["omp"] = {"dense": HALF, "numba": HALF}
    return Machine("a machine", 2, tasks, constants | {"logits": 1e30} | jobs)


def study(**changes):
    base = {
        "models": [{"name": "smollm2-135m-instruct", "layers": [15]}],
        "tokens": {"train": 1000, "test": 1024, "ce_sequences": 8, "shard": 512},
        "training": {"steps": 10},
        "grid": {"n": 4608, "d": [7, 30], "k": [4], "seeds": [0, 1]},
        "runs": [{"support": "expander"}],
        "compute": {"seeds_per_job": 1},
    }
    return Study(load_config({**base, **changes}))


def stages(given, hardware, other=None):
    return {stage.name: stage for stage in Plan(given, hardware, other).stages()}


def test_terms():
    shape = Shape(m=7, n=10, d=3, k=4, batch=5)
    assert terms("train_step", shape) == (1, 50, 150, 60, 30, 20, 35, 1050)
    assert terms("omp", shape) == (4, 200, 600, 240, 120, 80, 140, 4200)
    # Numba scores 64 samples at a time; what is kept is not padded.
    assert terms("train_step", shape, "numba") == (1, 640, 1920, 60, 30, 20, 35, 7 * 1920)


def test_terms_of_dense_dictionaries():
    assert terms("encode_topk", Shape(7, 10, 7, 4, 5)) == (1, 50, 350, 140, 70, 20, 35, 0)
    # Five whole products with few features, one with many.
    assert terms("train_step", Shape(7, 10, 7, 4, 5))[2:4] == (5 * 350, 0)
    assert terms("train_step", Shape(7, 1000, 7, 4, 5))[2:4] == (35000, 4 * 140)
    # A step of whole products alone, however many features there are.
    assert terms("train_step", Shape(7, 1000, 7, 4, 5), "dense", 5.0)[2:4] == (5 * 35000, 0)
    assert terms("omp", Shape(7, 10, 7, 4, 5))[3:5] == (10 * 5 * 16, 10 * 7 * 15)


def test_prediction_is_the_sum_of_the_terms():
    fitted = {"a": 1.0, "b": 2.0, "c": 3.0, "e": 4.0}
    known = replace(machine(), tasks={"omp": {"numba": fitted}})
    assert known.seconds("omp", "numba", Shape(7, 10, 3, 4, 5)) == 4 + 2 * 2560 + 3 * 7680 + 4 * 240


def test_stages_count_jobs_and_calls():
    found = stages(study(), machine())
    assert {name: len(stage.seconds) for name, stage in found.items()} == {
        "model": 1,
        "corpus": 1,
        "extraction": 2 + 2 + 2,  # 1000, 1024 and 8·128 tokens in shards of 512
        "pool": 3,
        "mask": 4,
        "training": 4,
        "baseline": 1,
        "evaluation": 2,
        "tables, figure": 1,
    }
    assert found["training"].seconds == (10.0,) * 4
    # A seed: a call for the test tokens and one for those of cross-entropy, 1 s by the encoder and 4 · 0.5 s
    # by OMP.
    assert found["evaluation"].seconds == (2 * (2 * 1 + 2 * 2),) * 2


def test_tokens_are_inferred_in_the_pieces_of_the_job():
    """Another price of a call shows how many there are: EVALUATED_TOKENS each, and the rest."""
    few = study(tokens={"train": 1000, "test": EVALUATED_TOKENS, "ce_sequences": 8, "shard": 512})
    more = study(tokens={"train": 1000, "test": 2 * EVALUATED_TOKENS + 1, "ce_sequences": 8, "shard": 512})
    slow, fast = (sum(stages(one, machine())["evaluation"].seconds) for one in (more, few))
    assert slow - fast == 4 * 2 * (1 + 2)


def test_recipe_and_encoder_change_the_step():
    paper = study(recipe="paper")
    assert stages(paper, machine())["training"].seconds == (20.0,) * 4  # counts by a second encoding
    known = machine()
    slow = {"a": 3.0, "b": 0.0, "c": 0.0, "e": 0.0}
    known.tasks["train_step"]["dense"] = slow
    free = study(runs=[{"support": "dense", "encoder": ["tied", "independent"], "seeds": 0}])
    assert stages(free, known)["training"].seconds == (30.0, 50.0)


def test_decoders_take_the_time_of_all_their_matrices():
    """A step on the dense columns of a hybrid, or on a spectral basis, and one on the sparse columns."""
    known = machine()
    known.tasks["train_step"]["dense"] = {"a": 3.0, "b": 0.0, "c": 0.0, "e": 0.0}
    for support, seconds in {"expander": 10.0, "grown": 10.0, "hybrid": 40.0, "spectral": 40.0}.items():
        one = study(runs=[{"support": support, "d": 30, "seeds": 0}])
        assert stages(one, known)["training"].seconds == (seconds,)
        assert "mask" not in stages(one, known) or support == "expander"


def test_a_pursuit_goes_through_dense_columns_in_each_round_and_through_a_basis_once():
    known = machine()
    known.tasks["encode_topk"]["dense"] = {"a": 3.0, "b": 0.0, "c": 0.0, "e": 0.0}
    sparse, k = Piece(20, 90, 2), 4
    pieces = {"alone": (sparse,), "beside": (Piece(20, 10, 20), sparse)}
    pieces |= {"basis": (Piece(50, 20, 50, basis=True), sparse)}
    pieces |= {"whole": (Piece(20, 20, 20, basis=True), sparse)}  # as many components as coordinates
    pieces["dense"] = (Piece(20, 90, 20),)  # by its Gram matrix, with a price of its own
    found = {name: known.coding("omp", "numba", given, k, 1) for name, given in pieces.items()}
    assert found == {"alone": 2.0, "beside": 2.0 + 4 * 3, "basis": 2.0 + 3, "whole": 2.0 + 3, "dense": 2.0}


def test_rounds_of_numba_are_encoder_passes_and_one_refit():
    known, sparse, dense = machine(), Piece(20, 90, 2), Piece(20, 10, 20)

    def seconds(name, *pieces, backend="numba"):
        return known.coding(name, backend, pieces, 8, 5)

    u, v = 1.4e-10, 3.6e-10
    refit = 5 * 8 * 8 * (u * 8 + v * 2)
    assert seconds("block_omp_2", sparse) == pytest.approx(4 + refit, rel=1e-12)
    assert seconds("block_omp_3", dense, sparse) == pytest.approx(3 + 3 + refit, rel=1e-12)
    basis = Piece(20, 20, 20, basis=True)
    assert seconds("block_omp_3", basis, sparse) == pytest.approx(1 + 3 + refit, rel=1e-12)
    assert seconds("encoder", dense, sparse) == 2
    assert seconds("niht", sparse) is seconds("block_omp_2", dense) is None
    assert seconds("block_omp_2", sparse, backend="torch") is None


@pytest.mark.parametrize(
    ("line", "support", "d"),
    [("expander d = 7", "expander", 7), ("expander d = 30", "expander", 30), ("hybrid", "hybrid80", 30)],
)
def test_the_estimates_are_near_the_times_in_the_documentation(line, support, d):
    """Of one core of the machine that the coefficients are of; not of the encoder's few microseconds."""
    page = (ROOT / "docs/howto/inference.md").read_text(encoding="utf-8")
    (row,) = (row for row in page.splitlines() if row.startswith(f"| {line}") and row.count("|") == 8)
    measured = [float(cell) for cell in row.split("|")[3:-1]]
    pieces = support_of(support).computed_with(576, 4608, d)
    names = ("block_omp_64", "block_omp_16", "block_omp_8", "block_omp_4", "omp")
    for name, told in zip(names, measured, strict=True):
        estimate = Machine.read(CPU_FILE).coding(name, "numba", pieces, 64, 2048) / 2048 * 1e6
        assert 0.75 < estimate / told < 1.35, (name, estimate, told)


def test_a_step_and_an_evaluation_take_the_time_of_their_own_pursuit():
    runs = [{"support": "expander", "codes": "block_omp_4", "seeds": 0, "inference": ["block_omp_4"]}]
    one = study(recipe="tuned", runs=runs, grid={"n": 4608, "d": [7], "k": [32], "seeds": [0]})
    (run,), steps = one.runs, one.recipe_settings.pursuit_steps
    refit = one.recipe_settings.batch_size * 32 * 32 * (1.4e-10 * 32 + 3.6e-10 * 7)
    # A step of 1 s has an encoder's pass of 1 s in it, for which there are 8 and a refit.
    assert Plan(one, machine()).training(run).seconds == pytest.approx(steps * (8 + refit))
    unknown = study(
        recipe="tuned", runs=[{**runs[0], "support": "dense"}], grid={"n": 48, "k": [32], "seeds": 0}
    )
    assert Plan(unknown, machine()).training(unknown.runs[0]).seconds == steps * 32 * 0.5, "as by OMP"


def test_threads_and_load_of_the_model():
    base = stages(study(), machine(load=1e-9, forward_float32=1e9))
    half = stages(study(compute={"threads": 2}), machine(load=1e-9, forward_float32=1e9))
    size = ModelSize(576, 30, 49152, "float32")
    forward = 2 * 16 * 12 * 576**2 * 512 / 1e9
    assert base["extraction"].seconds[0] == pytest.approx(size.parameters * 1e-9 + forward)
    assert half["extraction"].seconds[0] == pytest.approx(size.parameters * 1e-9 + forward / 2)


def test_a_gpu_does_what_uses_one():
    slow, fast = machine(start=100, corpus=7), machine(start=1, corpus=1000)
    found = stages(study(), fast, slow)
    assert found["training"].gpu
    assert found["training"].seconds == (11.0,) * 4
    assert found["corpus"].seconds == (7.0,)
    assert not found["corpus"].gpu


def test_parameters_are_near_the_truth():
    assert ModelSize(576, 30, 49152, "float32").parameters == pytest.approx(134.5e6, rel=0.15)
    assert ModelSize(2048, 16, 128256, "bfloat16").bytes == pytest.approx(2 * 1.24e9, rel=0.2)


def test_disk():
    given = study()
    found = dict(disk(given, Plan(given, machine())))
    tokens = 1024 + 1024 + 1024
    assert found["pools"] == tokens * (576 * 4 + 18)
    assert found["shards"] == tokens * (576 * 4 + 10)
    assert found["weights"] == 4 * sum(4608 * d + 4608 + 576 for d in (7, 7, 30, 30))


def test_disk_where_training_streams():
    given = study(training={"stream": 4096})
    plan = Plan(given, machine())
    assert dict(disk(given, plan))["pools"] == (1024 + 1024) * (576 * 4 + 18), "of test and ce alone"
    (model,) = given.models.values()
    assert plan.pool(model, "train").peak_mb < plan.pool(model, "test").peak_mb, "it is listed"


@pytest.mark.parametrize(
    ("seconds", "places", "expected"),
    [((), 3, 0), ((5, 1, 1), 1, 7), ((5, 1, 1), 2, 5), ((3, 3, 2, 2, 2), 2, 7), ((1, 2), 9, 2)],
)
def test_makespan(seconds, places, expected):
    assert cost.makespan(seconds, places) == expected


def test_more_nodes_are_never_slower():
    found = [cost.estimate(study(), machine(start=5), machine(), nodes)["hours"] for nodes in (1, 2, 50)]
    assert found[0]["nodes"] >= found[1]["nodes"] >= found[2]["nodes"]
    assert found[0]["core"] == found[2]["core"]
    assert found[0]["nodes"] == found[0]["cpu"]


@pytest.mark.parametrize("name", ["config.yaml", "configs/smoke.yaml", "configs/paper.yaml"])
def test_shipped_configurations(name, capsys):
    cost.main([str(ROOT / name), "--nodes", "3"])
    printed = capsys.readouterr().out
    assert f"{name}: " in printed.replace(str(ROOT) + "/", "")
    assert "3 GPU nodes, h" in printed
    assert "training" in printed
    assert max(map(len, printed.splitlines())) < 150


def test_json(capsys):
    cost.main([str(ROOT / "config.yaml"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["jobs"] == sum(stage["jobs"] for stage in found["stages"])
    assert found["hours"]["core"] == pytest.approx(sum(stage["hours"]["core"] for stage in found["stages"]))
    assert found["disk_gb"]["total"] > 0.5


def test_against_a_finished_run(tmp_path):
    jobs = [{"stage": "mask", "seconds": seconds, "peak_mb": 100.0} for seconds in (1.0, 3.0)]
    pd.DataFrame(jobs).to_parquet(tmp_path / "timings.parquet")
    found = cost.estimate(study(), machine(), machine(), 1)
    lines = cost.against(found, tmp_path / "timings.parquet").splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:5] == ["mask", "2", "2.0", "0.1", "0.05"]
    with pytest.raises(UserError, match=r"no\.parquet: expected the timings.parquet"):
        cost.against(found, tmp_path / "no.parquet")


def test_what_is_fitted_and_what_is_estimated_is_said_so(capsys):
    cost.main([str(ROOT / "configs/smoke.yaml")])
    cpu, gpu = (line for line in capsys.readouterr().out.splitlines() if " hours: " in line)
    assert cpu == "CPU hours: fitted to rows measured on AMD EPYC, backend numba."
    assert gpu.startswith("GPU hours: fitted to rows measured on NVIDIA H200, backend triton.")
    assert gpu.endswith("Estimated, not measured: what a job takes beside them.")


def gpu_rows():
    return json.loads((ROOT / "benchmarks/results/gpu_h200.json").read_text())


def test_shipped_gpu_coefficients_are_those_of_the_recorded_rows():
    """Whoever records rows anew has to fit them anew; the fit itself is tested in tests/benchmarks."""
    rows = [row for row in gpu_rows() if row["dtype"] == "bfloat16"]
    fitted, known = fit_all(holding_out(rows), None), Machine.read(GPU_FILE)
    for task in ("encode_topk", "train_step"):
        for backend, found in fitted[task].items():
            shipped = known.tasks[task][backend]
            for name in COEFFICIENTS:
                assert shipped[name] == pytest.approx(found[name], rel=1e-6), (task, backend)


def test_a_pursuit_on_a_gpu_takes_what_was_measured():
    known, seen = Machine.read(GPU_FILE), 0
    for row in gpu_rows():
        if row["task"] == "omp" and row["variant"] in ("triton", "dense"):
            width = row["m"] if row["variant"] == "dense" else row["d"]
            shape = Shape(row["m"], row["n"], width, row["k"], row["B"])
            assert known.seconds("omp", row["variant"], shape) * 1e3 == pytest.approx(row["ms_median"])
            seen += 1
    assert seen == 4


def test_a_step_on_a_gpu_is_near_what_was_measured():
    """One alone, and four and sixteen in a round; what a call takes is paid once a round."""
    known = Machine.read(GPU_FILE)
    call = known.tasks["train_step"]["triton"]["a"]
    rows = [row for row in gpu_rows() if row["task"] == "train_graph"]
    assert len(rows) == 60
    for row in rows:
        backend = "dense" if row["variant"] == "dense_products" else "triton"
        widths = row["d"] if isinstance(row["d"], list) else [row["d"]]
        steps = [
            known.seconds("train_step", backend, Shape(row["m"], row["n"], d, row["k"], row["B"]))
            for d in widths
        ]
        paid = call if backend == "triton" else 0.0
        predicted = paid + row["together"] * (sum(steps) / len(steps) - paid)
        assert 0.7 < predicted * 1e3 / row["ms_median"] < 1.3, row


def test_user_errors(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cost.main([str(tmp_path / "none.yaml")])
    assert "none.yaml: no such configuration file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cost.main([str(ROOT / "config.yaml"), "--nodes", "0"])
    assert "found '0', expected a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("jobs"), "'jobs'"),
        (lambda record: record["jobs"].pop("logits"), "'logits'"),
        (lambda record: record["tasks"].pop("omp"), "'omp'"),
        (lambda record: record["tasks"]["omp"].pop("dense"), r"tasks\.omp: found"),
        (lambda record: record["tasks"]["omp"]["dense"].update(c=-1), r"tasks\.omp\.dense"),
        (lambda record: record["tasks"]["omp"]["dense"].pop("e"), r"tasks\.omp\.dense"),
    ],
)
def test_damaged_coefficients_are_named(tmp_path, change, message):
    record = json.loads(CPU_FILE.read_text())
    change(record)
    (tmp_path / "other.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        Machine.read(tmp_path / "other.json")


@pytest.mark.parametrize("path", [CPU_FILE, GPU_FILE])
def test_shipped_coefficients(path):
    known = Machine.read(path)
    assert known.backend("auto") != "dense"
    assert known.backend("no such") == known.backend("auto")
    small, wide = (
        known.seconds("train_step", known.backend("auto"), Shape(2048, 16384, d, 64, 4096)) for d in (7, 100)
    )
    assert 0 < small < wide


def test_the_command_imports_no_torch():
    code = (
        "import sys\nfrom expander_sae.cost import __main__ as cost\n"
        f"cost.main([{str(ROOT / 'config.yaml')!r}])\n"
        "assert not {'torch', 'numpy', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_runs_of_a_pool_share_rounds_on_a_gpu():
    """A round of all runs pays once what a call takes at any size: here 1 s, and 1 ms a kept place."""
    given = study(recipe="standard")
    known = machine(start=3.0)
    known.tasks["train_step"]["numba"] = {"a": 1.0, "b": 0.0, "c": 0.0, "e": 0.0, "g": 1e-3}
    one, together = Plan(given, known), Plan(given.on_gpu(), known, machine())
    grows = 256 * 4 * 1e-3
    assert [job.seconds for job in map(one.training, given.runs)] == [3 + 10 * (1 + grows)] * 4
    (job,) = given.on_gpu().trainings
    assert len(job.runs) == len(given.runs) == 4
    assert together.trainings(job.runs).seconds == pytest.approx(3 + 10 * (1 + 4 * grows))
    forty = job.runs * 10
    assert together.trainings(forty).seconds == pytest.approx(3 + 10 * (2 + 40 * grows)), "32 in a round"
    free = study(recipe="paper", runs=[{"support": "expander", "encoder": "independent"}])
    plan = Plan(free.on_gpu(), known, machine())
    (job,) = free.on_gpu().trainings
    assert plan.trainings(job.runs).seconds == pytest.approx(3 + 10 * (1 + 4 * 2 * grows))
