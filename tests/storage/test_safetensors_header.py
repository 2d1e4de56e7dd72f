"""What is read of a safetensors file without its tensors is what reading all of it gives."""

import json

import pytest
import torch
from safetensors.torch import save_file

from expander_sae.errors import UserError
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.storage.safetensors_header import about_of, header_of

ABOUT = {"shape": {"m": 3}, "text": 'quotes " and ü'}
TENSORS = {"a": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.uint8)}


@pytest.mark.parametrize("sealed", [True, False])
def test_shapes_and_the_record_are_those_of_the_whole_file(tmp_path, sealed):
    path = tmp_path / "x.safetensors"
    if sealed:
        save_tensors(TENSORS, path, ABOUT)
    else:  # as files were before there were seals
        save_file(TENSORS, path, {"expander_sae": json.dumps(ABOUT)})
    assert about_of(path) == load_tensors(path)[1] == ABOUT
    assert {name: header_of(path)[name]["shape"] for name in TENSORS} == {"a": [2, 3], "b": [5]}


def test_what_is_none_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(UserError, match="no such file"):
        header_of(path)
    for content in (b"", b"\xff" * 40, b"\x02" + bytes(7) + b"[]", b"\x04" + bytes(7) + b"{,,}"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a whole safetensors file"):
            header_of(path)
    save_file(TENSORS, path, {"other": "x"})
    with pytest.raises(UserError, match=r"found metadata \['other'\], expected 'expander_sae.sealed'"):
        about_of(path)
