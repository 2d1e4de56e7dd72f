"""The README of a published run, written from its own files: what it is, what it measures, its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from expander_sae.errors import UserError
from expander_sae.evaluation.storage import storage
from expander_sae.interop.fidelity import Fidelity
from expander_sae.masks.supports import described
from expander_sae.measurements.index import Index
from expander_sae.measurements.tables import read_metrics
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.encoders import codes_of
from expander_sae.model.precisions import FLOAT32
from expander_sae.study.run import LEFT_OUT
from expander_sae.training.run_folder import WEIGHTS

METRICS = "metrics.parquet"
_SHOWN = {
    "relative_error": "mean of ‖h − ĥ‖/‖h‖",
    "explained_variance": "1 − Σ‖h − ĥ‖²/Σ‖h − h̄‖²",
    "ce_recovered": "cross-entropy recovered, against zeroing the layer",
    "ce_recovered_mean": "the same, against the mean activation, passing the same tokens through",
    "dead_fraction": "features that never fire on the test tokens",
    "l0": "mean number of active features",
    "encoded_share": "tokens within the norm limit; the others are passed through",
}
_SAME = ("model", "corpus", "layer", "recipe", "k", "train_tokens", "steps")


def model_card(
    folder: str | Path,
    repo_id: str,
    *,
    licence: str | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
    table: str | Path | None = None,
    saelens: str | None = None,
    fidelity: Fidelity | None = None,
) -> str:
    """Markdown with YAML front matter for the run in `folder` (weights and, if there, metrics.parquet).

    The front matter takes identifiers of the Hub. `table` is a study's metrics.parquet: the cells beside this
    one become the frontier. `saelens` is what the folder of that name holds, ``dense`` or ``compact``, None
    where there is none, and `fidelity` what was measured of it.

    Raises:
        UserError: no weights, or an unreadable table.
    """
    folder = Path(folder)
    sae = SparseAutoencoder.load(folder / WEIGHTS)
    about, spec = sae.about, dict(sae.about.get("spec", {}))
    measured = (folder / METRICS).exists()
    parts = [
        _front_matter(licence, base_model, dataset, saelens is not None),
        _what(sae, spec, repo_id, base_model),
        _use(sae, repo_id),
        _saelens(repo_id, saelens, fidelity) if saelens is not None else "",
        _storage(sae, folder),
        _measurements(folder / METRICS, spec) if measured else "",
        _frontier(Path(table), spec) if table is not None else "",
        _training(spec, about),
        _limits(sae, about, measured),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _front_matter(licence: str | None, base_model: str | None, dataset: str | None, saelens: bool) -> str:
    tags = ["sparse-autoencoder", "mechanistic-interpretability", "expander-sae"]
    fields: dict[str, Any] = {"library_name": "expander-sae", "tags": tags + ["saelens"] * saelens}
    fields |= {"license": licence} if licence else {}
    fields |= {"base_model": base_model} if base_model else {}
    fields |= {"datasets": [dataset]} if dataset else {}
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _what(sae: SparseAutoencoder, spec: dict[str, Any], repo_id: str, base_model: str | None) -> str:
    where = (
        f" of {base_model or spec['model']}, residual stream after layer {spec['layer']}"
        if "layer" in spec
        else ""
    )
    family = sae.decoder.recipe.family
    known = described(family)
    support = sae.decoder.words + ("" if known.trained else " that nobody trained")
    kind, kept = ("TopK ", f"k = {sae.k} a token")
    if sae.counts_vary:
        kind, kept = "", "as many a token as exceed their thresholds"
    imported = sae.about.get("imported")
    method = "The method is that of Mendoza-Smith, arXiv 2607.01799."
    return (
        f"# {repo_id.split('/')[-1]}\n\n"
        f"A {kind}sparse autoencoder{where}: {sae.n:,} features of width {sae.m:,}, {kept}, "
        f"{support} ({spec.get('support', family)}), "
        f"encoder {sae.encoder_kind}. {f'It was imported from {imported}.' if imported else method}"
    )


def _use(sae: SparseAutoencoder, repo_id: str) -> str:
    codes = codes_of(sae.about)
    of = "sae.encode(h)" if codes == "encoder" else f'infer(sae, h, "{codes}")'
    also = "" if codes == "encoder" else ", infer"
    return (
        f"## Use\n\n```python\nfrom expander_sae import load{also}\n"
        "from expander_sae.interop.hub import pull\n\n"
        f'sae = load(pull("{repo_id}"))\ncode = {of}       # h: activations [B, {sae.m}]\n'
        "rebuilt = sae.decode(code)\n```"
    )


def _saelens(repo_id: str, kind: str, fidelity: Fidelity | None) -> str:
    compact = kind == "compact"
    needed = "import expander_sae.interop.saelens_plugin  # registers the architecture\n" * compact
    what = (
        "The folder `saelens/` holds values on the mask; SAELens loads it where expander-sae is installed. "
        "Negative values among the k kept ones stay, as in expander-sae."
        if compact
        else "The folder `saelens/` holds a dense TopK autoencoder, which SAELens loads by itself. It sets "
        "values of 0 or less among the k kept ones to 0; expander-sae keeps them."
    )
    unknown = "How often kept values are not positive was not measured for this card."
    told = unknown if fidelity is None else fidelity.text()
    return (
        f"## SAELens\n\n{what}\n\n```python\nimport sae_lens\n{needed}\n"
        f'sae = sae_lens.SAE.from_pretrained("{repo_id}", "saelens")\n```\n\n{told[0].upper()}{told[1:]}'
    )


def _storage(sae: SparseAutoencoder, folder: Path) -> str:
    counts = storage(sae)
    ratio = sae.m * sae.n / counts["decoder_values"]
    return (
        "## Storage\n\n| | |\n|---|---|\n"
        f"| learned decoder values | {counts['decoder_values']:,} ({ratio:.1f} times fewer than dense) |\n"
        f"| encoder values of its own | {counts['encoder_values']:,} |\n"
        f"| weights file | {(folder / WEIGHTS).stat().st_size:,} bytes |\n"
        f"| with explicit row indices | {counts['storage_values_rows_bytes']:,} bytes for the decoder |\n\n"
        "The mask is stored as a recipe; loading regenerates it and checks its sha256."
    )


def _measurements(path: Path, spec: dict[str, Any]) -> str:
    index = Index(read_metrics(path))
    names = [name for name in ("encoder", "omp") if name in index.inferences]
    lines = [f"| metric | {' | '.join(names)} | meaning |", "|---|" + "---|" * (len(names) + 1)]
    for metric, meaning in _SHOWN.items():
        # Of one run even what diverged is told.
        found = [
            [f"{value:.4g}" for cell in index.trained for value in index.values(cell, metric, name).values()]
            for name in names
        ]
        if any(found):
            lines.append(f"| `{metric}` | {' | '.join((*texts, '–')[0] for texts in found)} | {meaning} |")
    tested = "on held-out documents" + (f" of {spec['corpus']}" if "corpus" in spec else "")
    return f"## Measurements\n\nThis run, seed {spec.get('seed', '–')}, {tested}.\n\n" + "\n".join(lines)


def _frontier(path: Path, spec: dict[str, Any]) -> str:
    """Every cell of the study that differs in its dictionary only."""
    missing = [key for key in _SAME if key not in spec]
    if missing:
        raise UserError(f"table: the weights do not say their {missing[0]}, expected those of a study's run")
    index = Index(read_metrics(path))
    lines = [
        "| dictionary | n | d | decoder values | rel. error | CE recovered | CE recovered, OMP | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cells = {
        cell: stored
        for cell in index.matching(**{key: spec[key] for key in _SAME})
        if (stored := index.estimate(cell, "decoder_values", "none", "none"))
    }
    columns = (("relative_error", "encoder"), ("ce_recovered", "encoder"), ("ce_recovered", "omp"))
    for cell in sorted(cells, key=lambda cell: (cells[cell].mean, cell)):
        mine = LEFT_OUT | spec
        own = all(getattr(cell, key) == mine[key] for key in ("support", "encoder", "n", "d", "precision"))
        rounded = "" if cell.precision == FLOAT32 else f", {cell.precision}"
        name = f"{cell.support}-{cell.encoder}{rounded}"
        measured = (index.estimate(cell, *column) for column in columns)
        lines.append(
            f"| {f'**{name} (this one)**' if own else name} | {cell.n:,} | {cell.d} "
            f"| {cells[cell].mean:,.0f} | "
            + " | ".join(f"{estimate.mean:.3f}" if estimate else "–" for estimate in measured)
            + f" | {len(cells[cell].values)} |"
        )
    told = "The study's other dictionaries on the same data, means over the seeds that did not diverge."
    return f"## Frontier\n\n{told}\n\n" + "\n".join(lines)


def _training(spec: dict[str, Any], about: dict[str, Any]) -> str:
    if not {"train_tokens", "steps", "recipe", "seed"} <= spec.keys():
        return "## Training data\n\nNot recorded in the weights."
    lines = [
        f"- {spec['train_tokens']:,} tokens" + (f" of {spec['corpus']}" if "corpus" in spec else ""),
        f"- {spec['steps']:,} steps, recipe {spec['recipe']}, seed {spec['seed']}",
    ]
    if about.get("norm_limit") is not None:
        lines.append(
            f"- tokens of a norm above {about['norm_limit']:.6g} were left out, and are to be passed through"
        )
    return "## Training data\n\n" + "\n".join(lines)


def _limits(sae: SparseAutoencoder, about: dict[str, Any], measured: bool) -> str:
    lines = [
        "- A low reconstruction loss does not make features interpretable; none were looked at here.",
        "- One model, one layer, one corpus: other text may be reconstructed worse.",
    ]
    if sae.thresholds is None:
        lines.append(
            "- Negative values among the k kept ones are kept; tools that apply ReLU after top-k drop them."
        )
    if about.get("norm_limit") is not None:
        lines.append("- Tokens above the norm limit, mostly the first of a sequence, are outside its domain.")
    if sae.mask is not None:
        lines.append(
            "- A feature can write only the coordinates of its mask; fewer values cost fidelity (see above)."
        )
    if not measured:
        lines.append("- No measurements were published with these weights.")
    return "## Limits\n\n" + "\n".join(lines)
