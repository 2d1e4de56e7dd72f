"""Measure how long one correlation takes, for each tied expander of the configuration and its dense run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import reported_to_user
from expander_sae.machine.device import resolve_device, set_threads
from expander_sae.study.study import Study, load_config

if TYPE_CHECKING:
    snakemake: Any

with reported_to_user():
    study = Study(load_config(snakemake.config))
    compute = study.config["compute"]
    set_threads(compute["threads"])

    import torch

    from expander_sae.evaluation.speed import write_speed

    torch.set_num_threads(compute["threads"])
    device = str(resolve_device(compute["device"], "compute.device"))
    runs = [run.columns for run in study.timed]
    write_speed(runs, Path(snakemake.output[0]), device, compute["backend"])
