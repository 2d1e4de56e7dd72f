import json

import pytest

from expander_sae.activations.positions import check_context, context_error, positions_in, positions_of
from expander_sae.errors import UserError
from tests.tiny_models import ARCHITECTURES, POSITIONS, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_positions_of_a_saved_model(architecture, tmp_path):
    tiny_model(architecture).config.save_pretrained(tmp_path)
    assert positions_in(tmp_path) == POSITIONS


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 64}, 64),
        ({"max_position_embeddings": 8, "text_config": {"max_position_embeddings": 2048}}, 2048),
        ({"text_config": {"hidden_size": 8}, "max_position_embeddings": 16}, 16),
        ({"hidden_size": 8}, None),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": True}, None),
        ({"max_position_embeddings": "many"}, None),
        ({"max_position_embeddings": -1}, None),
        ([], None),
    ],
)
def test_positions_that_a_config_states(config, expected, tmp_path):
    assert positions_of(config) == expected
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert positions_in(tmp_path) == expected


def test_folders_without_a_readable_config(tmp_path):
    assert positions_in(tmp_path / "absent") is None
    for content in (b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "config.json").write_bytes(content)
        assert positions_in(tmp_path) is None


def test_a_context_may_fill_the_positions():
    assert context_error(512, 512, "a") is None and context_error(513, None, "a") is None
    expected = "corpus.context: found 513, expected at most 512 (positions of model a)"
    assert context_error(513, 512, "a") == expected


def test_a_model_record_is_checked_by_its_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"n_positions": 32}')
    record = {"path": str(tmp_path), "name": "small"}
    check_context(32, record)
    with pytest.raises(UserError, match=r"found 33, expected at most 32 \(positions of model small\)"):
        check_context(33, record)
