"""Two processes train what one does: parameters, moments, counts, checkpoints; and what they send."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.safetensors_files import load_tensors
from expander_sae.training import data_parallel
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.data_parallel import ALONE, Processes, first_node, joined
from tests.training import two_processes
from tests.training.two_processes import RECIPE, STEPS, D, M, N, trained
from tests.users import made_up_activations

pytestmark = pytest.mark.xdist_group("data_parallel")
CLOSE = {"float32": 1e-6, "float64": 1e-12}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def started(command: list[str], folder: Path) -> list[subprocess.Popen[bytes]]:
    """The command in two processes, told of each other as torchrun does."""
    every = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    every["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return [
        subprocess.Popen(command, cwd=folder, env=os.environ | every | {"RANK": rank}, stdout=subprocess.PIPE)
        for rank in "01"
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    both = started([sys.executable, two_processes.__file__, str(made)], made)
    assert [one.wait(300) for one in both] == [0, 0]
    return made


def state_of(folder: Path, dtype: str, name: str, rank: int) -> dict[str, Tensor]:
    return load_tensors(folder / f"{dtype}-{name}-{rank}.safetensors")[0]


def distance(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖/‖expected‖."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("dtype", CLOSE)
def test_two_processes_end_where_one_does(dtype: str, folder: Path) -> None:
    expected = trained(ALONE, dtype).tensors()
    found = state_of(folder, dtype, "whole", 0)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if name.startswith("generator") or not tensor.is_floating_point():
            assert torch.equal(found[name], tensor), name
        else:
            assert distance(found[name], tensor) <= CLOSE[dtype], name


def test_the_resamplings_on_the_way_did_something() -> None:
    without = trained(ALONE, "float64", stop=74).fired
    assert 0 < int((without < RECIPE.resample_min_fires).sum()) <= RECIPE.resample_max_dead * N


@pytest.mark.parametrize("dtype", CLOSE)
def test_all_processes_hold_the_same_bits(dtype: str, folder: Path) -> None:
    first, second = (state_of(folder, dtype, "whole", rank) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("dtype", CLOSE)
def test_a_training_that_was_cut_off_ends_with_equal_bytes(dtype: str, folder: Path) -> None:
    whole, resumed = (
        (folder / f"{dtype}-{name}-0.safetensors").read_bytes() for name in ("whole", "resumed")
    )
    assert whole == resumed


def test_one_process_goes_on_from_the_checkpoint_of_two(folder: Path) -> None:
    checkpoint = Checkpoint(folder / "float64-whole.checkpoint", "same")
    assert int(load_tensors(checkpoint.path)[0]["step"]) == 180
    state = trained(ALONE, "float64", checkpoint)
    expected = trained(ALONE, "float64").tensors()
    for name, tensor in state.tensors().items():
        if tensor.is_floating_point():
            assert distance(tensor, expected[name]) <= CLOSE["float64"], name


def test_a_step_sends_the_values_of_columns_and_biases(folder: Path) -> None:
    sent = json.loads((folder / "record-0.json").read_text())["float32-whole"]
    gradients = STEPS * (D * N + N + M)
    logged, checkpoints, resamplings = STEPS // 50, STEPS // 60, 2
    counts = N * (logged + checkpoints + resamplings) + 2 * logged
    # The state that the script saves holds the counts once more, after the record was made.
    assert sent == {"all_reduce": gradients + counts, "all_gather": resamplings * RECIPE.batch_size // 2 * M}


def test_the_command_trains_in_two_processes_and_one_writes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", made_up_activations().numpy())
    command = [
        sys.executable,
        "-m",
        "expander_sae.cli",
        "train",
        "a.npy",
        "--n",
        "64",
        "--k",
        "4",
        "--d",
        "3",
    ]
    command += ["--steps", "30", "--set", "batch_size=32", "--csv", "log.csv", "--json"]
    alone = subprocess.run(
        [*command, "--out", "one.safetensors"], cwd=tmp_path, check=True, capture_output=True
    )
    both = started([*command, "--out", "two.safetensors", "--data-parallel"], tmp_path)
    told = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert not told[1], "the second one says nothing"
    first, only = json.loads(told[0]), json.loads(alone.stdout)
    assert first["last"]["loss"] == pytest.approx(only["last"]["loss"], rel=1e-5)
    one, two = (SparseAutoencoder.load(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert distance(two.values, one.values) < 1e-5


def test_a_batch_is_shared_out_whole() -> None:
    batch = torch.arange(12)
    parts = [Processes(rank, 3).share(batch) for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch) and {len(part) for part in parts} == {4}
    with pytest.raises(UserError, match="batch_size: found 12, expected a multiple of the 5 processes"):
        Processes(0, 5).share(batch)


def test_one_process_alone_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="data_parallel: found one process, expected several by torchrun"):
        joined("cpu")


def test_srun_says_who_is_who_and_where_the_first_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set now is undone
        monkeypatch.delenv(name)
    said = {"PROCID": 5, "NTASKS": 8, "LOCALID": 1, "JOB_ID": 41234, "STEP_NODELIST": "gpu[07-08]"}
    for name, value in said.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    assert data_parallel._started() == (5, 8, 1)
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("gpu07", "21234")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("n[01-04]", "n01"), ("n[3,5-9]-ib,m", "n3-ib"), ("a-b[7]", "a-b7")],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first
