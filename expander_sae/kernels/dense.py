"""The five operations for a dense decoder: weight [n, m], one column of W a row.

Only `correlate` and `correlate_topk` touch the whole weight; the decoder and both backward
operations touch the k kept columns of each sample. On CUDA most are whole products
(`dense_products.py`). Conventions as in `reference.py`.
"""

from __future__ import annotations

import warnings
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from expander_sae.kernels import dense_products
from expander_sae.kernels.exact_topk import topk_of_pieces
from expander_sae.kernels.reference import BATCH_TILE, FEATURE_TILE, by_feature, summed_by_feature, tiles
from expander_sae.machine.piece_sizes import GEMM_KEPT


def by_products(tensor: Tensor) -> bool:
    """Whether selections, gradients and tied steps on this are whole matrix products."""
    return tensor.is_cuda


def _few_by_products(tensor: Tensor) -> bool:
    """Whether products that need the kept columns only take all: where tensor cores may round for them."""
    return by_products(tensor) and torch.get_float32_matmul_precision() != "highest"


def correlate(weight: Tensor, residual: Tensor) -> Tensor:
    """residual · W: [B, m] -> [B, n]."""
    if by_products(residual):
        return dense_products.correlate(weight, residual)
    return residual @ weight.t()


def correlate_topk(weight: Tensor, residual: Tensor, bias: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """Index int64 [B, k] and value [B, k] of the k largest of residual · W + bias; as in `reference.py`."""
    if by_products(residual):
        return dense_products.correlate_topk(weight, residual, bias, k)
    batch, n = residual.shape[0], weight.shape[0]
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: expected 1 <= k <= n = {n}")
    index = torch.empty(batch, k, dtype=torch.int64, device=residual.device)
    value = residual.new_empty(batch, k)
    for tile in tiles(batch, BATCH_TILE):
        across = residual[tile].t()

        def scores_of(piece: slice, across: Tensor = across) -> Tensor:
            scores = weight[piece] @ across
            return scores if bias is None else scores.add_(bias[piece, None])

        index[tile], value[tile] = topk_of_pieces(scores_of, n, k, FEATURE_TILE)
    return index, value


def correlate_at(weight: Tensor, residual: Tensor, index: Tensor) -> Tensor:
    """⟨w_j, residual[b]⟩ for j = index[b, s]: residual [B, m], index [B, k] -> [B, k]; 0 where j = -1."""
    if _few_by_products(residual):
        return dense_products.correlate_at(weight, residual, index)
    batch, k = index.shape
    if 0 in (batch, k):
        return residual.new_zeros(batch, k)
    kept = index.clamp(min=0)
    if weight.shape[0] <= GEMM_KEPT * k or weight.dtype not in (torch.float32, torch.float64):
        out = residual.new_empty(batch, k)
        for tile in tiles(batch, BATCH_TILE):
            out[tile] = correlate(weight, residual[tile]).gather(1, kept[tile])
    else:
        out = _sampled_product(weight, residual, kept)
    return out.masked_fill_(index < 0, 0)


@cache
def _first_sparse_tensor() -> None:
    """Make one, since torch says of the first in a process that its support is in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0, 1], [0], [0.0], size=(1, 1), check_invariants=False)


def _sampled_product(weight: Tensor, residual: Tensor, index: Tensor) -> Tensor:
    """⟨w_j, residual[b]⟩ [B, k] by k·m multiply-adds a sample, and not n·m; index [B, k] from 0."""
    _first_sparse_tensor()
    batch, k = index.shape
    places = torch.sparse_csr_tensor(
        torch.arange(0, batch * k + 1, k, device=index.device),
        index.flatten(),
        residual.new_zeros(batch * k),
        size=(batch, weight.shape[0]),
        check_invariants=False,  # columns need not be in order, nor distinct
    )
    return torch.sparse.sampled_addmm(places, residual, weight.t(), beta=0.0).values().view(batch, k)


def _written_out(n: int, index: Tensor, coefficient: Tensor) -> Tensor:
    """The code as a matrix [B, n]; places with index -1 must have coefficient 0."""
    code = coefficient.new_zeros(index.shape[0], n)
    return code.scatter_add_(1, index.clamp(min=0), coefficient)


def synthesize(weight: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """W x for sparse codes: index, value [B, k] -> [B, m]."""
    if index.shape[0] == 0 or index.shape[1] == 0:
        return value.new_zeros(index.shape[0], weight.shape[1])
    if _few_by_products(value):
        return dense_products.synthesize(weight, index, value)
    coefficient = value.masked_fill(index < 0, 0)
    if weight.shape[0] <= GEMM_KEPT * index.shape[1]:
        return _written_out(weight.shape[0], index, coefficient) @ weight
    return F.embedding_bag(index.clamp(min=0), weight, per_sample_weights=coefficient, mode="sum")


def scatter_outer(n: int, index: Tensor, coefficient: Tensor, residual: Tensor) -> Tensor:
    """Σ_b Σ_{s: index[b, s] = j} coefficient[b, s] · residual[b] as [n, m], zero where never picked."""
    if index.numel() == 0:
        return residual.new_zeros(n, residual.shape[1])
    if by_products(residual):
        return dense_products.scatter_outer(n, index, coefficient, residual)
    if n <= GEMM_KEPT * index.shape[1]:
        return _written_out(n, index, coefficient.masked_fill(index < 0, 0)).t() @ residual
    order, starts = by_feature(index, n)
    sample = torch.div(order, index.shape[1], rounding_mode="floor")
    weights = coefficient.flatten()[order].contiguous()
    return F.embedding_bag(
        sample, residual, starts, per_sample_weights=weights, mode="sum", include_last_offset=True
    )


def tied_gradients(
    weight: Tensor, index: Tensor, value: Tensor, error: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """(d_weight [n, m], d_bias [n]) of a tied autoencoder; see `reference.tied_gradients`."""
    n = weight.shape[0]
    slope = correlate_at(weight, error, index)
    d_weight = scatter_outer(n, index, value, error)
    d_weight += scatter_outer(n, index, slope, residual)
    return d_weight, summed_by_feature(index, slope, n)
