"""Estimates by sketches beside exact shares, which documents are found, and samples of sets."""

import os
import random
import tracemalloc

import numpy as np
import pytest

from expander_sae.activations import sketches
from expander_sae.activations.sketches import LOOKED_UP, ORDERS, Sample, Sketches


def elements(count, seed=0):
    draw = random.Random(seed)
    return {draw.getrandbits(64) for _ in range(count)}


def overlapping(size, shared, seed):
    """A set of `size` of which `shared` are those of seed 0's set."""
    return set(random.Random(seed).sample(sorted(elements(size)), shared)) | elements(size - shared, seed)


def with_documents(sets):
    found = Sketches()
    for one in sets:
        found.add(found.sketch(one), len(one))
    return found


def test_sketches_are_the_same_in_every_process_and_version():
    """If this changes, corpora above `exact_tokens` change: raise STAGE_VERSIONS["corpus"]."""
    sketch = Sketches().sketch({1 << 32, 2 << 32, 3 << 32})
    assert sketch.dtype == np.uint32 and sketch.shape == (ORDERS,)
    assert sketch[:3].tolist() == [277274469, 2241546430, 1311794348]


def test_estimates_are_right_on_average_and_as_far_off_as_theory_says():
    size, trials = 100, 200
    for shared in (11, 20, 50, 100):
        found = Sketches()
        estimates = []
        for trial in range(trials):
            one, other = overlapping(size, shared, 2 * trial + 1), elements(size)
            # Elements that differ between trials, so that errors are independent.
            one, other = ({element ^ (trial * 0x9E3779B97F4A7C15 % (1 << 64)) for element in each}
                          for each in (one, other))  # fmt: skip
            both = found.sketch(one), found.sketch(other)
            estimates.append((both[0] == both[1]).mean())
        similarity = shared / (2 * size - shared)
        error = np.sqrt(similarity * (1 - similarity) / ORDERS)
        assert abs(np.mean(estimates) - similarity) <= 4 * error / np.sqrt(trials)
        assert np.std(estimates) == pytest.approx(error, rel=0.25, abs=1e-12)


def test_shares_come_from_similarity_and_sizes():
    size = 110
    for shared, least, most in ((110, 1, 1), (88, 0.65, 0.95), (55, 0.3, 0.7), (0, 0, 0)):
        found = with_documents([overlapping(size, shared, seed) for seed in range(1, 21)])
        shares = found.shares(found.sketch(elements(size)), size)
        assert len(shares) == (20 if shared else 0)
        assert all(least <= share <= most for share in shares)


def test_a_short_document_within_a_longer_one_counts_by_its_own_size():
    whole = elements(100)
    part = set(sorted(whole)[:50])
    found = with_documents([whole])
    (share,) = found.shares(found.sketch(part), len(part))
    assert share > 0.75


def test_all_that_share_a_first_element_are_found_however_many_lists_there_are():
    """Against a plain scan, over several growths of the lists and of the room."""
    draw = random.Random(0)
    stock = [elements(60, seed) for seed in range(300)]
    found, known = Sketches(), []
    for _ in range(5000):
        one = set(sorted(draw.choice(stock))[:40]) | {draw.getrandbits(64)}
        sketch = found.sketch(one)
        if len(known) % 500 == 499:
            expected = np.flatnonzero((np.array(known)[:, :LOOKED_UP] == sketch[:LOOKED_UP]).any(1))
            assert sorted(found._found(sketch[:LOOKED_UP])) == expected.tolist()
        found.add(sketch, len(one))
        known.append(sketch)


def test_every_list_holds_the_documents_of_its_own_first_elements_newest_first():
    """Else a search goes through longer lists than it has to, and finds the same."""
    found = with_documents(elements(20, seed) for seed in range(4500))
    rows = np.frombuffer(os.pread(found._file.fileno(), 388 * 4500, 0), sketches._ROW)["links"]
    each = len(found._heads) // LOOKED_UP
    assert each == 4 * sketches._FEWEST
    for place, document in enumerate(found._heads.tolist()):
        order, wanted = divmod(place, each)
        expected = (
            np.flatnonzero(rows["first"][:, order] % each == wanted)[::-1].tolist()
            if place % 97 == 0
            else None
        )
        walked = []
        while document >= 0:
            walked.append(document)
            document = rows["earlier"][document, order].item()
        assert expected in (None, walked)


def test_of_many_with_one_first_element_the_newest_are_looked_at(monkeypatch):
    monkeypatch.setattr(sketches, "NEWEST", 3)
    found = with_documents([elements(50)] * 10)
    assert sorted(found._found(found.sketch(elements(50))[:LOOKED_UP])) == [7, 8, 9]


def test_a_document_takes_few_bytes():
    found = Sketches()
    sketch = found.sketch(elements(50))
    tracemalloc.start()
    for _ in range(5000):
        found.add(sketch, 50)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 128 * 5000
    assert os.fstat(found._file.fileno()).st_size == 388 * 5000


def test_a_sample_is_exact_until_it_is_full():
    one, other = elements(900), overlapping(900, 300, 5)
    small, smaller = Sample(1000), Sample(1000)
    small.update(one)
    smaller.update(other)
    assert (len(small), small.kept) == (len(one), 1)
    assert smaller.share_in(small) == len(one & other) / len(other)
    assert Sample().share_in(small) == 0


def test_a_full_sample_estimates_size_and_share():
    one = elements(20_000)
    other = set(random.Random(1).sample(sorted(one), 2_000)) | elements(6_000, 9)
    large, medium = Sample(2_000), Sample(6_000)
    for each, sample in ((one, large), (other, medium)):
        for start in range(0, len(each), 500):
            sample.update(list(each)[start : start + 500])
    assert 1_000 <= len(large.held) <= 2_000 and large.kept in (1 / 8, 1 / 16)
    assert len(large) == pytest.approx(len(one), rel=0.1)
    assert medium.share_in(large) == pytest.approx(len(one & other) / len(other), abs=0.06)
    assert large.share_in(medium) == pytest.approx(len(one & other) / len(one), abs=0.04)
