"""An autoencoder as the dense matrices that other libraries store, and back.

Their TopK autoencoders compute x = ReLU(topk(Eᵀ(h − b_dec) + b_enc)), ĥ = W x + b_dec. Ours keeps
negative values among the k largest; theirs sets them to 0. So the two agree exactly where all k kept
values are positive.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import Mask, describe, regenerate
from expander_sae.masks.shapes import PRUNED
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.storage.arrays import as_tensor
from expander_sae.storage.files import read_json

T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """Float32 matrices on the CPU: encoder and decoder [n, m] (row j is feature j), b_enc [n], b_dec [m]."""

    encoder: Tensor
    decoder: Tensor
    b_enc: Tensor
    b_dec: Tensor
    k: int


def checked(weights: Weights, origin: str | Path) -> Weights:
    """The same weights, if their shapes belong together and k is possible.

    Raises:
        UserError: they do not, or it is not.
    """
    decoder = tuple(weights.decoder.shape)
    n, m = decoder if len(decoder) == 2 else (0, 0)
    expected = {"decoder": (n, m), "encoder": (n, m), "b_enc": (n,), "b_dec": (m,)}
    for name, shape in expected.items():
        found = tuple(getattr(weights, name).shape)
        if found != shape or not n * m:
            raise UserError(f"{origin}: {name} of shape {list(found)} beside a decoder of {list(decoder)}")
    if not 1 <= weights.k <= n:
        raise UserError(f"{origin}: k {weights.k}, expected 1 to n = {n}")
    return weights


@torch.no_grad()
def to_dense(autoencoder: SparseAutoencoder) -> Weights:
    """Write an autoencoder out; the decoder's rows have norm 1 (or 0). O(m·n) memory."""
    everything = torch.arange(autoencoder.n, device=autoencoder.b_dec.device)
    dictionary = autoencoder.dictionary()
    decoder = dictionary.columns(everything)
    encoder = autoencoder._encoder_on(dictionary).columns(everything)
    tensors = (encoder, decoder, autoencoder.b_enc, autoencoder.b_dec)
    written = [tensor.detach().float().cpu().contiguous() for tensor in tensors]
    return Weights(written[0], written[1], written[2], written[3], autoencoder.k)


@torch.no_grad()
def from_dense(
    weights: Weights, origin: str | Path, record: dict[str, Any] | None = None, backend: str = "auto"
) -> SparseAutoencoder:
    """An autoencoder of these matrices, sparse where `record` says on which mask they live.

    record: what `mask_record` gave when they were exported. Columns must have equal norms (see
    `unit_decoder`).

    Raises:
        UserError: the mask does not fit the matrices.
    """
    n, m = weights.decoder.shape
    mask = None
    kind = "tied" if torch.equal(weights.encoder, weights.decoder) else "independent"
    about: dict[str, Any] = {}
    if record is not None:
        try:
            kind, about = record["encoder"], dict(record.get("about", {}))
            if record["mask"] is not None:
                size = (m, n, weights.decoder.numel())
                mask = regenerate(record["mask"]["recipe"], record["mask"]["sha256"], origin, size)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{origin}: the record of the mask is damaged ({error!r})") from None
    loaded = SparseAutoencoder(m, n, weights.k, mask, kind, backend)
    loaded.values.copy_(weights.decoder if mask is None else on_support(weights.decoder, mask, origin))
    if loaded.encoder is not None:
        support = loaded.encoder_mask
        encoder = weights.encoder if support is None else on_support(weights.encoder, support, origin)
        loaded.encoder.copy_(encoder)
    loaded.b_enc.copy_(weights.b_enc)
    loaded.b_dec.copy_(weights.b_dec)
    loaded.about = about
    return loaded


def on_support(matrix: Tensor, mask: Mask, origin: str | Path) -> Tensor:
    """Entries of matrix [n, m] on the mask: [n, w]; 0 in padding.

    Raises:
        UserError: an entry outside the mask is not 0.
    """
    if tuple(matrix.shape) != (mask.recipe.n, mask.recipe.m):
        raise UserError(
            f"{origin}: a mask of {mask.recipe.n} columns of length {mask.recipe.m}, expected "
            f"{matrix.shape[0]} of {matrix.shape[1]}"
        )
    values = matrix.gather(1, torch.from_numpy(mask.rows).long()) * torch.from_numpy(mask.valid())
    outside = int(torch.count_nonzero(matrix)) - int(torch.count_nonzero(values))
    if outside:
        raise UserError(f"{origin}: {outside} entries outside the recorded mask are not 0, expected none")
    return values


def mask_record(autoencoder: SparseAutoencoder) -> dict[str, Any]:
    """JSON that brings an exported autoencoder back onto its mask, unless that is a learned one."""
    known = autoencoder.mask is not None and autoencoder.mask.recipe.family != PRUNED
    mask = describe(autoencoder.mask) if known and autoencoder.mask is not None else None
    return {"mask": mask, "encoder": autoencoder.encoder_kind, "about": autoencoder.about}


@torch.no_grad()
def pruned(autoencoder: SparseAutoencoder, d: int) -> SparseAutoencoder:
    """Keep the d largest entries of each decoder column, at unit norm, and the encoder there; not retrained.

    For example of an imported dense autoencoder. The recipe `pruned_retuned` also retrains.

    Raises:
        UserError: d is not between 1 and m.
    """
    weights = to_dense(autoencoder)
    mask, values = prune(weights.decoder, d, seed=0)
    kind = "tied" if autoencoder.encoder_kind == "tied" else "independent"
    smaller = SparseAutoencoder(autoencoder.m, autoencoder.n, autoencoder.k, mask, kind, autoencoder.backend)
    smaller.values.copy_(values)
    if smaller.encoder is not None:
        smaller.encoder.copy_(weights.encoder.gather(1, torch.from_numpy(mask.rows).long()))
    smaller.b_enc.copy_(weights.b_enc)
    smaller.b_dec.copy_(weights.b_dec)
    smaller.about = dict(autoencoder.about)
    return smaller


def unit_decoder(weights: Weights, selects_by_contribution: bool, origin: str | Path) -> Weights:
    """The same autoencoder with unit-norm columns: x_j takes over ‖w_j‖.

    selects_by_contribution: top-k ran on x_j·‖w_j‖. If not, columns of different norms would be
    selected otherwise once their norms are gone.

    Raises:
        UserError: shapes that do not belong together, or norms that differ by more than 1 % where
            selection did not see them.
    """
    checked(weights, origin)
    norms = weights.decoder.double().norm(dim=1)
    # Unit norm up to float32 rounding is left alone, so that a tied encoder stays equal to the decoder.
    norms = torch.where((norms > 0) & ((norms - 1).abs() > 1e-6), norms, torch.ones_like(norms))
    low, high = float(norms.min()), float(norms.max())
    if not selects_by_contribution and high > 1.01 * low:
        raise UserError(
            f"{origin}: decoder norms of {low:.4g} to {high:.4g} while top-k selects without them; "
            "expected equal norms, as only unit-norm columns can be represented"
        )
    scale = norms.float()[:, None]
    return Weights(
        weights.encoder * scale,
        weights.decoder / scale,
        weights.b_enc * scale[:, 0],
        weights.b_dec,
        weights.k,
    )


@dataclass(frozen=True)
class Fidelity:
    """How far another library's ReLU and its missing norm limit change an autoencoder.

    encoded_share: share of the tokens that the recipe encodes; it passes the others through, other
        libraries encode them, too.
    exact_share: share of the encoded tokens whose k kept values are all positive; for these the
        export is exact up to rounding.
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
        beyond = f"{1 - self.encoded_share:.2%} of the tokens exceed norm_limit:"
        if not self.relu:
            lines = [
                f"values of 0 or less ({self.nonpositive_share:.2%} of all kept values) stay as they are;",
                f"all are positive in {self.exact_share:.2%} of the encoded tokens",
                f"({self.near_tie_share:.2%} are near ties, where rounding selects).",
            ]
            if self.encoded_share < 1:
                lines.append(
                    f"{beyond} `forward` passes them through, `encode` does not know them from others."
                )
            return f"measured on {self.tokens} tokens: " + " ".join(lines)
        lines = [
            f"all kept values are positive in {self.exact_share:.2%} of the encoded tokens, which are exact",
            f"up to rounding ({self.near_tie_share:.2%} are near ties, where rounding selects);",
            f"in the others values of 0 or less ({self.nonpositive_share:.2%} of all kept values) become 0.",
        ]
        if self.encoded_share < 1:
            lines.append(f"{beyond} the recipe passes them through, other libraries encode them.")
        return f"measured on {self.tokens} tokens: " + " ".join(lines)


@torch.no_grad()
def fidelity(autoencoder: SparseAutoencoder, activations: Tensor | np.ndarray, relu: bool = True) -> Fidelity:
    """Measure on activations [N, m]; see `Fidelity`.

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
        tokens=len(rows),
        encoded_share=tokens / len(rows),
        exact_share=exact / tokens,
        nonpositive_share=nonpositive / (tokens * k),
        near_tie_share=ties / tokens,
        relu=relu,
    )


def announce(folder: Path, measured: Fidelity | None, say: bool) -> dict[str, Any] | None:
    """Print what the export means for its user, and give it as JSON for the folder's metadata."""
    if say:
        told = "no activations given: how often kept values are not positive was not measured"
        print(f"{folder}: {measured.text() if measured else told}")
    return None if measured is None else asdict(measured)


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in another library's JSON file.

    Raises:
        UserError: no such file, no JSON, or no mapping.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {type(config).__name__}, expected a mapping")
    return config


_KINDS: dict[type, str] = {int: "a whole number", str: "a text", dict: "a mapping"}


def required(config: dict[str, Any], key: str, kind: type[T], path: Path) -> T:
    """An entry of a configuration that must be there.

    Raises:
        UserError: it is missing or of another kind.
    """
    value = config.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: {key} {value!r}, expected {_KINDS[kind]}")
    return value


def read_tensors(path: Path, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Float32 tensors of another library's safetensors file.

    Raises:
        UserError: unreadable, or a tensor is missing.
    """
    try:
        stored = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error})") from None
    missing = sorted(set(names) - stored.keys())
    if missing:
        raise UserError(f"{path}: no tensor {missing[0]}, found {', '.join(sorted(stored))}")
    return {name: stored[name].float() for name in names}


def folder_bytes(folder: Path) -> int:
    """Bytes of the files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
