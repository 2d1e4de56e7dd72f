import random

import pytest

from expander_sae.activations.near_duplicates import NearDuplicateFilter, share_contained, word_grams
from expander_sae.rng import Integers


def plain_grams(text, characters):
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text[:characters].lower()).split()
    if len(words) < 8:
        return {tuple(words)}
    return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}


def related_texts(count):
    """Texts that share runs of words with each other in varying amounts."""
    draw = random.Random(0)
    stock = [f"w{i}" for i in range(300)]
    texts = []
    for _ in range(count):
        words = []
        while len(words) < 40:
            start, length = draw.randrange(280), draw.choice([3, 8, 12, 20])
            words += stock[start : start + length]
        texts.append(" ".join(words))
    return texts


def test_grams_count_as_the_tuples_of_words_do():
    for text in [*related_texts(20), "Short, text!", "", "a b c d e f g H", "a b c d e f g h i"]:
        for characters in (50, 700):
            assert len(word_grams(text, characters)) == len(plain_grams(text, characters))
    assert word_grams("A, b c d e f g h", 700) == word_grams("a b  c d e f g H!", 700)
    assert word_grams("a b c", 700) != word_grams("a c b", 700)


def test_gram_hash_is_the_same_in_every_process():
    assert word_grams("one two three four five six seven eight", 700) == {6425387082507303187}


@pytest.mark.parametrize("max_overlap", [0.0, 0.2, 0.5, 1.0])
def test_filter_equals_comparison_of_all_pairs(max_overlap):
    texts = related_texts(80)
    admit = NearDuplicateFilter(max_overlap)
    for place, text in enumerate(texts):
        mine = plain_grams(text, 700)
        contained = [
            len(mine & other) / min(len(mine), len(other))
            for other in (plain_grams(earlier, 700) for earlier in texts[:place])
        ]
        assert admit.admit(word_grams(text, 700)) == all(share <= max_overlap for share in contained)


def test_duplicate_of_a_dropped_document_is_dropped_too():
    words = [f"w{i}" for i in range(60)]
    chain = [" ".join(words[start : start + 24]) for start in (0, 12, 24)]
    filter_ = NearDuplicateFilter(0.2)
    assert [filter_.admit(word_grams(text, 700)) for text in chain] == [True, False, False]


def test_order_of_earlier_documents_is_all_that_decides():
    texts = [related_texts(60)[i] for i in Integers(1, "corpus").permutation(60)]
    long, short = NearDuplicateFilter(0.2), NearDuplicateFilter(0.2)
    kept = [long.admit(word_grams(text, 700)) for text in texts]
    assert [short.admit(word_grams(text, 700)) for text in texts[:30]] == kept[:30]


def test_share_contained():
    assert share_contained({1, 2, 3, 4}, {3, 4, 5}) == 0.5
    assert share_contained(set(), {1}) == 0.0
