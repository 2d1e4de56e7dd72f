"""What an exported autoencoder computes otherwise in the other library, measured on activations.

Their TopK autoencoders compute x = ReLU(topk(Eᵀ(h − b_dec) + b_enc)), ĥ = W x + b_dec. Ours keeps
negative values among the k largest; theirs sets them to 0. So the two agree exactly where all k kept
values are positive.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.storage.arrays import as_tensor


@dataclass(frozen=True)
class Fidelity:
    """How far another library's ReLU and its missing norm limit change an autoencoder.

    Args:
        tokens: on how many this was measured.
        encoded_share: share of the tokens that the recipe encodes; it passes the others through, other
            libraries encode them, too.
        exact_share: share of the encoded tokens whose k kept values are all positive; for these the export is
            exact up to rounding.
        nonpositive_share: share of the kept values of encoded tokens that are 0 or less.
        near_tie_share: share of the encoded tokens whose k-th and next pre-activations are equal up to
            rounding, so that arithmetic in another order may select the other one.
        relu: whether the other library sets kept values of 0 or less to 0. SAELens with our plug-in does not,
            and its `forward` knows the norm limit.
    """

    tokens: int
    encoded_share: float
    exact_share: float
    nonpositive_share: float
    near_tie_share: float
    relu: bool = True

    def text(self) -> str:
        """What the numbers mean for who uses the exported folder."""
        ties = f"({self.near_tie_share:.2%} are near ties, where rounding selects)"
        few = f"values of 0 or less ({self.nonpositive_share:.2%} of all kept values)"
        if self.relu:
            said = (
                f"all kept values are positive in {self.exact_share:.2%} of the encoded tokens, which are "
                f"exact up to rounding {ties}; in the others {few} become 0."
            )
            beyond = "the recipe passes them through, other libraries encode them."
        else:
            said = (
                f"{few} stay as they are; all are positive in {self.exact_share:.2%} of the encoded tokens "
                f"{ties}."
            )
            beyond = "`forward` passes them through, `encode` does not know them from others."
        if self.encoded_share < 1:
            said += f" {1 - self.encoded_share:.2%} of the tokens exceed norm_limit: {beyond}"
        return f"measured on {self.tokens} tokens: {said}"


@torch.no_grad()
def fidelity(autoencoder: SparseAutoencoder, activations: Tensor | np.ndarray, relu: bool = True) -> Fidelity:
    """Measure what an export changes.

    Args:
        autoencoder: what is exported.
        activations: [N, m], of any device and numeric dtype.
        relu: whether the other library sets kept values of 0 or less to 0.

    Raises:
        UserError: another width, or no token to encode.
    """
    rows = as_tensor(activations)
    if rows.ndim != 2 or rows.shape[1] != autoencoder.m:
        raise UserError(f"activations: found shape {list(rows.shape)}, expected [N, m = {autoencoder.m}]")
    kept = torch.from_numpy(encoded_rows(autoencoder, rows, "activations"))
    k, encoder = autoencoder.k, autoencoder._encoder_on(autoencoder.dictionary())
    # Twice the unit of rounding, of a product of norms.
    rounding = 2 * torch.finfo(autoencoder.b_dec.dtype).eps * float(encoder.norms().max())
    exact = nonpositive = ties = 0
    for part in kept.split(4096):
        centred = autoencoder.own(rows[part.to(rows.device)]) - autoencoder.b_dec
        found = encoder.correlate_topk(centred, autoencoder.b_enc, min(k + 1, autoencoder.n))
        value = found.value.sort(dim=1, descending=True).values
        exact += int((value[:, :k] > 0).all(dim=1).sum())
        nonpositive += int((value[:, :k] <= 0).sum())
        if value.shape[1] > k:
            ties += int((value[:, k - 1] - value[:, k] <= rounding * centred.norm(dim=1)).sum())
    tokens = len(kept)
    return Fidelity(
        len(rows), tokens / len(rows), exact / tokens, nonpositive / (tokens * k), ties / tokens, relu
    )


def measured_record(
    autoencoder: SparseAutoencoder,
    folder: Path,
    activations: Tensor | np.ndarray | None,
    say: bool,
    relu: bool = True,
) -> tuple[Fidelity | None, dict[str, Any] | None]:
    """(what was measured, the same as JSON for the folder's metadata); printed where `say` is true."""
    if autoencoder.thresholds is not None:
        measured, told = None, "keeps what exceeds its thresholds, as the other library does"
    else:
        measured = None if activations is None else fidelity(autoencoder, activations, relu)
        told = "no activations given: how often kept values are not positive was not measured"
    if say:
        print(f"{folder}: {measured.text() if measured else told}")
    return measured, None if measured is None else asdict(measured)
