"""Devices and threads."""

from __future__ import annotations

import os

import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.machine.device import THREAD_VARIABLES, resolve_device, set_threads


def test_auto_is_a_gpu_where_torch_sees_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["tpu9", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_named_with_its_key(device: str) -> None:
    with pytest.raises(
        UserError, match=rf"^compute\.device: found '{device}', which torch cannot use \(.+\)$"
    ):
        resolve_device(device, "compute.device")


def test_another_kind_of_device_is_taken_where_any_will_do() -> None:
    with pytest.raises(UserError, match=r"^device: found 'meta', expected auto, cpu, cuda or cuda:INDEX$"):
        resolve_device("meta")
    assert resolve_device("meta", kinds=None).type == "meta"


def test_threads_are_set_for_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREAD_VARIABLES:
        monkeypatch.setenv(name, "7")
    set_threads(3)
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"3"}
