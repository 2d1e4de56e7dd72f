import pytest
import torch

from expander_sae.activations.language_model import LanguageModel, decoder_layers
from expander_sae.errors import UserError
from tests.tiny_models import ARCHITECTURES, DEPTH, VOCABULARY, WIDTH, tiny_model, tiny_model_json


@pytest.fixture(scope="module", params=[(name, cut) for name in ARCHITECTURES for cut in (True, False)])
def both(request, tmp_path_factory):
    """The same model as this project loads it, cut or not, and as transformers runs it."""
    architecture, cut = request.param
    model = LanguageModel.load(tiny_model_json(tmp_path_factory.mktemp(architecture), architecture))
    model.cut = frozenset(range(DEPTH) if cut else ())
    return model, tiny_model(architecture)


@pytest.fixture
def ids():
    return torch.randint(0, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(0))


def outputs_of_all_layers(plain, ids):
    """Output of every decoder layer in an ordinary forward pass, and the logits."""
    found, handles = {}, []
    for number, layer in enumerate(decoder_layers(plain, DEPTH)):

        def keep(module, inputs, output, number=number):
            found[number] = output[0] if isinstance(output, tuple) else output

        handles.append(layer.register_forward_hook(keep))
    with torch.no_grad():
        logits = plain(input_ids=ids).logits
    for handle in handles:
        handle.remove()
    return found, logits


class Calls:
    """Counts the forward calls of every decoder layer's children."""

    def __init__(self, model):
        self.counts = [0] * model.depth
        for number, layer in enumerate(model.layers):
            next(iter(layer.children())).register_forward_hook(self._count(number))

    def _count(self, number):
        def hook(*_):
            self.counts[number] += 1

        return hook


def test_residual_is_the_output_of_the_layer(both, ids):
    model, plain = both
    expected, _ = outputs_of_all_layers(plain, ids)
    found = model.residual(ids, [2, 0, 1])
    for layer in range(DEPTH):
        assert found[layer].shape == (3, 11, WIDTH)
        assert found[layer].dtype == torch.float32
        torch.testing.assert_close(found[layer], expected[layer])


def test_residual_agrees_with_hidden_states(both, ids):
    model, plain = both
    with torch.no_grad():
        states = plain(input_ids=ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(model.residual(ids, [1])[1], states[2])


def test_padded_batch_equals_documents_one_by_one(both, ids):
    model, _ = both
    for row, length in enumerate((11, 4, 1)):
        padded = ids.clone()
        padded[row, length:] = 0
        together = model.residual(padded, [2])[2][row, :length]
        torch.testing.assert_close(together, model.residual(ids[row : row + 1, :length], [2])[2][0])


@pytest.mark.parametrize("layer", range(DEPTH))
def test_logits_after_true_states_are_the_models(both, ids, layer):
    model, plain = both
    expected, logits = outputs_of_all_layers(plain, ids)
    torch.testing.assert_close(model.logits_after(expected[layer], layer, ids), logits, rtol=1e-4, atol=1e-5)


def test_logits_follow_the_given_states(both, ids):
    model, plain = both
    hidden = torch.randn(3, 11, WIDTH, generator=torch.Generator().manual_seed(1))
    layer = decoder_layers(plain, DEPTH)[1]

    def replace(module, inputs, output):
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = layer.register_forward_hook(replace)
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
    handle.remove()
    torch.testing.assert_close(model.logits_after(hidden, 1, ids), expected, rtol=1e-4, atol=1e-5)


def test_splicing_leaves_the_model_as_it_was(both, ids):
    model, _ = both
    before = model.residual(ids, [2])[2]
    model.logits_after(torch.zeros(3, 11, WIDTH), 1, ids)
    with pytest.raises(UserError, match="found token id 64, expected less than 64"):
        model.logits_after(torch.zeros(3, 11, WIDTH), 1, ids + VOCABULARY - ids.max())
    torch.testing.assert_close(model.residual(ids, [2])[2], before, rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_the_needed_layers_run(tmp_path, architecture, ids):
    model = LanguageModel.load(tiny_model_json(tmp_path, architecture))
    below = Calls(model)
    model.residual(ids, [1, 0])
    assert below.counts == [1, 1, 0]
    for cut, expected in ((frozenset(), [1, 1, 1]), (frozenset({1}), [0, 0, 1])):
        model.cut, calls = cut, Calls(model)
        model.logits_after(torch.zeros(3, 11, WIDTH), 1, ids)
        assert calls.counts == expected


def test_bfloat16_residuals_come_as_float32(tmp_path, ids):
    path = tiny_model_json(tmp_path, dtype="bfloat16")
    model = LanguageModel.load(path)
    found = model.residual(ids, [1])[1]
    assert found.dtype == torch.float32
    assert torch.equal(found, found.bfloat16().float())
    assert model.logits_after(found, 1, ids).dtype == torch.bfloat16


def test_layer_the_model_does_not_have(model, ids):
    with pytest.raises(UserError, match=r"models\[tiny-llama\]\.layers: found 3, expected 0 to 2"):
        model.residual(ids, [1, 3])
    with pytest.raises(UserError, match="found -1"):
        model.logits_after(torch.zeros(1, 1, WIDTH), -1, ids[:1, :1])


def test_model_without_a_layer_stack_of_that_depth():
    with pytest.raises(UserError, match="no list of 4 decoder layers"):
        decoder_layers(tiny_model("gpt2"), 4)
