import json

import pytest

from expander_sae.activations import checked_model
from expander_sae.activations.checked_model import RECORD, load_checked
from expander_sae.errors import UserError
from tests.tiny_models import POSITIONS, tiny_model_json


@pytest.fixture
def model_json(tmp_path):
    return tiny_model_json(tmp_path)


@pytest.fixture
def tested(monkeypatch):
    """(layers, tokens) of every test that is done."""
    calls, check = [], checked_model.check_model

    def counted(model, layers, tokens):
        calls.append((list(layers), tokens))
        return check(model, layers, tokens)

    monkeypatch.setattr(checked_model, "check_model", counted)
    return calls


def test_a_model_is_tested_once(model_json, tested):
    assert load_checked(model_json, [1], 30).cut == {1}
    assert load_checked(model_json, [1], 30).cut == load_checked(model_json, [1], 12).cut == {1}
    assert tested == [([1], 30)]


def test_other_layers_and_longer_documents_are_tested_anew(model_json, tested):
    load_checked(model_json, [1], 30)
    assert load_checked(model_json, [0, 1], 30).cut == {0, 1}
    load_checked(model_json, [0, 1], 31)
    load_checked(model_json, [1, 0], 31)
    assert tested == [([1], 30), ([0], 30), ([0, 1], 31)]


@pytest.mark.parametrize("key", ["model_sha256", "device", "software", "version"])
def test_a_record_of_something_else_counts_as_none(model_json, tested, key):
    load_checked(model_json, [1], 30)
    path = model_json.parent / RECORD
    record = json.loads(path.read_text())
    checked_model.write_sealed_json(path, {**record, key: "another"})
    load_checked(model_json, [1], 30)
    assert len(tested) == 2


def test_a_damaged_record_is_written_anew(model_json, tested):
    load_checked(model_json, [1], 30)
    path = model_json.parent / RECORD
    whole = path.read_bytes()
    for damaged in (whole[:-9], whole.replace(b"true", b"null"), b"[]", b"\xff"):
        path.write_bytes(damaged)
        assert load_checked(model_json, [1], 30).cut == {1}
        assert path.read_bytes() == whole
    assert len(tested) == 5


def test_more_tokens_than_the_model_has_positions(model_json, tested):
    said = rf"corpus\.context: found {POSITIONS + 1}, expected at most {POSITIONS} \(positions of model tiny"
    with pytest.raises(UserError, match=said):
        load_checked(model_json, [1], POSITIONS + 1)
    assert not tested
