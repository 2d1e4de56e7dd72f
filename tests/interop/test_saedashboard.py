"""Batches for Neuronpedia against those of SAEDashboard's own runner and converter."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.dashboard import neuronpedia, sources
from expander_sae.dashboard.rows import TokenRows
from expander_sae.interop import saelens
from tests.interop.problems import M, N, activations, small

pytestmark = pytest.mark.saelens

pytest.importorskip("sae_dashboard", reason="sae-dashboard is not installed: make test-saelens")

DOCUMENTS, LENGTH, VOCABULARY = 30, 20, 40
HOOK = "blocks.1.hook_resid_post"


class Model:
    """What SAEDashboard asks of a language model: the activations of its documents, and W_U."""

    tokenizer = None
    cfg = SimpleNamespace(d_vocab=VOCABULARY)

    def __init__(self, ids: torch.Tensor, hidden: torch.Tensor) -> None:
        self._of = {tuple(row.tolist()): h for row, h in zip(ids, hidden, strict=True)}
        effects = torch.randn(M, VOCABULARY, generator=torch.Generator().manual_seed(1))
        self.W_U = effects - effects.mean(dim=1, keepdim=True)
        self.hook_dict = {HOOK: SimpleNamespace(ctx={})}

    def run_with_hooks(self, tokens: torch.Tensor, stop_at_layer: int, fwd_hooks: list[Any]) -> None:
        assert stop_at_layer == 2
        hidden = torch.stack([self._of[tuple(row.tolist())] for row in tokens])
        for point, keep in fwd_hooks:
            keep(hidden, self.hook_dict[point])


def theirs(folder: Path, model: Model, ids: torch.Tensor) -> dict[str, Any]:
    """The batch of SAEDashboard for an autoencoder in SAELens's format."""
    import sae_lens
    from sae_dashboard import components_config as config
    from sae_dashboard.layout import Column, SaeVisLayoutConfig
    from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
    from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
    from sae_dashboard.sae_vis_data import SaeVisConfig
    from sae_dashboard.sae_vis_runner import SaeVisRunner

    # As its runner for Neuronpedia sets them.
    sequences = config.SequencesConfig(
        buffer=None, n_quantiles=5, top_acts_group_size=20, quantile_group_size=5
    )
    histograms = (config.ActsHistogramConfig(), config.LogitsHistogramConfig(), config.LogitsTableConfig())
    layout = SaeVisLayoutConfig([Column(sequences, *histograms, config.FeatureTablesConfig(n_rows=3))])
    settings = SaeVisConfig(HOOK, list(range(N)), N, 8, device="cpu", feature_centric_layout=layout)
    data = SaeVisRunner(settings).run(sae_lens.SAE.load_from_disk(folder), model, ids)
    names = NeuronpediaRunnerConfig("set", "", "", model_id="tiny", layer=1, n_prompts_total=DOCUMENTS)
    names.n_tokens_in_prompt, names.huggingface_dataset_path = LENGTH, "text"
    words = {token: f"[{token}]" for token in range(VOCABULARY)}
    return json.loads(NeuronpediaConverter.convert_to_np_json(model, data, names, words))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """(SAEDashboard's batch, ours) of one autoencoder on one text."""
    folder = tmp_path_factory.mktemp("saedashboard")
    sae, hidden = small(), activations(DOCUMENTS * LENGTH)
    with torch.no_grad():
        sae.b_enc.add_(2.5)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(VOCABULARY, (DOCUMENTS, LENGTH), generator=generator)
    model = Model(ids, hidden.reshape(DOCUMENTS, LENGTH, M))
    saelens.export(sae, folder / "sae", say=False)
    documents = np.repeat(np.arange(DOCUMENTS), LENGTH)
    rows = TokenRows("text", hidden.numpy(), ids.flatten().numpy(), documents)
    read = sources.Sources(folder, sae, rows, folder / "model.json", None)
    names = neuronpedia.Names("tiny", 1, "set", "text")
    with pytest.MonkeyPatch.context() as patch:
        head = SimpleNamespace(unembedding=model.W_U.T)
        patch.setattr(sources, "LanguageModel", SimpleNamespace(load=lambda path: head))
        neuronpedia.write_batches(read, names, folder, len(hidden), N)
    return theirs(folder / "sae", model, ids), json.loads((folder / "batch-0.json").read_text())


def test_saedashboard_reads_what_we_write(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch

    batch = NeuronpediaDashboardBatch(**both[1])
    assert batch.to_dict() == both[1] and len(batch.features) == N
    assert {key: both[0][key] for key in both[0] if key != "features"} == {
        key: both[1][key] for key in both[1] if key != "features"
    }


def test_features_have_the_numbers_that_saedashboard_computes(
    both: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Texts and whole numbers are equal; theirs are rounded to three decimals and ours to four digits."""
    several = 0
    for expected, found in zip(both[0]["features"], both[1]["features"], strict=True):
        assert expected.keys() == found.keys()
        firing = sum(found["freq_hist_data_bar_heights"])
        several += firing > 1
        for key in expected.keys() - {"activations"}:
            if key == "freq_hist_data_bar_values" and firing < 2:
                continue  # the bins around a single value are chosen otherwise
            if key.startswith("neuron_alignment") and 0 in found["neuron_alignment_values"]:
                continue  # which of the entries that are 0 is said first
            # It also tells features that never fire together.
            told = expected[key][: len(found[key])] if "correlated" in key else expected[key]
            if key.endswith(("_values", "_l1", "_pearson", "frac_nonzero")):
                np.testing.assert_allclose(found[key], told, atol=1e-3, rtol=1e-3, err_msg=key)
            else:
                assert found[key] == told, key
    assert several > N / 2


def test_examples_are_those_of_saedashboard_with_the_first_token_too(
    both: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """It leaves out each prompt's first token, and shows tokens on which the feature does not fire."""
    compared = 0
    for expected, found in zip(both[0]["features"], both[1]["features"], strict=True):
        top = [example for example in expected["activations"] if example["bin_contains"] == -1]
        ours = [example for example in found["activations"] if example["bin_contains"] == -1]
        for theirs_, mine in zip(top, ours, strict=False):
            assert mine["tokens"][1:] == theirs_["tokens"]
            np.testing.assert_allclose(mine["values"][1:], theirs_["values"], rtol=1e-3, atol=1e-3)
            assert mine["qualifying_token_index"] - 1 == theirs_["qualifying_token_index"]
            compared += 1
        shares = {example["bin_max"]: example["bin_contains"] for example in expected["activations"]}
        for example in found["activations"]:
            if example["bin_contains"] != -1 and example["bin_min"] > 0:
                near = min(shares, key=lambda end: abs(end - example["bin_max"]))
                assert near == pytest.approx(example["bin_max"], abs=2e-3)
                assert example["bin_contains"] == pytest.approx(shares[near], abs=1e-3) or shares[near] == -1
    assert compared > 5 * N
