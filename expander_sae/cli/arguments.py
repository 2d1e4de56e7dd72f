"""Options that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

from expander_sae.storage.remote import is_remote, place

LARGEST = 10**12
"""Sizes above it are no sizes, and their products would not fit into 64 bits."""

INFERENCE = "encoder, omp, niht, cosamp or block_omp_L (block_omp_4: four columns a round)"


def positive(text: str) -> int:
    """A whole number from 1 to LARGEST."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {value}, expected at least 1")
    if value > LARGEST:
        raise argparse.ArgumentTypeError(f"found {value}, expected at most {LARGEST}")
    return value


def local(text: str) -> Path:
    """A path; what lies in object storage is refused."""
    if is_remote(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a path of this machine")
    return Path(text)


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "weights", type=Path, help="weights file (.safetensors) or the run folder that has it"
    )


def add_activations(
    parser: argparse.ArgumentParser, name: str = "activations", with_tokens: bool = True, remote: bool = False
) -> None:
    """The tensor and what picks it out of its file; with_tokens: and how many rows of it.

    With `remote`, shards may lie in object storage.
    """
    add = parser.add_argument
    what = "tensor [N, m]: .npy, .safetensors, .pt, a folder of Parquet shards, or a pool's manifest (.json)"
    add(name, type=place if remote else local, help=what)
    add("--tensor", help="name of the tensor in a .safetensors or .pt file that has several")
    add("--column", default="activation", help="column of Parquet files (default: %(default)s)")
    add("--split", default="train", help="of shards named SPLIT-00000.parquet, which (default: %(default)s)")
    if with_tokens:
        add("--tokens", type=positive, help="use the first TOKENS rows only")


def add_compute(parser: argparse.ArgumentParser, device: str = "cpu") -> None:
    """`--device`, of this default (``auto`` is CUDA where there is one), and `--backend`."""
    parser.add_argument("--device", default=device, help="cpu, cuda, auto, … (default: %(default)s)")
    parser.add_argument(
        "--backend",
        default="auto",
        choices=("auto", "torch", "numba", "triton", "densified"),
        help="kernels of a sparse dictionary (default: %(default)s)",
    )
