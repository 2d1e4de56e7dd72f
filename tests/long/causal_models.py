"""Every causal class of transformers that can be built tiny, through the self-test of a language model.

    python -m tests.long.causal_models [--only NAME …] [--tokens N] [--rows FILE] [--out FILE.md]

Each is built with random weights from its own configuration, in which every size that has a known name
is made small, saved in a folder, and loaded from there as a user's model is. Printed is a table: class,
model type, verdict, property that fails. Some minutes.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import re
import resource
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.language_model_checks import check_model
from expander_sae.activations.weights import materialise
from expander_sae.errors import UserError, first_line
from expander_sae.rng import torch_generator
from tests.long.small_configs import DEPTH, WIDTH, small_config

LAYER = 1
_MOST_PARAMETERS = 30_000_000
_SECONDS = 60
_BYTES = 6 << 30

_VERDICTS = {
    "passes": "pass",
    "passes, whole": "pass whole",
    "refused": "are refused",
    "not built": "are not built",
    "FAULT": "end in a fault",
}
"""Verdict → its words in the sum."""

_REASONS = (
    "Those that are refused have",
    "",
    "- several residual streams side by side, or another layout: DeepSeek-V4, HY-V4, Qwen4-Exp, Gemma 3n,",
    "  XLNet;",
    "- more rows than tokens: ProphetNet keeps its n-gram streams in one tensor, CPM-Ant a learned prompt;",
    "- no causal mask: XLM, as it is configured;",
    "- layers that are run again (HRM), or that are counted twice (LongCat-Flash);",
    "- no one stack of layers over text: BLT, MusicGen;",
    "- no model that the library can build: Gemma 3n with images needs timm, and the Gemma 4",
    "  assistants continue another model's states.",
)
"""What the refusals of the table come to."""

_UNBUILDABLE = ("gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody")
"""Types of which the library builds no model: one needs timm, the others fail on their own configuration."""


def causal_classes() -> list[tuple[str, str]]:
    """(model type, class) of every causal class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items(), key=lambda item: item[1].casefold())


def saved(kind: str, folder: Path) -> None:
    """Save a tiny model of the type, with weights that are large enough for every layer to matter."""
    from transformers import AutoModelForCausalLM

    config = small_config(kind)
    folder.mkdir()
    if (
        kind in _UNBUILDABLE
    ):  # so that loading is tried on what a user would have: a configuration and weights
        config.save_pretrained(folder)
        save_file({"weight": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
        return
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
    if size > _MOST_PARAMETERS:
        raise ValueError(f"{size:,} parameters with every known size made small")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    generator = torch_generator(0, f"tiny {kind}")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    with torch.inference_mode():
        model(input_ids=torch.arange(3, 27)[None], use_cache=False)  # else these sizes fit no such model
    model.save_pretrained(folder)
    config.save_pretrained(folder)  # of a part's class, as of Mllama's, the configuration of the whole


def loaded(kind: str, folder: Path) -> LanguageModel:
    """The tiny model that was `saved` below `folder`, as a user loads one."""
    from transformers import AutoConfig

    weights = folder / "weights"
    config = AutoConfig.from_pretrained(weights)
    text = config if kind in _UNBUILDABLE else config.get_text_config()
    about = {"width": getattr(text, "hidden_size", WIDTH), "depth": getattr(text, "num_hidden_layers", DEPTH)}
    of_all = {"source": "folder", "revision": None, "dtype": "float32", "trust_remote_code": False}
    spec = {"name": kind, "label": kind, "location": str(weights), **about, **of_all}
    materialise(spec, weights, folder / "model.json")
    return LanguageModel.load(folder / "model.json")


def verdict(kind: str, tokens: int) -> tuple[str, str]:
    """(verdict, why) of a model type: passes, whole or not, refused, not built, or FAULT."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            saved(kind, folder / "weights")
        except Exception as error:
            return "not built", first_line(error)[:200]
        try:
            model = loaded(kind, folder)
            cut = check_model(model, [LAYER], tokens)
        except UserError as error:
            return "refused", _why(str(error), folder)
        except Exception:
            return "FAULT", traceback.format_exc()
    return ("passes", "") if LAYER in cut else ("passes, whole", "")


def _why(message: str, folder: Path) -> str:
    """A refusal without what differs between runs and rows."""
    told = message.replace(f"{folder}/", "").split("cannot be used: ")[-1]
    return re.sub(r"^models(\[[^]]*\])?: ", "", told)


def _apart(kind: str, tokens: int) -> tuple[str, str]:
    """`verdict` in a process of its own, with bounds: some sizes cannot be made small."""
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        send.send(verdict(kind, tokens))

    process = fork.Process(target=work)
    process.start()
    send.close()
    try:
        found: tuple[str, str] = receive.recv()
    except EOFError:
        found = "not built", f"more than {_SECONDS} s or {_BYTES >> 30} GB"
    process.join()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--out", type=Path, help="page that is written")
    parser.add_argument("--rows", type=Path, help="rows so far, kept so that a run that ended goes on")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    # What every model imports, before there are processes that would each do so.
    from transformers import AutoModelForCausalLM, LlamaForCausalLM, MixtralForCausalLM  # noqa: F401
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(1)
    known = _rows(options.rows)
    for kind, name in causal_classes():
        if kind in known or (options.only and kind not in options.only):
            continue
        known[kind] = (name, kind, *_apart(kind, options.tokens))
        print(*known[kind], sep=" | ", flush=True)
        if options.rows:
            with options.rows.open("a") as stream:
                stream.write(json.dumps(known[kind]) + "\n")
    rows = [known[kind] for kind, _ in causal_classes() if kind in known]
    for found in sorted({row[2] for row in rows}):
        print(found, sum(row[2] == found for row in rows), file=sys.stderr)
    if options.out:
        options.out.write_text(page(rows, options.tokens))
    return 0


def _rows(path: Path | None) -> dict[str, tuple[str, str, str, str]]:
    """Model type → its row, of those that were written before."""
    if path is None or not path.exists():
        return {}
    found = [tuple(json.loads(line)) for line in path.read_text().splitlines()]
    return {row[1]: row for row in found}


def page(rows: list[tuple[str, str, str, str]], tokens: int) -> str:
    """The table as a page of the documentation."""
    import transformers

    seen = {found: sum(row[2] == found for row in rows) for found in _VERDICTS}
    counts = ", ".join(f"{seen[found]} {words}" for found, words in _VERDICTS.items() if seen[found])
    lines = [
        "# Which language models pass",
        "",
        f"Every model type of transformers {transformers.__version__} that has a causal class was built tiny",
        f"({DEPTH} layers of width {WIDTH}, random weights), saved, loaded as yours is, and put through the",
        "[test before a model's first use](model.md#what-is-tested)",
        f"at layer {LAYER} on documents of {tokens} tokens. Another configuration can fare otherwise, and",
        "is tested too. `python -m tests.long.causal_models --out docs/howto/models.md` writes this page.",
        "",
        f"Of {len(rows)} types: {counts}.",
        "",
        "*passes*: the layers below are not run when its output is replaced. *passes, whole*: layers above",
        "read more than its output, so the whole model is run. *refused*: the property that fails is named.",
        *(
            ["*not built*: no tiny configuration was found, which says nothing about the model."]
            * bool(seen["not built"])
        ),
        "",
        *_REASONS,
        "",
        "| class | model type | verdict | why |",
        "|---|---|---|---|",
    ]
    lines += [f"| {name} | {kind} | {found} | {_cell(why)} |" for name, kind, found, why in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ").replace("*", r"\*")


if __name__ == "__main__":
    raise SystemExit(main())
