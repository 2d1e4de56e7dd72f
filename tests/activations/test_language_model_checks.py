import re

import pytest
import torch

from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.language_model_checks import check_model
from expander_sae.errors import UserError
from tests.fake_models import DEPTH, VOCABULARY, WIDTH, Fake, language_model
from tests.faulty_models import FAULTS
from tests.odd_models import ODD
from tests.tiny_models import ARCHITECTURES, tiny_model_json

TOKENS, LAYER = 40, 1


def faked(*changes):
    fake = Fake()
    for change in changes:
        change(1.0)(fake)
    return language_model(fake)


@pytest.fixture
def ids():
    return torch.randint(1, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(0))


def replaced(model, ids, layer, hidden):
    """Logits of a plain forward pass in which a hook replaces the layer's output."""

    def hook(module, inputs, output):
        if hasattr(output, "_replace"):
            return output._replace(hidden=hidden)
        if isinstance(output, tuple | list):
            return type(output)([hidden.to(output[0].dtype), *output[1:]])
        return hidden.to(output.dtype)

    handle = model.layers[layer].register_forward_hook(hook)
    try:
        return model.module(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_real_architectures_pass_and_can_be_cut(tmp_path, architecture):
    model = LanguageModel.load(tiny_model_json(tmp_path, architecture))
    assert check_model(model, [0, 1, 2], TOKENS) == {0, 1, 2}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_property_is_named_in_one_line(name):
    fault, said = FAULTS[name]
    with pytest.raises(UserError) as refused:
        check_model(faked(fault), [LAYER], TOKENS)
    message = str(refused.value)
    assert re.search(said, message), message
    assert message.startswith("models[fake]: ") and "\n" not in message and "Fake" in message


@pytest.mark.parametrize("name", ODD)
def test_an_odd_model_passes_and_its_numbers_are_right(name, ids):
    change, cut = ODD[name]
    model = faked(change)
    model.cut = check_model(model, range(DEPTH), TOKENS)
    assert (LAYER in model.cut) == cut
    alone = model.residual(ids, [LAYER])[LAYER]
    assert torch.equal(model.residual(ids, range(DEPTH))[LAYER], alone)
    for hidden in (alone, torch.zeros_like(alone), torch.randn_like(alone)):
        expected = replaced(model, ids, LAYER, hidden)
        torch.testing.assert_close(model.logits_after(hidden, LAYER, ids), expected)
    one = torch.randn(WIDTH)
    for_all = one.expand_as(alone)
    expected = replaced(model, ids, LAYER, for_all.contiguous())
    torch.testing.assert_close(model.logits_after(for_all, LAYER, ids), expected)


def test_a_length_that_is_not_asked_for_is_not_tested():
    """The position encoding changes beyond 24 tokens only."""
    assert check_model(faked(FAULTS["dynamic length"][0]), [LAYER], 24) == {LAYER}


def test_a_fault_above_the_layer_is_found_too():
    """Cross-entropies depend on all layers."""
    fake = Fake()
    fake.layers[2].added.append(lambda h, _: h.mean(dim=1, keepdim=True).expand_as(h))
    with pytest.raises(UserError, match="activation at layer 2 changes with the tokens after it"):
        check_model(language_model(fake), [0], TOKENS)


def test_token_ids_that_the_model_does_not_embed(ids):
    with pytest.raises(UserError, match=f"found token id {VOCABULARY}, expected less than {VOCABULARY}"):
        faked().residual(ids.clamp(min=VOCABULARY), [LAYER])


def test_states_of_another_shape_are_no_replacement(ids):
    with pytest.raises(ValueError, match="expected"):
        faked().logits_after(torch.zeros(3, 11, WIDTH + 1), LAYER, ids)
