"""Measure how long one correlation takes, for each tied expander of the configuration and its dense run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.study.study import Study, load_config

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    study = Study(load_config(snakemake.config))
    compute = study.config["compute"]
    # Numpy and torch read these once, when they are imported.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = str(compute["threads"])

    import torch

    from expander_sae.evaluation.speed import write_speed

    torch.set_num_threads(compute["threads"])
    device = compute["device"]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    runs = [run.columns for run in study.timed]
    write_speed(runs, Path(snakemake.output[0]), device, compute["backend"])
