from __future__ import annotations

import importlib.util

import pytest
import torch

from expander_sae import kernels
from expander_sae.errors import UserError
from expander_sae.kernels import reference


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)


def test_torch_is_the_reference() -> None:
    assert kernels.select("torch", "cpu") is reference


def test_auto_takes_numba_where_it_is_installed() -> None:
    expected = "numba_cpu" if importlib.util.find_spec("numba") else "reference"
    assert kernels.select("auto", "cpu").__name__.endswith(expected)


def test_auto_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert kernels.select("auto", "cuda:0") is reference
    without_numba(monkeypatch)
    assert kernels.select("auto", "cpu") is reference


def test_a_backend_that_is_asked_for_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"compute\.backend.*the device is cuda"):
        kernels.select("numba", "cuda")
    without_numba(monkeypatch)
    with pytest.raises(UserError, match=r"compute\.backend.*numba is not installed"):
        kernels.select("numba", "cpu")


def test_unknown_backend() -> None:
    with pytest.raises(UserError, match="found 'gpu', expected one of auto, torch, numba"):
        kernels.select("gpu")


def test_numbers_of_16_bits_go_where_there_are_kernels_for_them() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert kernels.select("auto", "cpu", 8, 2, dtype) is reference
        with pytest.raises(UserError, match=f"numba', but it has float32 and float64 only.*{dtype}"):
            kernels.select("numba", "cpu", dtype=dtype)
    for dtype in (torch.float32, torch.float64):
        assert kernels.select("auto", "cpu", 8, 2, dtype) is kernels.select("auto", "cpu")
