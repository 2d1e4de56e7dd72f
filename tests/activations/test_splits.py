from collections import Counter

from expander_sae.activations.splits import shard_counts, split_of


def test_shares_are_80_12_8():
    counts = Counter(split_of(f"text {i}", 0) for i in range(5000))
    assert [round(counts[split] / 5000, 2) for split in ("train", "test", "ce")] == [0.80, 0.12, 0.08]


def test_split_depends_on_seed_and_text_only():
    first = [split_of(f"text {i}", 0) for i in range(200)]
    assert first == [split_of(f"text {i}", 0) for i in range(200)]
    assert first != [split_of(f"text {i}", 1) for i in range(200)]
    assert [i for i in range(40) if split_of(f"text {i}", 0) == "ce"] == [10, 17, 20, 28, 34]  # golden


def test_shards_hold_the_asked_tokens_and_whole_sequences():
    needs = {"train": 1001, "test": 1000, "ce": 3, "shard": 100}
    counts = {"train": 11, "test": 10, "ce": 4}
    assert shard_counts(needs, context=128) == counts
    assert shard_counts(needs | {"validation": 101}, context=128) == counts | {"validation": 2}
