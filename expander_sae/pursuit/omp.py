"""Orthogonal matching pursuit on any dictionary.

Sparse dictionaries whose backend has a pursuit of its own use it, and so do dense ones on a CPU
where all n² products fit into memory; the meaning is that of `block_omp` with one column a round.
"""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae.kernels import dense_omp
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
from expander_sae.pursuit.block_omp import block_omp, check_arguments, inverse_norms, pursued, score_limit


@torch.no_grad()
def omp(
    dictionary: Dictionary, target: Tensor, k: int, selection: str = "signed", tolerance: float = 0.0
) -> SparseCode:
    """Codes of target [B, m] with at most k columns, the best one of each residual; see `block_omp`.

    Args:
        selection: "signed" takes the largest correlation, as the encoder's top-k does; "absolute" the largest
            in size, as in the literature.

    Raises:
        ValueError: arguments out of range.

    Examples:
        >>> dictionary = DenseDictionary(torch.eye(4))
        >>> omp(dictionary, torch.tensor([[0.0, 1.0, 3.0, 0.5]]), k=2)
        SparseCode(index=tensor([[2, 1]]), value=tensor([[3., 1.]]))
    """
    check_arguments(dictionary, target, k, selection, tolerance)
    limit, (dictionary, target) = score_limit(target, tolerance), dictionary.reduced(target)
    # The fast paths take unit columns: x_j = y_j/‖w_j‖.
    scale, how = inverse_norms(dictionary), (limit, k, selection == "absolute")
    if isinstance(dictionary, DenseDictionary) and dense_omp.serves(dictionary.weight, target.shape[0], k):
        index, value = dense_omp.omp(dictionary.weight.detach() * scale[:, None], target, *how)
    elif isinstance(dictionary, SparseDictionary) and hasattr(dictionary.backend, "omp"):
        unit = dictionary.values.detach() * scale[:, None]
        index, value = dictionary.backend.omp(unit, dictionary.rows, target, *how)
    else:
        return pursued(dictionary, target, limit, k, 1, selection)
    return SparseCode(index, value * scale[index.clamp(min=0)])


def omp_in_rounds(
    dictionary: Dictionary, target: Tensor, k: int, selection: str = "signed", number: int = 1
) -> SparseCode:
    """`block_omp` with `number` columns a round; no round can take more than the k that there is room for.

    One column a round is OMP, for which a backend may have a faster pursuit of its own.
    """
    if number == 1:
        return omp(dictionary, target, k, selection)
    return block_omp(dictionary, target, k, min(number, k), selection)
