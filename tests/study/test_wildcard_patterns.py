"""A compact pattern matches the names that it was made from, and no other."""

import re

from hypothesis import given
from hypothesis import strategies as st

from expander_sae.study.study import Study, load_config
from expander_sae.study.wildcard_patterns import one_of

NAMES = st.lists(st.text("ab1/_.|(-", min_size=1, max_size=8), max_size=12)


@given(NAMES, st.lists(st.text("ab1/_.|(-", max_size=8), max_size=12))
def test_these_texts_and_no_other(texts, others):
    pattern = re.compile(one_of(texts))
    for text in [*texts, *others, *(text[:-1] for text in texts), *(text + "a" for text in texts)]:
        assert bool(pattern.fullmatch(text)) == (text in texts)


def test_a_grid_becomes_a_choice_of_each_part():
    grid = [f"layer{layer}/n8_d{d}_k{k}" for layer in range(10) for d in range(20) for k in range(5)]
    assert len(one_of(grid)) < 200


def test_a_hole_in_a_grid_is_left_out():
    config = {
        "models": [{"name": "smollm2-135m-instruct", "layers": [2, 5]}],
        "tokens": {"train": 2048, "test": 512, "ce_sequences": 4, "shard": 1024},
        "grid": {"n": 1152, "d": [7, 30], "k": [8, 16], "seeds": [0]},
        "runs": [{"support": "expander"}],
    }
    cells = list(Study(load_config(config)).cells)
    assert len(cells) == 8
    for hole in cells:
        pattern = re.compile(one_of(cell for cell in cells if cell != hole))
        assert [cell for cell in cells if not pattern.fullmatch(cell)] == [hole]
