"""Folders in SAELens itself. `make test-saelens` installs it apart; elsewhere this is skipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import expander_sae
from expander_sae.activations.language_model import LanguageModel
from expander_sae.errors import UserError
from expander_sae.interop import foreign_keys, hub, saelens
from expander_sae.rng import torch_generator
from tests.interop.problems import K, M, N, activations, reference, small
from tests.tiny_models import VOCABULARY, WIDTH, tiny_model_json

pytestmark = pytest.mark.saelens

sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed: make test-saelens")


@pytest.fixture(scope="module")
def plugin() -> Any:
    import expander_sae.interop.saelens_plugin as plugin

    return plugin


@pytest.mark.parametrize("family", ["expander", "bernoulli", "dense"])
@pytest.mark.parametrize("encoder", ["tied", "independent"])
def test_saelens_alone_gives_our_reconstruction(family: str, encoder: str, tmp_path: Path) -> None:
    sae, h = small(family, encoder), activations()
    saelens.export(sae, tmp_path, say=False, hook_name="blocks.0.hook_resid_post", model_name="tiny")
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert type(theirs).__name__ == "TopKSAE" and theirs.cfg.metadata.model_name == "tiny"
    _, positive = reference(sae, h, relu=True)
    with torch.no_grad():
        error = (theirs(h) - sae.decode(sae.encode(h))).norm(dim=1) / h.norm(dim=1)
    assert error[positive].max() < 1e-5 and error[~positive].median() > 1e-3
    theirs.fold_W_dec_norm()
    with torch.no_grad():
        assert ((theirs(h) - sae.decode(sae.encode(h))).norm(dim=1) / h.norm(dim=1))[positive].max() < 1e-5


@pytest.mark.parametrize("family", ["expander", "bernoulli"])
@pytest.mark.parametrize("encoder", ["tied", "independent"])
def test_the_compact_architecture_is_exact_for_negative_values_too(
    family: str, encoder: str, tmp_path: Path, plugin: Any
) -> None:
    sae, h = small(family, encoder), activations()
    saelens.export(sae, tmp_path / "first", compact=True, say=False)
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "first")
    for _ in range(2):
        assert isinstance(theirs, plugin.ExpanderSAE)
        with torch.no_grad():
            code = theirs.encode(h.reshape(10, 30, M))
            rebuilt = theirs.decode(code).reshape(-1, M)
        assert code.shape == (10, 30, N) and int((code != 0).sum(-1).max()) == K
        assert torch.allclose(rebuilt, sae.decode(sae.encode(h)), atol=1e-5)
        assert torch.allclose(theirs.W_dec, sae.dictionary().columns(torch.arange(N)), atol=1e-6)
        assert theirs.W_enc.shape == (M, N)
        theirs.save_model(tmp_path / "second")
        theirs = sae_lens.SAE.load_from_disk(tmp_path / "second")
    halves = sae_lens.SAE.load_from_disk(tmp_path / "second", dtype="bfloat16")
    with torch.no_grad():
        coarse = halves.decode(halves.encode(h)).float()
    assert (coarse - rebuilt).norm() < 0.1 * rebuilt.norm(), "row indices are not rounded with the values"


def test_scales_fold_into_the_biases_and_whitenings_are_refused(tmp_path: Path, plugin: Any) -> None:
    sae, h = small(norm_limit=4.0), activations()
    saelens.export(sae, tmp_path, compact=True, say=False)
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    passed = h.norm(dim=1) > 4.0
    with torch.no_grad():
        rebuilt = theirs(h)
        assert torch.equal(rebuilt[passed], h[passed]) and not torch.equal(rebuilt[~passed], h[~passed])
        smaller = 1.3 * h.norm(dim=1) > 4.0  # not the tokens above the limit before the fold
        expected, whole = theirs.decode(theirs.encode(1.3 * h)) / 1.3, theirs(1.3 * h) / 1.3
        theirs.fold_activation_norm_scaling_factor(1.3)
        assert torch.allclose(theirs.decode(theirs.encode(h)), expected, atol=1e-5)
        assert 0 < int(passed.sum()) < int(smaller.sum()) < len(h)
        assert torch.equal(theirs(h)[smaller], h[smaller]) and torch.allclose(theirs(h), whole, atol=1e-5)
    theirs.save_model(tmp_path / "folded")
    assert expander_sae.load(tmp_path / "folded").about["norm_limit"] == pytest.approx(4.0 / 1.3)
    with pytest.raises(NotImplementedError, match="cannot be folded into a mask"):
        theirs.fold_activation_whitening(None, None, None)
    with pytest.raises(UserError, match="normalize_activations: found 'layer_norm'"):
        plugin.ExpanderSAEConfig(d_in=M, d_sae=N, normalize_activations="layer_norm")


@pytest.mark.parametrize("kind", ["dense", "compact"])
def test_the_card_of_a_published_run_tells_how_saelens_loads_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Any
) -> None:
    """Its lines are run; the Hub is a folder. SAELens needs none of the keys that we do not know."""
    from huggingface_hub.utils import EntryNotFoundError
    from sae_lens.loading import pretrained_sae_loaders

    def download(repo_id: str, filename: str, force_download: bool) -> str:
        if not (tmp_path / repo_id / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(tmp_path / repo_id / filename)

    sae, h = small(norm_limit=4.0), activations()
    sae.save(tmp_path / "run" / "weights.safetensors")
    card = hub.push(tmp_path / "run", "me/sae", with_saelens=kind, dry_run=True).card
    compact = kind == "compact"
    saelens.export(sae, tmp_path / "me" / "sae" / "saelens", compact=compact, say=False)
    assert {path.name for path in (tmp_path / "me/sae/saelens").iterdir()} == {
        "cfg.json",
        "sae_weights.safetensors",
    }, "what SAELens's uploader copies"
    monkeypatch.setattr(pretrained_sae_loaders, "hf_hub_download", download)
    names: dict[str, Any] = {}
    exec(card.partition("## SAELens")[2].split("```python")[1].split("```")[0], names)
    theirs = names["sae"]
    assert isinstance(theirs, plugin.ExpanderSAE) == compact
    assert theirs.cfg.metadata.prepend_bos is None and theirs.cfg.metadata.context_size is None
    with torch.no_grad():
        kept = h.norm(dim=1) <= 4.0
        rebuilt, positive = reference(sae, h, relu=not compact)
        assert torch.allclose(theirs(h)[kept], rebuilt.float()[kept], atol=1e-5)
        # Both count what is not 0: the dense folder has lost the kept values that SAELens's ReLU removes.
        counted = (theirs.encode(h) != 0).sum(dim=1)
        assert bool((counted == K).all()) == compact and torch.equal(counted == K, positive | compact)
        assert expander_sae.evaluate(sae, h)["l0"] == K


def test_what_is_said_of_reconstructions_is_what_saelens_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.interop.saelens_agreement import reconstructions

    sae, h = small(norm_limit=4.0), activations()
    found = reconstructions(sae, tmp_path, h)
    kept = h[h.norm(dim=1) <= 4.0]
    _, positive = reference(sae, kept, relu=True)
    assert (found.tokens, found.passed) == (300, 300 - len(kept))
    assert found.positive == int(positive.sum()) == len(found.same) > 0 and len(found.other) == 0
    assert 0 < float(found.same.max()) < 1e-5 and f"{found.positive / len(kept):.2%}" in found.text()
    code = sae.encode(kept)
    most = int(code.counts(N).argmax())
    write = saelens.export

    def altered(given: expander_sae.SparseAutoencoder, *args: Any, **options: Any) -> None:
        """A folder in which one feature is never selected, as after a near tie."""
        other = expander_sae.SparseAutoencoder(M, N, K, given.mask)
        other.load_state_dict(given.state_dict())
        with torch.no_grad():
            other.b_enc[most] = -100
        write(other, *args, **options)

    monkeypatch.setattr(saelens, "export", altered)
    found = reconstructions(sae, tmp_path, h)
    touched = int(((code.index == most).any(dim=1) & positive).sum())
    assert len(found.other) == touched > 0 and len(found.same) == found.positive - touched > 0
    assert float(found.other.min()) > 1e-3 > 1e-5 > float(found.same.max())


def test_run_evals_and_our_evaluation_agree(tmp_path: Path) -> None:
    from tests.interop.saelens_agreement import ours, theirs

    ids = torch.randint(1, VOCABULARY, (16, 24), generator=torch_generator(0, "ids"))
    ids[:, 0] = 0
    path = tiny_model_json(tmp_path)
    model = LanguageModel.load(path)
    h = model.residual(ids[:, 1:], [1])[1].reshape(-1, WIDTH)
    settings = {"batch_size": 32, "norm_limit": None, "learning_rate": 3e-3}
    sae = expander_sae.Trainer(h, n=64, d=6, k=8, recipe="standard", **settings).fit(300)
    mine = ours(sae, model, ids, 1, special=0)
    found = theirs(sae, tmp_path / "out", Path(model.record["path"]), ids, "model.layers.1", special=0)
    # The model is random, so that a reconstruction may predict better than it does.
    assert abs(mine["ce_loss_score"] - 1) > 0.01 and 0.1 < mine["explained_variance"] < 0.999
    for name in ("ce_loss_score", "explained_variance", "l0", "cossim"):
        assert found["compact"][name] == pytest.approx(mine[name], abs=1e-3), name
        assert found["dense"][name] == pytest.approx(mine[name], abs=1e-3), name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_a_topk_of_theirs_selects_as_it_does_there(
    rescale: bool, subtract: bool, dtype: str, tmp_path: Path
) -> None:
    """Also with decoder columns of other norms than 1, and with weights that its loader rounds."""
    config = sae_lens.TopKSAEConfig(
        d_in=M, d_sae=N, k=K, apply_b_dec_to_input=subtract, rescale_acts_by_decoder_norm=rescale
    )
    made, h = sae_lens.TopKSAE(config), activations()
    generator = torch_generator(0, "theirs")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(generator=generator)
        made.W_dec.mul_(torch.linspace(0.2, 5.0, N)[:, None])
        made.b_enc.sub_(9.0)
    made.cfg.dtype = dtype
    made.save_model(tmp_path)
    theirs = sae_lens.SAE.load_from_disk(tmp_path).to(torch.float32)
    theirs.cfg.dtype = theirs.dtype = torch.float32
    sae = expander_sae.load(tmp_path)
    with torch.no_grad():
        code, rebuilt = theirs.encode(h), theirs(h)
    positive = (code > 0).sum(dim=1) == K
    assert 0 < int(positive.sum()) < len(h)
    ours = sae.encode(h)
    assert torch.equal(torch.zeros(len(h), N + 1).scatter(1, ours.index + 1, 1.0)[:, 1:] > 0, code > 0)
    assert torch.allclose(sae.decode(ours), rebuilt, atol=1e-3)


def test_every_key_that_saelens_writes_is_known() -> None:
    from sae_lens.loading.pretrained_sae_loaders import LLM_METADATA_KEYS

    known = foreign_keys.SAELENS
    names = known.applied | known.harmless | known.only.keys()
    for kind in (sae_lens.TopKSAEConfig, sae_lens.TopKTrainingSAEConfig):
        assert kind(d_in=M, d_sae=N).to_dict().keys() <= names
    assert LLM_METADATA_KEYS <= foreign_keys.SAELENS_PLACE


def test_factors_of_finetuning_are_refused_by_the_loader_that_does_not_know_them(tmp_path: Path) -> None:
    """SAELens 6 loads no such folder, so that ours, which applies them, cannot be compared with it."""
    from safetensors.torch import load_file, save_file

    saelens.export(small("dense"), tmp_path, say=False)
    path = tmp_path / "sae_weights.safetensors"
    save_file(load_file(path) | {"finetuning_scaling_factor": torch.ones(N)}, path)
    with pytest.raises(RuntimeError, match="finetuning_scaling_factor"):
        sae_lens.SAE.load_from_disk(tmp_path)
    with pytest.raises(UserError, match="tensor finetuning_scaling_factor, expected"):
        expander_sae.load(tmp_path)
