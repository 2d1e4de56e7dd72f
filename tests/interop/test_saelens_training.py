"""Trained by SAELens's own runner and trainer. `make test-saelens` installs it apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import expander_sae
from expander_sae.activations.language_model import LanguageModel
from expander_sae.errors import UserError
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import Recipe
from expander_sae.training.normalisation import KeptTokens, normalisation
from expander_sae.training.session import Cadence, Session
from expander_sae.training.tensor_pool import TensorPool
from tests.docs.blocks import ROOT
from tests.interop.problems import M, N, activations
from tests.tiny_models import VOCABULARY, WIDTH, tiny_model_json

pytestmark = pytest.mark.saelens

sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed: make test-saelens")

SMALLER = {
    "d_in=768, d_sae=24576, k=64, d=30": "d_in=16, d_sae=64, k=8, d=6",
    'model_name="gpt2", hook_name="blocks.8.hook_resid_post", context_size=128': (
        'model_name=model, hook_name="model.layers.1", context_size=24'
    ),
    'dataset_path="monology/pile-uncopyrighted", training_tokens=10_000_000': (
        "train_batch_size_tokens=64, training_tokens=64 * 100, **more"
    ),
    'output_path="out"': "output_path=out",
    "Runner(cfg)": "Runner(cfg, override_dataset=data)",
    'load_from_disk("out")': "load_from_disk(out)",
    "EvalConfig()": "EvalConfig(**evals)",
}
"""What the documentation's script says → what stands for it here: a tiny model, texts that are at hand."""


def script() -> str:
    """The script of docs/howto/saelens.md, made small."""
    found = (ROOT / "docs/howto/saelens.md").read_text(encoding="utf-8")
    text = found.partition("```python\n")[2].partition("```")[0]
    assert len(text.strip().splitlines()) <= 15
    for shown, here in SMALLER.items():
        assert shown in text, shown
        text = text.replace(shown, here)
    return text


@pytest.fixture(scope="module")
def plugin() -> Any:
    import expander_sae.interop.saelens_training as plugin

    return plugin


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model on disk, documents as tokens, and what keeps the runner small and offline."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("runner")
    model = LanguageModel.load(tiny_model_json(folder)).record["path"]
    ids = torch.randint(1, VOCABULARY, (64, 24), generator=torch_generator(0, "ids"))
    more = {"dataset_path": "none", "model_class_name": "AutoModelForCausalLM", "is_dataset_tokenized": True}
    more |= {"streaming": False, "prepend_bos": False}
    more |= {"store_batch_size_prompts": 8, "n_batches_in_buffer": 8, "n_checkpoints": 1}
    more |= {"checkpoint_path": str(folder / "checkpoints"), "dead_feature_window": 20}
    more |= {"logger": sae_lens.LoggingConfig(log_to_wandb=False)}
    evals = {"batch_size_prompts": 4, "n_eval_reconstruction_batches": 2, "compute_ce_loss": True}
    evals |= {"n_eval_sparsity_variance_batches": 2, "compute_sparsity_metrics": True}
    evals |= {"compute_variance_metrics": True}
    data = Dataset.from_dict({"tokens": ids.tolist()})
    return {"model": model, "data": data, "more": more, "evals": evals, "out": str(folder / "out")}


def test_fifteen_lines_train_and_evaluate(world: dict[str, Any]) -> None:
    names = dict(world)
    exec(script(), names)
    flat = {key: value for group in names["metrics"].values() for key, value in group.items()}
    assert flat["l0"] == 8 and 0.5 < flat["explained_variance"] < 1 and "ce_loss_score" in flat
    h = 3 * torch.randn(500, WIDTH, generator=torch_generator(1, "h"))
    ours = expander_sae.load(world["out"])
    assert ours.mask is not None and ours.mask.recipe.family == "expander" and ours.k == 8
    with torch.no_grad():
        trained = names["runner"].sae
        for theirs in (names["sae"], trained):
            assert torch.allclose(theirs(h), ours.decode(ours.encode(h)), atol=1e-4)
    assert not trained.W_dec.requires_grad and trained.values.shape == (64, 6)
    checkpoints = sorted(Path(world["more"]["checkpoint_path"]).glob("*/*/sae_weights.safetensors"))
    assert checkpoints, "and its checkpoints go on from there"
    again = sae_lens.TrainingSAE.load_from_disk(checkpoints[0].parent)
    assert again.values.shape == (64, 6) and not torch.equal(again.values, trained.values)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("saves_dense", [False, True])
@pytest.mark.parametrize("encoder", ["tied", "warm_tied", "independent"])
@pytest.mark.parametrize("name", ["ExpanderTrainingSAEConfig", "ExpanderBatchTopKTrainingSAEConfig"])
def test_what_is_saved_is_what_was_trained(
    name: str, encoder: str, saves_dense: bool, scaled: bool, tmp_path: Path, plugin: Any
) -> None:
    """Also where SAELens has scaled the activations, and folds the factor in at the end."""
    norm = "expected_average_only_in" if scaled else "none"
    sizes = {"d_in": M, "d_sae": N, "k": 4, "d": 5, "encoder": encoder, "saves_dense": saves_dense}
    sae = built(plugin, getattr(plugin, name)(**sizes, normalize_activations=norm))
    fitted = trainer(sae, [7 * batch for batch in batches(30)])
    fitted.fit()
    assert fitted.losses[-1] < fitted.losses[0]
    sae.save_inference_model(tmp_path)
    theirs, ours = sae_lens.SAE.load_from_disk(tmp_path), expander_sae.load(tmp_path)
    assert (type(theirs).__module__.partition(".")[0] == "sae_lens") == saves_dense
    assert ours.mask is not None and ours.mask.sha256 == sae.mask().sha256 and ours.encoder_kind == encoder
    h = 7 * activations(200)
    with torch.no_grad():
        rebuilt = ours.decode(ours.encode(h))
        whole = theirs(h)
        # SAELens's own TopK applies a ReLU after it.
        kept = (ours.encode(h).value > 0).all(dim=1) if saves_dense and "Batch" not in name else slice(None)
        assert torch.allclose(whole[kept], rebuilt[kept], rtol=1e-4, atol=1e-3)
        if "Batch" in name:
            threshold = float(sae.topk_threshold)
            scores = sae.scores(h)
            assert threshold > 0 and torch.allclose(theirs.threshold, torch.tensor(threshold))
            assert torch.equal(theirs.encode(h) != 0, scores > threshold)
        else:
            assert torch.allclose(sae(h), rebuilt, rtol=1e-4, atol=1e-3)


def built(plugin: Any, config: Any) -> Any:
    return sae_lens.TrainingSAE.from_dict(config.to_dict())


def batches(steps: int, size: int = 64) -> list[torch.Tensor]:
    """What our own loop draws with the seed 0."""
    stream, h = torch_generator(0, "batches"), activations(TOKENS)
    return [h[torch.randint(TOKENS, (size,), generator=stream)] for _ in range(steps)]


TOKENS = 1000


def trainer(sae: Any, data: list[torch.Tensor], **settings: Any) -> Any:
    """SAELens's trainer on these batches at one learning rate, and with a list of its losses."""
    from sae_lens.training.sae_trainer import SAETrainer

    settings = {"dead_feature_window": 10**6, "lr": 3e-3, **settings}
    config = sae_lens.config.SAETrainerConfig(
        n_checkpoints=0, checkpoint_path=None, save_final_checkpoint=False, device="cpu", autocast=False,
        total_training_samples=sum(map(len, data)), lr_end=settings["lr"], lr_scheduler_name="constant",
        lr_warm_up_steps=0, adam_beta1=0.9, adam_beta2=0.999, lr_decay_steps=0, n_restart_cycles=1,
        train_batch_size_samples=len(data[0]), feature_sampling_window=10**6,
        logger=sae_lens.LoggingConfig(log_to_wandb=False), n_batches_for_norm_estimate=3, **settings,
    )  # fmt: skip
    made = SAETrainer(config, sae, iter([*data[:3], *data] if scaled(sae) else data))
    made.losses = []
    step = made._train_step

    def noted(**keywords: Any) -> Any:
        output = step(**keywords)
        made.losses.append(float(output.loss.detach()))
        return output

    made._train_step = noted
    return made


def scaled(sae: Any) -> bool:
    return bool(sae.cfg.normalize_activations == "expected_average_only_in")


@pytest.mark.parametrize("support", ["expander", "bernoulli"])
@pytest.mark.parametrize("encoder", ["tied", "warm_tied", "independent"])
def test_fifty_losses_are_those_of_our_loop(encoder: str, support: str, plugin: Any) -> None:
    steps, rate = 50, 3e-3
    sizes = {"d_in": M, "d_sae": N, "k": 4, "d": 5, "encoder": encoder, "support": support}
    sae = built(plugin, plugin.ExpanderTrainingSAEConfig(**sizes))
    theirs = trainer(sae, batches(steps), lr=rate)
    theirs.fit()
    recipe = Recipe(
        norm_limit=None, scale_to_sqrt_m=False, start_at_mean=False, resample_every=10**6, batch_size=64,
        learning_rate=rate, learning_rate_end=rate,
    )  # fmt: skip
    pool = TensorPool(activations(TOKENS))
    tokens = KeptTokens(pool.activations, normalisation(pool, pool.tokens, recipe))
    session = Session(tokens, recipe, steps, Cadence(log_every=1))
    training = session.start(SparseAutoencoder(M, N, 4, sae.mask(), encoder), 0)
    session.train([training])
    ours = [row["loss"] for row in training.state.rows]
    assert len(ours) == steps and ours[-1] < 0.8 * ours[0]
    assert theirs.losses == pytest.approx(ours, rel=1e-5)
    assert torch.allclose(sae.b_dec, training.state.autoencoder.b_dec, atol=1e-5)


@torch.no_grad()
def written_out(sae: Any, config: Any, kind: Any) -> Any:
    """SAELens's own autoencoder with our matrices, whose selection sees no decoder norms."""
    made = kind(config)
    for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
        getattr(made, name).copy_(getattr(sae, name))
    return made


@pytest.mark.parametrize("dead", [0, 3, 30])
@pytest.mark.parametrize("batch", [False, True])
def test_losses_and_gradients_are_those_of_saelens(batch: bool, dead: int, plugin: Any) -> None:
    """With dead features, whose loss looks at half the width, too."""
    kind = plugin.ExpanderBatchTopKTrainingSAEConfig if batch else plugin.ExpanderTrainingSAEConfig
    sae = built(plugin, kind(d_in=M, d_sae=N, k=4, d=5, encoder="independent"))
    with torch.no_grad():
        sae.b_enc.normal_(generator=torch_generator(1, "b_enc"))
        # SAELens's TopK drops what is not positive.
        sae.b_enc.add_(20)
    name = "BatchTopK" if batch else "TopK"
    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(
        d_in=M, d_sae=N, k=4, rescale_acts_by_decoder_norm=False
    )
    theirs = written_out(sae, config, getattr(sae_lens, f"{name}TrainingSAE"))
    mask = torch.zeros(N, dtype=torch.bool)
    mask[:dead] = True
    given = sae_lens.saes.sae.TrainStepInput(activations(64), {}, mask, 0, False)
    outputs = [one.training_forward_pass(given) for one in (sae, theirs)]
    ours, expected = outputs
    assert ours.losses.keys() == expected.losses.keys()
    for part in ours.losses:
        assert float(ours.losses[part]) == pytest.approx(float(expected.losses[part]), rel=1e-5, abs=1e-6)
    assert (float(ours.losses["auxiliary_reconstruction_loss"]) > 0) == (dead > 0)
    assert torch.allclose(ours.feature_acts.to_dense(), expected.feature_acts, rtol=1e-4, atol=1e-4)
    for output in outputs:
        output.loss.backward()
    rows = torch.from_numpy(sae.mask().rows).long()
    for ours_, theirs_ in ((sae.b_enc, theirs.b_enc), (sae.b_dec, theirs.b_dec)):
        assert torch.allclose(ours_.grad, theirs_.grad, rtol=1e-3, atol=1e-2)
    encoder = theirs.W_enc.grad.T.gather(1, rows)
    assert torch.allclose(sae.encoder_values.grad, encoder, rtol=1e-3, atol=1e-2)
    decoder = theirs.W_dec.grad.gather(1, rows)
    unit = sae.values.detach() / sae.values.detach().norm(dim=1, keepdim=True)
    through = (decoder - unit * (unit * decoder).sum(1, keepdim=True)) / sae.values.norm(dim=1, keepdim=True)
    assert torch.allclose(sae.values.grad, through, rtol=1e-3, atol=1e-2)
    if batch:
        assert float(sae.topk_threshold) == pytest.approx(float(theirs.topk_threshold))


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("name", ["ExpanderTrainingSAEConfig", "ExpanderBatchTopKTrainingSAEConfig"])
def test_memory_is_that_of_the_columns(name: str, plugin: Any) -> None:
    m, n, d, batch = 256, 4096, 16, 512
    sae = built(plugin, getattr(plugin, name)(d_in=m, d_sae=n, k=8, d=d))
    stream = torch_generator(0, "memory")
    data = [torch.randn(batch, m, generator=stream) for _ in range(3)]
    theirs = trainer(sae, data, dead_feature_window=1)
    held = []
    step = theirs.optimizer.step

    def counted(*args: Any, **keywords: Any) -> Any:
        found = step(*args, **keywords)
        tensors = [part for one in sae.parameters() for part in (one, one.grad)]
        tensors += [part for state in theirs.optimizer.state.values() for part in state.values()]
        held.append(sum(part.nbytes for part in tensors))
        return found

    theirs.optimizer.step = counted
    forward = sae.training_forward_pass
    with _Largest() as made:
        output = forward(sae_lens.saes.sae.TrainStepInput(data[0], {}, torch.ones(n).bool(), 0, False))
        output.loss.backward()
    assert made.largest < 4 * m * n / 2, "nothing is [m, n]"
    assert made.largest < 4 * batch * n / 2, "nor [B, n]"
    theirs.fit()
    assert len(held) == 3 and max(held) < 1.3 * d * n * 16


def test_what_cannot_be_trained_is_named(plugin: Any) -> None:
    sizes = {"d_in": M, "d_sae": N, "k": 4, "d": 5}
    for wrong, message in (
        ({"encoder": "full"}, "encoder: found 'full', expected one of tied, warm_tied, independent"),
        ({"support": "dense"}, "mask family: found 'dense'"),
        ({"d": M + 1}, f"d: found {M + 1}, expected 1 to d_in = {M}"),
        ({"k": 4.5}, r"k: found 4\.5, expected a whole number"),
        ({"k": N + 1}, f"k: found {N + 1}, expected above 0"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations: found 'layer_norm'"),
        ({"normalize_activations": "covariance_whitening"}, "cannot be folded into values on a mask"),
    ):
        with pytest.raises(UserError, match=message):
            plugin.ExpanderTrainingSAEConfig(**sizes | wrong)


def test_several_are_trained_in_one_pass(world: dict[str, Any], plugin: Any, tmp_path: Path) -> None:
    from sae_lens import multi_sae_training_runner as multi

    kept = (
        "dataset_path",
        "model_class_name",
        "streaming",
        "prepend_bos",
        "store_batch_size_prompts",
        "n_batches_in_buffer",
    )
    more = {key: world["more"][key] for key in (*kept, "logger")}
    saes = {
        "first": plugin.ExpanderTrainingSAEConfig(d_in=WIDTH, d_sae=64, k=8, d=6),
        "second": plugin.ExpanderBatchTopKTrainingSAEConfig(d_in=WIDTH, d_sae=32, k=4.5, d=4),
    }
    hooks = {"first": "model.layers.1", "second": "model.layers.2"}
    config = multi.MultiSAETrainingRunnerConfig(
        saes=saes, hook_names=hooks, model_name=world["model"],
        context_size=24, training_tokens=64 * 20, train_batch_size_tokens=64, output_path=str(tmp_path),
        **more,
    )  # fmt: skip
    found = multi.MultiSAETrainingRunner(config, override_dataset=world["data"]).run()
    assert {name: tuple(sae.values.shape) for name, sae in found.items()} == {
        "first": (64, 6),
        "second": (32, 4),
    }
