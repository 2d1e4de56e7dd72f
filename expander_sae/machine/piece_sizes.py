"""In what pieces jobs compute: the pieces bound a job's memory and its time, so that planning reads them.

Imports nothing, since planning imports no torch.
"""

EVALUATED_TOKENS = 4096
"""Tokens in one call of an inference when a run is measured."""

FITTED_TOKENS = 8192
"""Tokens that are read at a time where columns are fitted to them."""

STEPS_TOGETHER = 32
"""Most autoencoders whose steps are one graph of a GPU, where memory holds them."""

TRAININGS_ON_GPU = 3 * STEPS_TOGETHER
"""Most runs of a training job on a GPU; what a job is told of a hundred still fits into its command line."""

CELLS_ON_GPU = 16
"""Settings that one job measures on a GPU, where starting Python takes longer than a measurement."""

LOGITS, LOGITS_ON_GPU = 1 << 26, 1 << 29
"""Logits held at once, in float32 256 MB, and 2 GB of a GPU."""

_BATCH_TOKENS, _BATCH_TOKENS_ON_GPU = 2048, 16384


def batch_tokens(asked: int | str, gpu: bool) -> int:
    """Tokens of one forward pass of the language model, where `compute.batch_tokens` says this or auto."""
    if isinstance(asked, int):
        return asked
    return _BATCH_TOKENS_ON_GPU if gpu else _BATCH_TOKENS


ROW_GROUP = 4096
"""Tokens that are read, written and joined at a time in shards and pools."""

GRAM_BYTES = 1 << 30
"""Products of all columns of a dense dictionary that a pursuit holds at most."""

LANES = 64
"""Samples that the numba kernels score at a time."""

SCORED_FEATURES = 8192
"""Features that the numba kernels score at a time, so that their scores stay in a near cache."""

STORED_SCORES = 1 << 23
"""Scores of features by samples that plain torch holds at a time: 32 MB, whatever the number of features."""

AIMED_ENTRIES = 1 << 22
"""Entries of columns that are turned to samples at a time: 16 MB of directions, and their places."""

GEMM_KEPT = 5
"""Up to this many features per kept one, a matrix product over all features of a dense dictionary beats work
on the kept columns alone, which moves B·k·m numbers through the caches (measured at m = 576 and 2,048,
k = 16 and 64 on one core): to score kept columns, to add them up, and for both of their gradients."""
