"""Sparse autoencoders whose decoder and encoder live on a d-regular mask (arXiv 2607.01799).

The public names below are imported when they are first used, so that `import expander_sae` costs
nothing and needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expander_sae.api import evaluate, infer, load
    from expander_sae.errors import UserError
    from expander_sae.masks.recipe import Mask, MaskRecipe
    from expander_sae.model.autoencoder import SparseAutoencoder
    from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode, SparseDictionary
    from expander_sae.pursuit.block_omp import block_omp
    from expander_sae.pursuit.cosamp import cosamp
    from expander_sae.pursuit.niht import niht
    from expander_sae.pursuit.omp import omp
    from expander_sae.training.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "DenseDictionary",
    "Dictionary",
    "Mask",
    "MaskRecipe",
    "SparseAutoencoder",
    "SparseCode",
    "SparseDictionary",
    "Trainer",
    "UserError",
    "block_omp",
    "cosamp",
    "evaluate",
    "infer",
    "load",
    "niht",
    "omp",
]

_MODULES = {
    "api": ("evaluate", "infer", "load"),
    "errors": ("UserError",),
    "masks.recipe": ("Mask", "MaskRecipe"),
    "model.autoencoder": ("SparseAutoencoder",),
    "model.dictionary": ("DenseDictionary", "Dictionary", "SparseCode", "SparseDictionary"),
    "pursuit.block_omp": ("block_omp",),
    "pursuit.cosamp": ("cosamp",),
    "pursuit.niht": ("niht",),
    "pursuit.omp": ("omp",),
    "training.trainer": ("Trainer",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_REMOVED = {
    "decode": "sae.decode(code)",
    "encode": "sae.encode(h), or infer(sae, h, inference) for pursuits and for pieces",
    "encoded": "sae.encoded(h)",
    "save": "sae.save(path)",
}
"""What an earlier version had as functions, and what to call instead."""


def __getattr__(name: str) -> Any:
    if name in _REMOVED:
        raise AttributeError(f"{__name__}.{name} is gone: call {_REMOVED[name]}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
