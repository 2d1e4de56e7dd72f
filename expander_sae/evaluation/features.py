"""What single features fire on, and whether another dictionary has them too.

The firing set F_j is the set of tokens on which feature j has a non-zero value. Definitions:

    Jaccard          J(i, j) = |F_i ∩ F_j| / |F_i ∪ F_j|; a feature's best is max_j J(i, j)
    cosine           max_j |⟨w_i, w'_j⟩| / (‖w_i‖ ‖w'_j‖) over the columns of the other dictionary
    null             F_i replaced by a uniform set of |F_i| tokens: the best Jaccard that chance gives
                     a feature of this firing rate; for the cosine, w_i with random signs
    token entropy    H_j = −Σ_t p_j(t) log₂ p_j(t), p_j(t) the share of F_j whose token id is t
    dead fraction    of the first T tokens: the share of features with F_j ∩ [0, T) empty

A feature is novel against another dictionary by firing where its best Jaccard is under 0.1, by
direction where its best cosine is under 0.3 (arXiv 2607.01799). The share of novel features under
the null belongs beside it: a rare feature has no chance of a large Jaccard.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import STORED_SCORES
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode
from expander_sae.model.subspace_dictionary import SubspaceDictionary
from expander_sae.rng import Integers

JACCARD_THRESHOLD = 0.1
COSINE_THRESHOLD = 0.3
_CELLS = 1 << 22
"""Most cells of a table of intersections, and most pairs of firings counted at a time."""


@dataclass(frozen=True, eq=False)
class FiringSets:
    """F_1 … F_n over `tokens` tokens, as the rows of a matrix in compressed form.

    The entries `token` int64 [E] of feature j stand, ascending, at [starts[j], starts[j + 1]).
    """

    token: np.ndarray
    starts: np.ndarray
    tokens: int

    @staticmethod
    def of(codes: Iterable[SparseCode], n: int) -> FiringSets:
        """Firing sets of the n features on the samples of all codes, numbered in order."""
        features, tokens, seen = [], [], 0
        for code in codes:
            sample, place = (code.value != 0).nonzero(as_tuple=True)
            features.append(code.index[sample, place].cpu().numpy())
            tokens.append(sample.cpu().numpy() + seen)
            seen += code.index.shape[0]
        empty = np.empty(0, dtype=np.int64)
        feature, token = np.concatenate([empty, *features]), np.concatenate([empty, *tokens])
        return FiringSets.from_pairs(feature, token, n, seen)

    @staticmethod
    def from_pairs(feature: np.ndarray, token: np.ndarray, n: int, tokens: int) -> FiringSets:
        """From int64 [E] pairs (feature, token), none given twice, in any order."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(feature, minlength=n))])
        return FiringSets(np.sort(feature * tokens + token) % max(tokens, 1), starts, tokens)

    @property
    def n(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> np.ndarray:
        """int64 [n]: |F_j|."""
        return np.diff(self.starts)

    @property
    def feature(self) -> np.ndarray:
        """int64 [E]: the feature of each entry of `token`."""
        return np.repeat(np.arange(self.n), self.counts)

    def by_token(self) -> FiringSets:
        """The transpose: for each token, the features that fire on it."""
        return FiringSets.from_pairs(self.token, self.feature, self.tokens, self.n)


def best_jaccard(first: FiringSets, second: FiringSets) -> np.ndarray:
    """max_j J(i, j) for each feature i of `first` over those of `second`: float64 [n].

    NaN for a feature that never fires. Both are over the same tokens. Intersections are a sparse product,
    counted over blocks of features in O(firings · active features per token).
    """
    if first.tokens != second.tokens:
        raise UserError(f"firing sets: {first.tokens} and {second.tokens} tokens, expected the same tokens")
    there = second.by_token()
    longest = int(there.counts.max(initial=0))
    best = np.zeros(first.n)
    block = max(1, _CELLS // max(second.n, 1))
    for start in range(0, first.n if longest else 0, block):
        stop = min(start + block, first.n)
        overlap = np.zeros((stop - start) * second.n, dtype=np.int64)
        step = max(1, _CELLS // longest)
        owner = np.repeat(np.arange(stop - start), first.counts[start:stop])
        token = first.token[first.starts[start] : first.starts[stop]]
        for piece in range(0, len(token), step):
            event, other = _expand(there, token[piece : piece + step])
            overlap += np.bincount(owner[piece + event] * second.n + other, minlength=overlap.size)
        table = overlap.reshape(stop - start, second.n)
        union = first.counts[start:stop, None] + second.counts[None, :] - table
        best[start:stop] = (table / np.maximum(union, 1)).max(axis=1)
    best[first.counts == 0] = np.nan
    return best


def _expand(sets: FiringSets, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All members of sets[c] for c in `chosen`: (position of c in `chosen`, member)."""
    lengths = sets.counts[chosen]
    position = np.repeat(np.arange(len(chosen)), lengths)
    within = np.arange(len(position)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return position, sets.token[sets.starts[chosen][position] + within]


def random_sets(sets: FiringSets, seed: int) -> FiringSets:
    """For each feature a uniform set of as many tokens as it fires on: the null of `best_jaccard`."""
    stream = Integers(seed, "features/null")
    counts, tokens = sets.counts, sets.tokens
    # Of a set beyond half of the tokens its complement is drawn: rejection would crawl.
    inverted = np.flatnonzero(2 * counts > tokens)
    wanted = counts.copy()
    wanted[inverted] = tokens - counts[inverted]
    # Sets that have all they want are put aside, so that a round costs what is still growing.
    complete: list[np.ndarray] = []
    pair = np.empty(0, dtype=np.int64)
    missing = wanted
    while missing.any():
        owner = np.repeat(np.arange(sets.n), missing)
        # Every draw that is new is taken and no set gets more than it wants, so sets are uniform.
        drawn = np.sort(np.concatenate([pair, owner * tokens + stream.below(tokens, owner.size)]))
        pair = drawn[np.concatenate([[True], drawn[1:] != drawn[:-1]])]
        feature = pair // tokens
        missing = np.where(missing > 0, wanted - np.bincount(feature, minlength=sets.n), 0)
        growing = missing[feature] > 0
        complete.append(pair[~growing])
        pair = pair[growing]
    pair = np.concatenate([np.empty(0, dtype=np.int64), *complete])
    feature, token = pair // max(tokens, 1), pair % max(tokens, 1)
    kept = ~np.isin(feature, inverted)
    features, members = [feature[kept]], [token[kept]]
    for j in inverted:
        rest = np.setdiff1d(np.arange(tokens), token[feature == j], assume_unique=True)
        features.append(np.full(len(rest), j))
        members.append(rest)
    return FiringSets.from_pairs(np.concatenate(features), np.concatenate(members), sets.n, tokens)


@torch.no_grad()
def best_cosine(first: Dictionary, second: Dictionary, block: int = 512) -> Tensor:
    """max_j |cos(w_i, w'_j)| for each column w_i of `first` over those of `second`: [n].

    Never more than [block, n'] at a time. 0 against columns of zeros, NaN for a column of zeros in `first`.
    """
    if first.m != second.m:
        raise UserError(f"dictionaries: columns of length {first.m} and {second.m}, expected the same")
    lengths, others = first.norms(), second.norms()
    scale = torch.where(others > 0, 1 / others, 0)
    out = torch.empty(first.n, dtype=first.dtype, device=first.device)
    block = max(1, min(block, STORED_SCORES // second.n))
    for start in range(0, first.n, block):
        index = torch.arange(start, min(start + block, first.n), device=first.device)
        written = first.columns(index).to(device=second.device, dtype=second.dtype)
        overlap = (second.correlate(written) * scale).abs_().amax(dim=1)
        out[index] = overlap.to(out) / lengths[index]
    return out


def random_signs(dictionary: Dictionary, seed: int) -> Dictionary:
    """The same columns, each entry with a uniform sign: the null of `best_cosine`.

    Entries are those in R^m: columns of a subspace are written out for it, n·m numbers.
    """
    if isinstance(dictionary, SubspaceDictionary):
        dictionary = DenseDictionary(dictionary.columns(torch.arange(dictionary.n, device=dictionary.device)))

    def changed(entries: Tensor) -> Tensor:
        signs = Integers(seed, "features/signs").below(2, entries.numel()).reshape(entries.shape) * 2 - 1
        return entries.detach() * torch.from_numpy(signs).to(entries)

    return dictionary.changed(changed)


def token_entropy(sets: FiringSets, token_id: np.ndarray) -> np.ndarray:
    """H_j in bits of each feature, token_id [tokens] the vocabulary ids: float64 [n], NaN where dead.

    At most log₂|F_j|, so entropies compare only between features of similar rates; those of
    `random_sets` tell what a feature without a preference would have.
    """
    if len(token_id) != sets.tokens:
        raise UserError(f"token ids: found {len(token_id)}, expected {sets.tokens}, one a token")
    counts = sets.counts
    if not counts.any():
        return np.full(sets.n, np.nan)
    ids = np.asarray(token_id, dtype=np.int64)[sets.token]
    pair, times = np.unique(sets.feature * (int(ids.max()) + 1) + ids, return_counts=True)
    feature = pair // (int(ids.max()) + 1)
    share = times / counts[feature]
    entropy = np.bincount(feature, weights=-share * np.log2(share), minlength=sets.n) + 0.0
    return np.where(counts > 0, entropy, np.nan)


def dead_fraction(sets: FiringSets, tokens: int) -> float:
    """Share of features that fire on none of the first `tokens` tokens, from 1 to all of them."""
    if not 1 <= tokens <= sets.tokens:
        raise UserError(f"test tokens: found {tokens}, expected 1 to the {sets.tokens} that were encoded")
    first = sets.token[sets.starts[:-1][sets.counts > 0]]
    return float((sets.n - (first < tokens).sum()) / sets.n)
