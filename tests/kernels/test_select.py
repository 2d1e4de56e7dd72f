from __future__ import annotations

import importlib.util

import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.kernels import backends, reference


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)


def test_torch_is_the_reference() -> None:
    assert backends.select("torch", "cpu") is reference


def test_auto_takes_numba_where_it_is_installed() -> None:
    expected = "numba_cpu" if importlib.util.find_spec("numba") else "reference"
    assert backends.select("auto", "cpu").__name__.endswith(expected)


def test_auto_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert backends.select("auto", "cuda:0") is reference
    without_numba(monkeypatch)
    assert backends.select("auto", "cpu") is reference


def test_a_backend_that_is_asked_for_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"compute\.backend.*the device is cuda"):
        backends.select("numba", "cuda")
    without_numba(monkeypatch)
    with pytest.raises(UserError, match=r"compute\.backend.*numba is not installed"):
        backends.select("numba", "cpu")


def test_unknown_backend() -> None:
    with pytest.raises(UserError, match="found 'gpu', expected one of auto, torch, numba"):
        backends.select("gpu")


def test_numbers_of_16_bits_go_where_there_are_kernels_for_them() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        assert backends.select("auto", "cpu", 8, 2, dtype) is reference
        with pytest.raises(UserError, match=f"numba', but it has float32 and float64 only.*{dtype}"):
            backends.select("numba", "cpu", dtype=dtype)
    for dtype in (torch.float32, torch.float64):
        assert backends.select("auto", "cpu", 8, 2, dtype) is backends.select("auto", "cpu")
