"""The pursuit on a GPU against least squares in float64 and the plain pursuit; where, see `on_triton`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from expander_sae.kernels import device_omp
from expander_sae.model.dictionary import DenseDictionary, SparseCode, SparseDictionary
from expander_sae.pursuit.block_omp import block_omp, inverse_norms, score_limit
from expander_sae.pursuit.omp import omp

from .on_triton import DEVICE

from expander_sae.kernels import triton_gpu, triton_layouts, triton_omp  # isort: skip

KINDS = ["gathered", "multiplied", "dense"]
WAITS = ["item", "__bool__", "__int__", "__float__", "__index__", "nonzero", "tolist", "cpu", "numpy"]
"""Methods of a tensor that make a host wait for its device."""


def random_columns(m: int, n: int, d: int, seed: int, unit: bool = True) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.permutation(m)[:d] for _ in range(n)]).astype(np.int32)
    values = torch.from_numpy(generator.standard_normal((n, d)))
    length = 1 if unit else 0.5 + torch.from_numpy(generator.random((n, 1)))
    return (values / values.norm(dim=1, keepdim=True) * length).to(DEVICE), torch.from_numpy(rows).to(DEVICE)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(DEVICE)


def pursued(
    kind: str,
    values: Tensor,
    rows: Tensor,
    target: Tensor,
    k: int,
    block: int = 1,
    selection: str = "signed",
    tolerance: float = 0.0,
) -> tuple[SparseCode, SparseCode]:
    """(ours, the plain pursuit's) codes of target [B, m]."""
    plain = SparseDictionary(values, rows, target.shape[1], "torch")
    expected = block_omp(plain, target, k, block, selection, tolerance)
    if kind == "gathered":
        held = SparseDictionary(values, rows, target.shape[1], triton_gpu)
        return block_omp(held, target, k, block, selection, tolerance), expected
    scale = inverse_norms(plain)
    weight = plain.columns(torch.arange(plain.n, device=DEVICE)) * scale[:, None]
    columns = triton_omp.Columns(weight, None, plain.m)
    if kind == "multiplied":
        columns = triton_omp.Columns(values * scale[:, None], rows, plain.m)
    how = (
        score_limit(target, tolerance),
        k,
        selection == "absolute",
        block,
        lambda r: r @ weight.t().to(r.dtype),
    )
    index, value = triton_omp.omp(columns, target, *how)
    return SparseCode(index, value * scale[index.clamp(min=0)]), expected


def same(ours: SparseCode, expected: SparseCode, close: float = 1e-9) -> None:
    assert torch.equal(ours.index, expected.index)
    torch.testing.assert_close(ours.value, expected.value, atol=close, rtol=close)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", ["signed", "absolute"])
def test_supports_and_coefficients_equal_least_squares(kind: str, selection: str) -> None:
    values, rows = random_columns(30, 150, 4, 0, unit=False)
    target = normal(3, 30, seed=1)
    ours, expected = pursued(kind, values, rows, target, 5, selection=selection)
    same(ours, expected)
    columns = SparseDictionary(values, rows, 30, "torch").columns(torch.arange(150, device=DEVICE))
    for b in range(3):
        held = columns[ours.index[b]].t()
        x = torch.linalg.lstsq(held.cpu(), target[b, :, None].cpu(), driver="gelsd").solution[:, 0]
        torch.testing.assert_close(ours.value[b].cpu(), x, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("kind", "block"), [("gathered", 2), ("multiplied", 5), ("dense", 3)])
def test_blocks_equal_the_plain_pursuit(kind: str, block: int) -> None:
    values, rows = random_columns(30, 60, 4, 2)
    same(*pursued(kind, values, rows, normal(3, 30, seed=3), 5, block))


@pytest.mark.parametrize(("kind", "block"), [*((kind, 1) for kind in KINDS), ("gathered", 3)])
def test_samples_that_stop_let_the_others_go_on(kind: str, block: int) -> None:
    """Zero, one-sided and broken targets, a column of zeros, and one that another one repeats."""
    rows = torch.tensor([[0], [1], [2], [3], [3], [4]], dtype=torch.int32, device=DEVICE)
    values = torch.tensor([[1.0], [2], [1], [1], [1], [0]], dtype=torch.float64, device=DEVICE)
    target = torch.zeros(5, 5, dtype=torch.float64, device=DEVICE)
    target[1], target[2, :4], target[3] = -1, torch.tensor([4.0, 3, 0, 2]), torch.nan
    target[4, 3:] = torch.tensor([1.0, 7])
    ours, expected = pursued(kind, values, rows, target, 4, block)
    same(ours, expected)
    assert ours.index.tolist() == [[-1] * 4, [-1] * 4, [0, 1, 3, -1], [-1] * 4, [3, -1, -1, -1]]
    same(*pursued(kind, values, rows, target[2:3], 4, block, tolerance=0.4))
    same(*pursued(kind, values, rows, target[:3], 4, block, "absolute"))


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, torch.float64) for kind in KINDS), ("gathered", torch.float32)]
)
def test_dependent_columns_are_passed_over_within_a_pick(kind: str, dtype: torch.dtype) -> None:
    """8 columns on each block of 3 rows, copies of all, and more places than there are dimensions."""
    values = normal(16, 3, seed=4).to(dtype)
    values = (values / values.norm(dim=1, keepdim=True)).repeat(2, 1)
    rows = (
        torch.arange(6, dtype=torch.int32, device=DEVICE).view(2, 3).repeat_interleave(8, dim=0).repeat(2, 1)
    )
    target = normal(2, 6, seed=5).to(dtype)
    ours, expected = pursued(kind, values, rows, target, 8, selection="absolute")
    held = (ours.index >= 0).sum(1)
    assert int(held.max()) <= 6 and bool((ours.index < 16).all())
    if dtype == torch.float64:
        same(ours, expected, 1e-6)
    rebuilt = SparseDictionary(values, rows, 6, "torch").synthesize(ours)
    assert float((target - rebuilt).norm()) < 1e-2 * float(target.norm())


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_finds_the_same_supports(kind: str) -> None:
    values, rows = random_columns(30, 80, 4, 6)
    target = normal(3, 30, seed=7)
    _, expected = pursued(kind, values, rows, target, 5)
    ours, _ = pursued(kind, values.float(), rows, target.float(), 5)
    assert ours.value.dtype == torch.float32
    same(SparseCode(ours.index, ours.value.double()), expected, 1e-4)
    again, _ = pursued(kind, values.float(), rows, target.float(), 5)
    assert torch.equal(ours.value, again.value)


def test_more_than_a_program_takes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_omp, "_LINES", 32)
    monkeypatch.setattr(triton_omp, "_CHUNK", 16)
    monkeypatch.setattr(triton_layouts, "_BYTES_AT_ONCE", 1)
    values, rows = random_columns(70, 140, 11, 8)
    for kind in KINDS:
        same(*pursued(kind, values, rows, normal(1, 70, seed=9), 9))
    monkeypatch.setattr(triton_layouts, "multiprocessors", lambda device: 4)
    same(*pursued("gathered", values, rows, normal(1, 70, seed=9), 9))


def test_batches_are_cut_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values, rows = random_columns(12, 30, 3, 10)
    target = normal(5, 12, seed=11)
    whole, expected = pursued("gathered", values, rows, target, 2)
    monkeypatch.setattr(triton_omp, "samples_at_once", lambda device, each, on_cpu: 2)
    parts, _ = pursued("gathered", values, rows, target, 2)
    same(whole, expected)
    assert torch.equal(whole.index, parts.index) and torch.equal(whole.value, parts.value)
    assert pursued("gathered", values, rows, target[:0], 2)[0].index.shape == (0, 2)


def test_nothing_returns_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a CUDA graph cannot capture is not called."""
    values, rows = random_columns(12, 30, 3, 12)
    target = normal(2, 12, seed=13)
    limit = score_limit(target, 0.0)

    def refuse(name: str, *arguments: object, **named: object) -> object:
        raise AssertionError(f"{name} waits for the device")

    launches: list[int] = []
    programs = [(triton_omp, "scan_kernel"), (triton_omp, "take_kernel"), (triton_layouts, "prepare_kernel")]

    class Counted:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            def launch(*arguments: object, **named: object) -> None:
                launches.append(1)

            return launch

    for module, kernel in programs:
        monkeypatch.setattr(module, kernel, Counted())
    for name in WAITS:
        monkeypatch.setattr(Tensor, name, partial(refuse, name))
    for scores in (None, lambda r: r.new_zeros(2, 30)):
        launches.clear()
        triton_omp.omp(triton_omp.Columns(values, rows, 12), target, limit, 4, False, 1, scores)
        assert len(launches) == (9 if scores is None else 4)


def test_which_columns_it_takes() -> None:
    values, rows = random_columns(6, 8, 2, 14)
    assert device_omp.serves(triton_gpu, values)
    on_cpu = values.cpu()
    assert not device_omp.serves(None, on_cpu)
    assert not device_omp.serves(SparseDictionary(on_cpu, rows.cpu(), 6, "densified").backend, on_cpu)
    dense = DenseDictionary(torch.eye(4, dtype=torch.float64))
    assert omp(dense, torch.eye(4, dtype=torch.float64)[:1], 1).index.tolist() == [[0]]
