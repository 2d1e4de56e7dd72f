"""The same autoencoder measured by SAELens and by us, on the same tokens. Needs sae-lens.

    python -m tests.interop.saelens_agreement results/MODEL/model.json results/…/pool/test.json RUN_FOLDER…

Every sequence begins with a special token that both leave out: SAELens by its id, we by its row. Before that
the reconstructions of the pool's tokens are compared, those of the dense folder loaded by SAELens with ours.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import expander_sae
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.evaluation.cross_entropy import recovered, spliced_sums
from expander_sae.interop import saelens

BATCH = 8


@dataclass
class Rows:
    """Sequences [S, T] in the shape of a pool."""

    path: str
    m: int
    activations: np.ndarray
    document: np.ndarray
    token_id: np.ndarray


def rows(ids: Tensor, hidden: Tensor) -> Rows:
    sequences, length = ids.shape
    document = np.repeat(np.arange(sequences, dtype=np.int32), length)
    flat = hidden.reshape(-1, hidden.shape[-1]).numpy()
    return Rows("sequences", hidden.shape[-1], flat, document, ids.reshape(-1).numpy().astype(np.int32))


@dataclass(frozen=True)
class Compared:
    """SAELens's reconstruction of a dense folder against ours, token by token.

    passed: tokens above the norm limit, which we pass through. positive: how many of the others have k
    positive kept values. same: ‖Δ‖/‖h‖ of those of them where both select the same features; other: of the
    rest of them, near ties.
    """

    tokens: int
    passed: int
    positive: int
    same: Tensor
    other: Tensor

    def text(self) -> str:
        inside = self.tokens - self.passed
        lines = [
            f"{self.passed} of {self.tokens} tokens ({self.passed / self.tokens:.2%}) exceed norm_limit",
            f"{self.positive} of the {inside} others ({self.positive / inside:.2%}) keep k positive values",
        ]
        for told, part in (("the same features", self.same), ("another feature", self.other)):
            line = f"in {len(part)} of these SAELens selects {told}"
            if len(part):
                line += f": |difference|/|h| median {part.median():.1e}, largest {part.max():.1e}"
            lines.append(line)
        return "\n".join(f"  {line}" for line in lines)


@torch.no_grad()
def reconstructions(sae: expander_sae.SparseAutoencoder, folder: Path, h: Tensor) -> Compared:
    """Export a dense folder, load it with SAELens, and compare on activations [N, m]."""
    import sae_lens

    saelens.export(sae, folder, say=False)
    loaded = sae_lens.SAE.load_from_disk(folder)
    positive, same, other = 0, [], []
    inside = h[sae.encoded(h)]
    for part in inside.split(512):
        code = sae.encode(part)
        kept = (code.value > 0).all(dim=1)
        positive += int(kept.sum())
        theirs = loaded.encode(part)
        selected = torch.zeros_like(theirs, dtype=torch.bool).scatter_(1, code.index, True)
        agree = ((theirs != 0) == selected).all(dim=1)
        difference = (loaded.decode(theirs) - sae.decode(code)).norm(dim=1) / part.norm(dim=1)
        same.append(difference[kept & agree])
        other.append(difference[kept & ~agree])
    return Compared(len(h), len(h) - len(inside), positive, torch.cat(same), torch.cat(other))


def ours(
    sae: expander_sae.SparseAutoencoder, model: LanguageModel, ids: Tensor, layer: int, special: int
) -> dict[str, float]:
    """Our metrics under SAELens's names; positions with the special token are spliced as they are."""
    hidden = residual(model, ids, layer)
    kept = ids != special
    states = (torch.zeros_like(hidden), spliced(sae, hidden, kept), hidden)
    # What the special token at the front predicts is left out.
    zero, rebuilt, clean = (entropy(model, ids, part, layer, skip_front=True) for part in states)
    found = {"ce_loss_score": recovered(zero, rebuilt, clean)} | of_tokens(sae, hidden[kept])
    return found | {"over_norm_limit": int((~sae.encoded(hidden[kept])).sum())}


def residual(model: LanguageModel, ids: Tensor, layer: int) -> Tensor:
    """float32 [S, T, m]: the layer's output."""
    return torch.cat([model.residual(part, [layer])[layer].cpu() for part in ids.split(BATCH)])


def of_tokens(sae: expander_sae.SparseAutoencoder, hidden: Tensor) -> dict[str, float]:
    """Metrics of activations [N, m], all of which are encoded, under SAELens's names."""
    found = expander_sae.evaluate(sae, hidden, every_token=True)
    names = {"explained_variance": "explained_variance", "l0": "l0", "cossim": "cosine"}
    return {theirs: found[mine] for theirs, mine in names.items()}


def spliced(sae: expander_sae.SparseAutoencoder, hidden: Tensor, kept: Tensor) -> Tensor:
    """`hidden` [S, T, m] with the reconstructions of the tokens `kept`, bool [S, T]."""
    rebuilt = hidden.clone()
    rebuilt[kept] = sae.decode(expander_sae.infer(sae, hidden[kept], "encoder"))
    return rebuilt


def entropy(model: LanguageModel, ids: Tensor, states: Tensor, layer: int, skip_front: bool) -> float:
    """Mean loss of next tokens, with or without what each sequence's first token predicts."""
    total, count = _sums(model, ids, states, layer)
    if skip_front:  # the losses of sequences of two tokens
        first, places = _sums(model, ids[:, :2], states[:, :2], layer)
        total, count = total - first, count - places
    return total / count


def _sums(model: LanguageModel, ids: Tensor, states: Tensor, layer: int) -> tuple[float, int]:
    pool: Any = rows(ids, states)
    replacement = torch.from_numpy(np.array(pool.activations))
    _, sums, counts = spliced_sums(model, pool, replacement, layer, len(ids))
    return float(sums.sum()), int(counts.sum())


def theirs(
    sae: expander_sae.SparseAutoencoder,
    folder: Path,
    model_folder: Path,
    ids: Tensor,
    hook: str,
    special: int,
) -> dict[str, dict[str, float]]:
    """SAELens's run_evals on the dense and the compact export."""
    import sae_lens
    from datasets import Dataset
    from sae_lens.evals import EvalConfig, run_evals
    from sae_lens.load_model import load_model
    from sae_lens.training.activation_scaler import ActivationScaler

    import expander_sae.interop.saelens_plugin  # noqa: F401, registers the compact architecture

    model = load_model("AutoModelForCausalLM", str(model_folder), device="cpu", hook_names=[hook])
    config = EvalConfig(
        batch_size_prompts=BATCH,
        n_eval_reconstruction_batches=len(ids) // BATCH,
        n_eval_sparsity_variance_batches=len(ids) // BATCH,
        compute_ce_loss=True,
        compute_sparsity_metrics=True,
        compute_variance_metrics=True,
    )
    found = {}
    for name, compact in (("dense", False), ("compact", True)):
        metadata: dict[str, Any] = {"hook_name": hook, "model_name": str(model_folder)}
        metadata |= {"context_size": ids.shape[1], "prepend_bos": False}
        saelens.export(sae, folder / name, compact=compact, say=False, **metadata)
        loaded = sae_lens.SAE.load_from_disk(folder / name)
        store = sae_lens.ActivationsStore.from_sae(
            model,
            loaded,
            Dataset.from_dict({"tokens": ids.tolist()}),
            streaming=False,
            store_batch_size_prompts=BATCH,
            total_tokens=len(ids),
        )
        groups, _ = run_evals(
            loaded, store, model, ActivationScaler(), config, exclude_special_tokens=[special]
        )
        flat = {key: value for group in groups.values() for key, value in group.items()}
        found[name] = {key: flat[key] for key in ("ce_loss_score", "explained_variance", "l0", "cossim")}
    return found


def sequences(pool: Pool, special: int, count: int, length: int) -> Tensor:
    """int64 [count, length]: the pool's tokens in rows, each behind the special token."""
    body = torch.from_numpy(pool.token_id[: count * (length - 1)].astype(np.int64)).reshape(count, -1)
    return torch.cat([torch.full((count, 1), special), body], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path, help="model.json of a finished run")
    parser.add_argument(
        "pool", type=Path, help="manifest of the pool whose tokens are used, of the runs' layer"
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--sequences", type=int, default=32, help="a multiple of 8")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    options = parser.parse_args()
    model = LanguageModel.load(options.model)
    special = model.tokenizer.bos_token_id
    pool = Pool.open(options.pool)
    ids = sequences(pool, special, options.sequences, options.length)
    h = torch.from_numpy(np.array(pool.activations))
    for run in options.runs:
        sae = expander_sae.load(run)
        layer = sae.about["spec"]["layer"]
        mine = ours(sae, model, ids, layer, special)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(model.record["path"])
            compared = reconstructions(sae, Path(folder) / "compared", h)
            print(f"{run}: reconstructions of the pool's tokens\n{compared.text()}")
            other = theirs(sae, Path(folder), path, ids, f"model.layers.{layer}", special)
        print(f"{run}: {mine.pop('over_norm_limit')} of {int((ids != special).sum())} tokens over norm_limit")
        for name, value in mine.items():
            told = "  ".join(f"SAELens {kind} {found[name]:.6f}" for kind, found in other.items())
            worst = max(abs(found[name] - value) for found in other.values())
            print(f"  {name:20} ours {value:.6f}  {told}  largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
