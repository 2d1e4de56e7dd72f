"""Pursuits against a float64 least-squares refit on every step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expander_sae.kernels import reference
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.pursuit.block_omp import block_omp
from expander_sae.pursuit.cosamp import cosamp
from expander_sae.pursuit.niht import niht
from expander_sae.pursuit.omp import omp
from tests.tensor_sizes import LargestTensor

KINDS = ["torch", "numba", "dense"]


def as_kind(kind: str, values: Tensor, rows: Tensor, m: int) -> Dictionary:
    if kind == "numba":
        pytest.importorskip("numba", reason="the numba extra is not installed")
    sparse = SparseDictionary(values, rows, m, "torch" if kind == "dense" else kind)
    return DenseDictionary(sparse.columns(torch.arange(sparse.n))) if kind == "dense" else sparse


def random_columns(m: int, n: int, d: int, seed: int, unit: bool = True) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    rows = np.stack([generator.permutation(m)[:d] for _ in range(n)]).astype(np.int32)
    values = torch.from_numpy(generator.standard_normal((n, d)))
    length = 1 if unit else 0.5 + torch.from_numpy(generator.random((n, 1)))
    return values / values.norm(dim=1, keepdim=True) * length, torch.from_numpy(rows)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def early_stops(code: SparseCode) -> int:
    """Number of samples that hold fewer columns than there are places."""
    return int((code.index < 0).any(dim=1).sum())


def written(dictionary: Dictionary) -> Tensor:
    return dictionary.columns(torch.arange(dictionary.n))


def by_least_squares(
    columns: Tensor, target: Tensor, k: int, block: int, selection: str
) -> tuple[list[int], Tensor]:
    """(support in order of choice, coefficients) of one sample."""
    norms = columns.norm(dim=1)
    support: list[int] = []
    residual, x = target, target.new_zeros(0)
    while len(support) < k:
        scores = columns @ residual / norms
        scores = scores.abs() if selection == "absolute" else scores
        scores[support] = -torch.inf
        support += scores.argsort(descending=True, stable=True)[: min(block, k - len(support))].tolist()
        held = columns[support].t()
        x = torch.linalg.lstsq(held, target[:, None], driver="gelsd").solution[:, 0]
        residual = target - held @ x
    return support, x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", ["signed", "absolute"])
@pytest.mark.parametrize(
    ("m", "n", "d", "k", "batch"), [(64, 256, 7, 8, 70), (30, 40, 3, 6, 20), (24, 60, 24, 12, 5)]
)
def test_supports_and_coefficients_equal_least_squares(
    kind: str, selection: str, m: int, n: int, d: int, k: int, batch: int
) -> None:
    dictionary = as_kind(kind, *random_columns(m, n, d, 0, unit=False), m)
    target = normal(batch, m, seed=1)
    code = omp(dictionary, target, k, selection)
    columns = written(dictionary)
    for b in range(batch):
        support, x = by_least_squares(columns, target[b], k, 1, selection)
        assert code.index[b].tolist() == support
        torch.testing.assert_close(code.value[b], x, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_absolute_selection_is_that_of_scikit_learn(kind: str) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    dictionary = as_kind(kind, *random_columns(48, 160, 6, 15), 48)
    target = normal(40, 48, seed=16)
    code = omp(dictionary, target, 9, "absolute")
    columns = written(dictionary).numpy().T
    theirs = linear_model.orthogonal_mp(columns, target.numpy().T, n_nonzero_coefs=9).T
    ours = np.zeros_like(theirs)
    np.put_along_axis(ours, code.index.numpy(), code.value.numpy(), axis=1)
    assert ((ours != 0).sum(axis=1) == 9).all()
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [1, 2, 3, 8])
def test_blocks_equal_least_squares(kind: str, block: int) -> None:
    dictionary = as_kind(kind, *random_columns(64, 200, 7, 2), 64)
    target = normal(10, 64, seed=3)
    code = block_omp(dictionary, target, 8, block)
    for b in range(10):
        support, x = by_least_squares(written(dictionary), target[b], 8, block, "signed")
        assert code.index[b].tolist() == support
        torch.testing.assert_close(code.value[b], x, atol=1e-8, rtol=1e-8)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    block=st.integers(1, 12),
    k=st.integers(1, 24),
    copies=st.integers(1, 3),
    tolerance=st.sampled_from([1e-5, 0.3]),
)
def test_compiled_rounds_find_what_rounds_of_tensors_do(
    seed: int, block: int, k: int, copies: int, tolerance: float
) -> None:
    """Copies of columns, more places than dimensions, a column of zeros, targets that stop early."""
    values, rows = random_columns(16, 30, 3, seed, unit=False)
    values[7] = 0
    values, rows = (part.repeat(copies, 1) for part in (values, rows))
    target = normal(300, 16, seed=seed + 1)
    target[1], target[2], target[3, 4] = (
        0,
        -values[5].new_zeros(16).scatter(0, rows[5].long(), values[5]),
        torch.nan,
    )
    compiled, expected = (
        block_omp(as_kind(kind, values, rows, 16), target, k, min(block, k), tolerance=tolerance)
        for kind in ("numba", "torch")
    )
    columns = torch.nn.functional.normalize(written(as_kind("torch", values, rows, 16)))
    apart = torch.ones(len(target), dtype=torch.bool)
    for code in (compiled, expected):
        held = columns[code.index.clamp(min=0)] * (code.index >= 0).unsqueeze(-1)
        gram = held @ held.transpose(1, 2) + torch.diag_embed((code.index < 0).double())
        # Nearer to dependence than this, rounding decides whether a column is passed over.
        apart &= torch.linalg.eigvalsh(gram)[:, 0] > 1e-6
    assert apart.double().mean() > (0.9 if k <= 8 else 0.3)
    assert torch.equal(compiled.index[apart], expected.index[apart])
    torch.testing.assert_close(compiled.value[apart], expected.value[apart], atol=1e-8, rtol=1e-8)
    sizes = (compiled.index >= 0).sum(dim=1)
    assert torch.equal(compiled.index >= 0, torch.arange(k) < sizes[:, None]), "empty places are the last"
    assert not compiled.value[compiled.index < 0].any()
    assert sizes[[1, 3]].tolist() == [0, 0], "nothing is taken for zeros and NaN"


@pytest.mark.parametrize("kind", KINDS)
def test_recovers_a_sparse_code(kind: str) -> None:
    dictionary = as_kind(kind, *random_columns(128, 256, 10, 4), 128)
    generator = np.random.default_rng(5)
    index = torch.from_numpy(np.stack([generator.permutation(256)[:4] for _ in range(30)]))
    value = 1 + normal(30, 4, seed=6).abs()
    columns = written(dictionary)
    target = (columns[index] * value[:, :, None]).sum(1)
    code = omp(dictionary, target, 12)
    for b in range(30):
        found = {int(j): float(x) for j, x in zip(code.index[b], code.value[b], strict=True) if abs(x) > 1e-9}
        assert found.keys() == set(index[b].tolist())
        for j, x in zip(index[b].tolist(), value[b].tolist(), strict=True):
            assert found[j] == pytest.approx(x, abs=1e-9)
    assert early_stops(code) == 30


@pytest.mark.parametrize("kind", KINDS)
def test_float32_finds_the_supports_of_float64(kind: str) -> None:
    values, rows = random_columns(64, 256, 7, 7)
    target = normal(100, 64, seed=8)
    exact = omp(as_kind(kind, values, rows, 64), target, 10)
    single = omp(as_kind(kind, values.float(), rows, 64), target.float(), 10)
    assert torch.equal(exact.index, single.index)
    torch.testing.assert_close(single.value, exact.value.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicate_columns_are_taken_once(kind: str, dtype: torch.dtype) -> None:
    values, rows = random_columns(20, 10, 4, 9)
    dictionary = as_kind(kind, values.repeat(3, 1).to(dtype), rows.repeat(3, 1), 20)
    target = normal(70, 20, seed=10).to(dtype)
    code = omp(dictionary, target, 12, "absolute")
    assert early_stops(code) == 70
    for row in code.index:
        held = row[row >= 0]
        assert (held % 10).unique().numel() == held.numel()
    residual = target - dictionary.synthesize(code)
    # Ten columns span the space that thirty do: nothing of it is left.
    assert dictionary.correlate(residual).abs().max() < (1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clusters_are_exhausted_without_blowing_up(kind: str, dtype: torch.dtype) -> None:
    """56 columns in each block of 7 rows, more places than there are dimensions."""
    generator = np.random.default_rng(11)
    rows = torch.arange(28, dtype=torch.int32).view(4, 7).repeat_interleave(56, dim=0)
    values = torch.from_numpy(generator.standard_normal((224, 7))).to(dtype)
    values /= values.norm(dim=1, keepdim=True)
    dictionary = as_kind(kind, values, rows, 28)
    target = normal(66, 28, seed=12).to(dtype)
    code = omp(dictionary, target, 40)
    held = (code.index >= 0).sum(1)
    assert held.max() <= 28 and early_stops(code) == 66
    assert (target - dictionary.synthesize(code)).norm() < 1e-2 * target.norm()
    assert code.value.abs().max() < 1e3
    assert not code.value[code.index < 0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_zero_and_one_sided_targets_stop(kind: str) -> None:
    values, rows = torch.ones(5, 1, dtype=torch.float64), torch.arange(5, dtype=torch.int32)[:, None]
    dictionary = as_kind(kind, values, rows, 5)
    target = torch.tensor(
        [[0.0] * 5, [-1.0] * 5, [-1.0, 0.0, 3.0, 0.0, 2.0], [torch.nan] * 5], dtype=torch.float64
    )
    signed = omp(dictionary, target, 3)
    assert signed.index.tolist() == [[-1] * 3, [-1] * 3, [2, 4, -1], [-1] * 3]
    assert signed.value[2].tolist() == [3, 2, 0] and early_stops(signed) == 4
    absolute = omp(dictionary, target, 3, "absolute")
    assert absolute.index.tolist() == [[-1] * 3, [0, 1, 2], [2, 4, 0], [-1] * 3]
    assert absolute.value[2].tolist() == [3, 2, -1]


@pytest.mark.parametrize("kind", KINDS)
def test_tolerance_and_zero_columns(kind: str) -> None:
    values = torch.tensor([[1.0], [2.0], [0.0]], dtype=torch.float64)
    dictionary = as_kind(kind, values, torch.tensor([[0], [1], [1]], dtype=torch.int32), 2)
    target = torch.tensor([[4.0, 0.3]], dtype=torch.float64)
    assert omp(dictionary, target, 3).index.tolist() == [[0, 1, -1]]
    torch.testing.assert_close(omp(dictionary, target, 3).value, torch.tensor([[4.0, 0.15, 0.0]]).double())
    assert omp(dictionary, target, 3, tolerance=0.1).index.tolist() == [[0, -1, -1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pursue", [omp, partial(block_omp, block=2)], ids=["omp", "block_omp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_beyond_a_tile(
    kind: str, pursue: Callable[..., SparseCode], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, rows = random_columns(16, 40, 3, 13)
    dictionary = as_kind(kind, values.to(dtype), rows, 16)
    if kind == "numba":
        monkeypatch.setattr("expander_sae.pursuit.compiled_rounds._WORKING_BYTES", 1)
    target = normal(600, 16, seed=14).to(dtype)
    whole = pursue(dictionary, target, 4)
    some = pursue(dictionary, target[500:510], 4)
    assert torch.equal(whole.index[500:510], some.index)
    torch.testing.assert_close(whole.value[500:510], some.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("selection", ["signed", "absolute"])
@pytest.mark.parametrize("block", [1, 3])
def test_columns_scored_a_few_at_a_time_give_the_same_code(
    kind: str, selection: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, rows = random_columns(20, 100, 4, 17)
    # Copies of a column tie, the lower one first. Matrix products round dense ones apart.
    copies = 1 if kind == "dense" else 3
    dictionary = as_kind(kind, values.repeat(copies, 1), rows.repeat(copies, 1), 20)
    target = normal(70, 20, seed=18)
    target[0] = torch.nan
    whole = block_omp(dictionary, target, 15, block, selection)
    monkeypatch.setattr("expander_sae.pursuit.block_omp._FEATURES", 64)
    cut = block_omp(dictionary, target, 15, block, selection)
    assert torch.equal(cut.index, whole.index)
    torch.testing.assert_close(cut.value, whole.value)


@pytest.mark.parametrize(
    "pursue",
    [omp, partial(block_omp, block=3), partial(niht, iterations=2), partial(cosamp, iterations=2)],
    ids=["omp", "block_omp", "niht", "cosamp"],
)
def test_no_tensor_of_a_pursuit_is_of_features_times_samples(
    pursue: Callable[..., SparseCode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "FEATURE_TILE", 2048)
    monkeypatch.setattr("expander_sae.pursuit.block_omp._FEATURES", 2048)
    n, batch = 20_000, 64
    values, rows = (part.repeat(n // 1000, 1) for part in random_columns(50, 1000, 2, 19))
    dictionary = as_kind("torch", values.float(), rows, 50)
    with LargestTensor() as largest:
        pursue(dictionary, normal(batch, 50, seed=20).float(), 5)
    assert largest.elements <= n * batch / 5


@pytest.mark.parametrize("kind", ["torch", "numba"])
def test_a_column_of_nan_shows(kind: str) -> None:
    values, rows = random_columns(32, 100, 4, 21)
    values[3] = torch.nan
    assert early_stops(block_omp(as_kind(kind, values, rows, 32), normal(20, 32, seed=22), 6, 2)) == 20


def test_columns_that_are_passed_over_are_not_compared_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight dimensions, and places for 24: a sample may try most of the columns before it stops."""
    monkeypatch.setattr("expander_sae.pursuit.compiled_rounds._COMPARED", 0)
    n, batch = 600, 64
    values, rows = random_columns(8, n, 2, 23)
    dictionary = as_kind("numba", values.float(), rows, 8)
    with LargestTensor() as largest:
        code = block_omp(dictionary, normal(batch, 8, seed=24).float(), 24, 8)
    assert early_stops(code) == batch
    assert largest.elements <= n * batch


def test_arguments_out_of_range() -> None:
    dictionary = as_kind("torch", *random_columns(8, 10, 2, 0), 8)
    target = normal(2, 8, seed=0)
    with pytest.raises(ValueError, match="selection"):
        omp(dictionary, target, 2, "largest")
    with pytest.raises(ValueError, match="k = 11"):
        omp(dictionary, target, 11)
    with pytest.raises(ValueError, match="block = 3"):
        block_omp(dictionary, target, 2, 3)
    with pytest.raises(ValueError, match="tolerance"):
        omp(dictionary, target, 2, tolerance=1.0)
    with pytest.raises(ValueError, match="shape"):
        omp(dictionary, target[:, :5], 2)
