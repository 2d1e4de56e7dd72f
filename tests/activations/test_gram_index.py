"""Counts of shared hashes against sets of Python, whatever waits and whatever is sorted in."""

import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from expander_sae.activations.gram_index import GramIndex


def documents(count, stock=400, seed=0):
    """Sets of hashes of which some stand in many documents, with the largest and the smallest there are."""
    draw = random.Random(seed)
    hashes = [0, 2**64 - 1, *(draw.getrandbits(64) for _ in range(stock))]
    return [frozenset(draw.sample(hashes, draw.randrange(1, 60))) for _ in range(count)]


@pytest.mark.parametrize("recent", [1, 150, 10**9])
def test_shared_hashes_are_those_of_all_pairs(recent):
    index, found = GramIndex(recent), documents(120)
    for number, one in enumerate(found):
        expected = {other: len(one & earlier) for other, earlier in enumerate(found[:number])}
        assert index.add(one) == Counter({other: count for other, count in expected.items() if count})
    assert index.sizes == [*map(len, found)]


@pytest.mark.parametrize("recent", [1, 150, 10**9])
def test_every_document_is_given_back_whole(recent):
    index, found = GramIndex(recent), documents(60)
    for one in found:
        index.add(one)
    for _ in range(2):
        assert [sorted(each.tolist()) for each in index.documents()] == [*map(sorted, found)]
    assert index.add(found[3])[3] == len(found[3]), "documents can be added after that"


def test_no_documents_are_given_back_as_none():
    assert GramIndex().documents() == []


def test_sorted_hashes_take_twelve_bytes():
    draw, index = random.Random(0), GramIndex(recent=4096)
    tracemalloc.start()
    for _ in range(256):
        index.add({draw.getrandbits(64) for _ in range(256)})
    index.documents()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 16 * 256 * 256
    assert index._hashes.dtype == np.uint64 and index._documents.dtype == np.int32
