"""Near-duplicates, so that what is tested was not trained on; exactly, or in a large corpus by sketches.

Two texts are near-duplicates when the containment of their sets of word 8-grams,
|A ∩ B| / min(|A|, |B|), exceeds a limit. Where words are not set apart by blanks, each character counts as
a word: in Chinese and Japanese, and in what no word is as long as, such as base64 or a gene.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from expander_sae.activations.gram_index import GramIndex
from expander_sae.activations.sketches import Sketches
from expander_sae.activations.splits import EXACT_TOKENS

GRAM = 8
_WORD = re.compile(r"\w+")
# Han, kana, bopomofo and the marks among them: their texts have no blanks. Thai, Lao, Khmer and Burmese have
# none either, but vowel signs, at which `_WORD` breaks.
_UNSPACED = re.compile(
    "[\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u3096\u309d-\u309f\u30a1-\u30fa"
    "\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)
_UNSPACED_SHARE = 1 / 8
"""Of fewer such characters a text quotes a few: they stay words, however long."""
_UNSPACED_WIDTH = 3
"""Characters of English that hold as many tokens as one character without blanks, at least."""
_NO_WORD = re.compile(r"\w{65,}")
_MULTIPLIER = 0x9E3779B97F4A7C15 | 1


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest(), "little")


def word_grams(text: str, characters: int) -> frozenset[int]:
    """64-bit hashes of the distinct word 8-grams in the first `characters` characters, lower case.

    A text of fewer words has one gram: all of its words. The hash is a polynomial of the words'
    blake2b hashes, the same in every process and on every platform.
    """
    words = _words(text[:characters].lower(), characters)
    if len(words) < GRAM:
        return frozenset({_word_hash("\0".join(words) if words else text[:characters])})
    hashes = np.array([_word_hash(word) for word in words], dtype=np.uint64)
    count = len(words) - GRAM + 1
    grams = np.zeros(count, dtype=np.uint64)
    for place in range(GRAM):  # arithmetic modulo 2**64
        grams = grams * np.uint64(_MULTIPLIER) + hashes[place : place + count]
    return frozenset(grams.tolist())


def _words(text: str, characters: int) -> list[str]:
    """The words of a text of at most `characters` characters, and the characters of what has no words."""
    unspaced = len(_UNSPACED.findall(text))
    if unspaced and unspaced >= _UNSPACED_SHARE * sum(map(len, _WORD.findall(text))):
        ends = accumulate(_UNSPACED_WIDTH if _UNSPACED.match(character) else 1 for character in text)
        text = _UNSPACED.sub(r" \g<0> ", text[: bisect_right([*ends], characters)])
    return _WORD.findall(_NO_WORD.sub(lambda run: " ".join(run[0]), text))


class NearDuplicateFilter:
    """Keeps the first document of every group of near-duplicates, in the order they arrive.

    A document falls into the group of the first earlier document, kept or not, that it overlaps by
    more than `max_overlap`. Whether a document is kept depends on earlier ones alone, so a longer
    corpus changes no earlier decision.
    """

    def __init__(self, max_overlap: float) -> None:
        self.max_overlap = max_overlap
        self._index = GramIndex()

    def admit(self, grams: frozenset[int]) -> bool:
        """Whether no earlier document is a near-duplicate; remembers `grams` either way."""
        shared, sizes = self._index.add(grams), self._index.sizes
        smaller = ((common, min(len(grams), sizes[other])) for other, common in shared.items())
        return all(common <= self.max_overlap * size for common, size in smaller)

    def documents(self) -> list[np.ndarray]:
        """The grams of every document, in the order of arrival."""
        return self._index.documents()


class GrowingFilter:
    """A filter for a corpus of any size: exact at first, and by sketches from some document on.

    Documents are compared as `NearDuplicateFilter` does until those before have `exact_tokens` tokens. Later
    ones are compared by estimates, with all earlier ones, whose sketches lie in a file in `folder`. Where
    that changes follows from earlier documents alone, as each decision does.
    """

    def __init__(
        self, max_overlap: float, exact_tokens: int = EXACT_TOKENS, folder: Path | None = None
    ) -> None:
        self.max_overlap, self._left = max_overlap, exact_tokens
        self._exact: NearDuplicateFilter | None = NearDuplicateFilter(max_overlap)
        self._sketches = Sketches(folder)
        self.exact_documents: int | None = None
        """How many documents were compared exactly; None as long as all were."""

    def forget(self) -> None:
        """Let go of all documents, where no other one is to be compared with them."""
        self._exact = None
        self._sketches.close()

    def admit(self, grams: frozenset[int], tokens: int) -> bool:
        """Whether no earlier document is a near-duplicate of this one, which has so many tokens."""
        if self._left > 0 and self._exact is not None:
            self._left -= tokens
            return self._exact.admit(grams)
        if self._exact is not None:
            documents, self._exact = self._exact.documents(), None
            self.exact_documents = len(documents)
            for earlier in documents:
                self._sketches.add(self._sketches.sketch(earlier.tolist()), len(earlier))
        sketch = self._sketches.sketch(grams)
        shares = self._sketches.shares(sketch, len(grams))
        self._sketches.add(sketch, len(grams))
        return not bool((shares > self.max_overlap).any())
