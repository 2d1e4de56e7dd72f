"""What the folders of SAELens 6.54 are called, and what stands in them."""

from __future__ import annotations

from expander_sae.storage.foreign_folders import SAELENS

CONFIG, WEIGHTS = SAELENS.config, SAELENS.weights
COMPACT, COMPACT_JUMPRELU = "expander_topk", "expander_jumprelu"
"""Names under which `expander_sae.interop.saelens_plugin` registers the compact architectures."""
FACTORS = "finetuning_scaling_factor"
"""Before SAELens 6, what each feature's activation was multiplied by before it was decoded."""
COMPACT_ENCODERS = ("tied", "warm_tied", "independent")
FORMAT_VERSION = "6.54.12"
"""The SAELens version whose format this is. Without one of at least 6.0.0 its loader drops the metadata."""
