"""Autoencoders that SAELens, sparsify and dictionary_learning train themselves, and how their imports agree.

    make test-saelens  # installs them; then, on a finished run's pools:
    PYTHONPATH=.venv/saelens python -m tests.interop.trained_elsewhere results/…/pool/train.json \
        results/…/pool/test.json

Prints the table of docs/formats.md: the largest ‖ĥ − ĥ′‖/‖h‖ of our and their reconstructions, and how far a
number on the page of `expander-sae frontier` is at most from the same of the library's own code and ĥ.

Activations of a language model have what those of a normal distribution do not: a mean that is most of their
length, and first tokens of documents that are a hundred times as long as others. The libraries train without
these tokens, as most people do, and are compared on all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import Tensor

import expander_sae
from expander_sae.activations.pool import Pool
from expander_sae.cli.main import main as command
from expander_sae.rng import torch_generator

Run = Callable[[Tensor], tuple[Tensor, Tensor]]
"""h [T, m] → (code [T, n], ĥ [T, m]), by the library that trained it."""


@dataclass(frozen=True, eq=False)
class Training:
    """What the libraries train on, and for how long: tokens [N, m] of usual norms."""

    tokens: Tensor
    n: int
    k: int
    steps: int
    batch: int = 256
    rate: float = 3e-3

    @classmethod
    def on(cls, activations: Tensor, n: int, k: int, steps: int) -> Training:
        norms = activations.norm(dim=1)
        return cls(activations[norms < 10 * norms.median()], n, k, steps)

    @property
    def m(self) -> int:
        return self.tokens.shape[1]

    def batches(self, count: int) -> Iterator[Tensor]:
        stream = torch_generator(0, "trained elsewhere")
        for _ in range(count):
            yield self.tokens[torch.randint(len(self.tokens), (self.batch,), generator=stream)]


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The same first weights each time, and the generator of others left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


SAELENS: dict[str, dict[str, Any]] = {
    "standard": {"l1_coefficient": 2.0},
    "gated": {"l1_coefficient": 2.0},
    "jumprelu": {"l0_coefficient": 3.0, "jumprelu_init_threshold": 0.1, "jumprelu_bandwidth": 0.5},
    "topk": {},
    "batchtopk": {},
    "matryoshka_batchtopk": {},
}
"""Architecture → settings of its training; k and widths are added."""


def saelens(name: str, training: Training, folder: Path, **more: Any) -> Run:
    """An architecture of SAELens, trained by its trainer, with its scaling of activations folded in."""
    import sae_lens
    from sae_lens.training.sae_trainer import SAETrainer

    size = {"k": training.k} if "topk" in name else {}
    widths = {"matryoshka_widths": [training.n // 4, training.n]} if "matryoshka" in name else {}
    made, config = sae_lens.registry.get_sae_training_class(name)
    scaling = {"normalize_activations": "expected_average_only_in"}
    settings = {**SAELENS[name], **size, **widths, **scaling, **more}
    with _seeded():
        sae: Any = made(config(d_in=training.m, d_sae=training.n, **settings))
    with torch.no_grad():  # at the mean of the activations as they are scaled, as is usual
        mean = training.tokens.mean(dim=0) * training.m**0.5 / training.tokens.norm(dim=1).mean()
        sae.b_dec.copy_(mean)
    told = sae_lens.config.SAETrainerConfig(
        total_training_samples=training.steps * training.batch, train_batch_size_samples=training.batch,
        lr=training.rate, lr_end=training.rate, n_batches_for_norm_estimate=8,
    )  # fmt: skip
    SAETrainer(told, sae, training.batches(training.steps + 8)).fit()
    sae.save_inference_model(folder)
    loaded = sae_lens.SAE.load_from_disk(folder)
    return lambda h: (loaded.encode(h), loaded(h))


def gemma_scope(training: Training, path: Path) -> Run:
    """A file as Gemma Scope publishes them: a JumpReLU of SAELens that encodes h and not h − b_dec."""
    with tempfile.TemporaryDirectory() as folder:
        run = saelens("jumprelu", training, Path(folder), apply_b_dec_to_input=False)
        arrays = load_file(Path(folder) / "sae_weights.safetensors")
    np.savez(path, **arrays)
    return run


def sparsify(training: Training, folder: Path) -> Run:
    """A SparseCoder on its own loss, which starts at the mean as in sparsify's trainer.

    It decodes in the plain way here: where Triton is installed, a CPU would have to interpret a program.
    """
    from sparsify import SparseCoder, SparseCoderConfig, sparse_coder, utils

    sparse_coder.decoder_impl = utils.eager_decode
    with _seeded():
        coder = SparseCoder(training.m, SparseCoderConfig(num_latents=training.n, k=training.k))
    coder.b_dec.data = training.tokens.mean(dim=0)
    adam = torch.optim.Adam(coder.parameters(), lr=training.rate)
    for h in training.batches(training.steps):
        coder.set_decoder_norm_to_unit_norm()
        coder(h).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()
    coder.save_to_disk(folder)
    loaded = SparseCoder.load_from_disk(folder)

    def run(h: Tensor) -> tuple[Tensor, Tensor]:
        code = loaded.encode(h)
        dense = torch.zeros(len(h), training.n).scatter(1, code.top_indices, code.top_acts)
        return dense, loaded.decode(code.top_acts, code.top_indices)

    return run


def dictionary_learning(training: Training, folder: Path) -> dict[str, tuple[Path, Run]]:
    """Name → (folder, how it runs): an autoencoder of each of its trainers, in one pass of its loop."""
    from dictionary_learning.training import trainSAE
    from dictionary_learning.utils import load_dictionary

    with contextlib.redirect_stdout(io.StringIO()), _seeded():
        trainSAE(
            _Batches(training), dictionary_learning_trainers(training), training.steps,
            save_dir=str(folder), normalize_activations=True, device="cpu",
        )  # fmt: skip
    made: dict[str, tuple[Path, Run]] = {}
    for path in sorted(folder.iterdir()):
        loaded, config = load_dictionary(str(path), "cpu")

        def run(h: Tensor, loaded: Any = loaded) -> tuple[Tensor, Tensor]:
            return loaded.encode(h), loaded(h)

        made[config["trainer"]["trainer_class"].removesuffix("Trainer")] = (path, run)
    return made


def dictionary_learning_trainers(training: Training) -> list[dict[str, Any]]:
    from dictionary_learning.trainers import batch_top_k, gdm, jumprelu, matryoshka_batch_top_k, standard
    from dictionary_learning.trainers import top_k as plain

    both = {"steps": training.steps, "activation_dim": training.m, "dict_size": training.n, "seed": 0}
    both |= {"layer": 0, "lm_name": "", "lr": training.rate, "warmup_steps": 5, "device": "cpu"}
    relu = {**both, "sparsity_warmup_steps": 5}
    top = {**both, "k": training.k, "threshold_start_step": training.steps // 2}
    groups = {"group_fractions": [0.25, 0.75]}
    return [
        {"trainer": standard.StandardTrainer, "l1_penalty": 0.02, **relu},
        {"trainer": standard.StandardTrainerAprilUpdate, "l1_penalty": 0.02, **relu},
        {"trainer": gdm.GatedSAETrainer, "l1_penalty": 0.02, **relu},
        {"trainer": jumprelu.JumpReluTrainer, "target_l0": float(training.k), **relu},
        {"trainer": plain.TopKTrainer, **top},
        {"trainer": batch_top_k.BatchTopKTrainer, **top},
        {"trainer": matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer, **groups, **top},
    ]


class _Batches:
    """Batches that can be read several times, and changed in place by who reads them."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def __iter__(self) -> Iterator[Tensor]:
        return self.training.batches(self.training.steps)


def everything(training: Training, folder: Path) -> Iterator[tuple[str, Path, Run]]:
    """(name, what was saved, how it runs there) of each architecture of each library."""
    for name in SAELENS:
        yield f"SAELens {name}", folder / name, saelens(name, training, folder / name)
    yield "Gemma Scope npz", folder / "params.npz", gemma_scope(training, folder / "params.npz")
    yield "sparsify", folder / "sparsify", sparsify(training, folder / "sparsify")
    for name, (path, run) in dictionary_learning(training, folder / "dictionary_learning").items():
        yield f"dictionary_learning {name}", path, run


@dataclass(frozen=True)
class Agreement:
    """An import beside its own library, on `tokens` tokens.

    same: how many of them have the same features; ties: how many of the others differ by near ties alone.
    largest: ‖ĥ − ĥ′‖/‖h‖ of those that have the same, the largest; of_long: the largest of tokens that are
    ten times as long as half of all.
    """

    tokens: int
    same: int
    ties: int
    largest: float
    of_long: float


@torch.no_grad()
def agreement(path: Path, run: Run, h: Tensor) -> Agreement:
    """Import what was saved, and compare on activations [N, m]."""
    sae = expander_sae.load(path)
    code, rebuilt = run(h)
    ours = sae.encode(h)
    held = torch.zeros(len(h), sae.n + 1).scatter(1, ours.index + 1, 1.0)[:, 1:] > 0
    differ = held != (code != 0)
    same = ~differ.any(dim=1)
    norms = h.norm(dim=1)
    apart = (sae.decode(ours) - rebuilt).norm(dim=1) / norms
    long = same & (norms > 10 * norms.median())
    ties = 0 if same.all() else int(near_ties(run, h[~same], differ[~same]).sum())
    return Agreement(len(h), int(same.sum()), ties, float(apart[same].max()), float(apart[long].max()))


@torch.no_grad()
def near_ties(run: Run, h: Tensor, features: Tensor) -> Tensor:
    """bool [T]: within 10⁻⁵ of h the library itself has these features [T, n] here, and there not."""
    stream, held = torch_generator(0, "near ties"), []
    for _ in range(64):
        step = torch.nn.functional.normalize(torch.randn(h.shape, generator=stream), dim=1)
        held.append(run(h + 1e-5 * h.norm(dim=1, keepdim=True) * step)[0] != 0)
    found = torch.stack(held)
    either = found.any(dim=0) & ~found.all(dim=0)
    return (either | ~features).all(dim=1)


@torch.no_grad()
def numbers(run: Run, h: Tensor) -> dict[str, float]:
    """What `evaluate` and the page of `frontier` say, from the code and ĥ of the library itself."""
    code, rebuilt = run(h)
    h, rebuilt, fires = h.double(), rebuilt.double(), code != 0
    error, spread = (h - rebuilt).square().sum(dim=1), (h - h.mean(dim=0)).square().sum()
    return {
        "relative_error": float((error.sqrt() / h.norm(dim=1)).mean()),
        "explained_variance": float(1 - error.sum() / spread),
        "cosine": float(torch.cosine_similarity(h, rebuilt).mean()),
        "l0": float(fires.sum(dim=1).double().mean()),
        "dead_fraction": float((~fires.any(dim=0)).double().mean()),
        "frequent_fraction": float((fires.sum(dim=0) > 0.1 * len(h)).double().mean()),
    }


def frontier(paths: list[Path], h: Tensor, folder: Path, *more: str) -> list[dict[str, Any]]:
    """What `expander-sae frontier` says of each, on activations [N, m]."""
    np.save(folder / "h.npy", h.numpy())
    out = io.StringIO()
    where = ("--activations", f"{folder / 'h.npy'}", "--out", f"{folder / 'page.png'}", "--json")
    with contextlib.redirect_stdout(out):
        assert command(["frontier", *map(str, paths), *where, *more]) == 0
    return list(json.loads(out.getvalue())["autoencoders"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("train", type=Path, help="manifest of the pool that is trained on")
    parser.add_argument("test", type=Path, help="manifest of the pool whose first tokens are compared")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--n", type=int, default=1152)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    train, test = (Pool.open(path).activations for path in (options.train, options.test))
    training = Training.on(torch.from_numpy(np.array(train)), options.n, options.k, options.steps)
    h = torch.from_numpy(np.array(test[: options.tokens]))
    norms = h.norm(dim=1)
    usual = h[norms < 10 * norms.median()]
    print(f"‖h‖: half below {norms.median():.1f}, {len(h) - len(usual)} of {len(h)} above ten times that")
    print(
        f"The largest is {norms.max():.1f}; the mean of the others has length {usual.mean(dim=0).norm():.1f}."
    )
    print("| autoencoder | l0 | relative error | same features | ties | largest | of long | frontier |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for told, path, run in everything(training, Path(name)):
            found, theirs = agreement(path, run, h), numbers(run, h)
            (page,) = frontier([path], h, Path(name), "--inference", "encoder")
            ours, evaluated = page["metrics"]["encoder"], expander_sae.evaluate(expander_sae.load(path), h)
            assert evaluated.pop("encoded_share") == 1 and {key: ours[key] for key in evaluated} == evaluated
            apart = max(abs(ours[key] - value) for key, value in theirs.items())
            of = f"{found.same} | {found.ties} | {found.largest:.1e} | {found.of_long:.1e} | {apart:.1e}"
            print(f"| {told} | {theirs['l0']:.1f} | {theirs['relative_error']:.4f} | {of} |", flush=True)


if __name__ == "__main__":
    main()
