"""`encode`, `decode` and `encoded` on what users have, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import expander_sae
from tests.users import M, N, made_up_activations, trainer


@pytest.fixture(scope="module")
def activations() -> torch.Tensor:
    return made_up_activations()


def test_encode_and_decode_take_what_users_have(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(20)
    h = activations[:40].bfloat16()
    expected = sae.encode(h.float())
    array = h.float().numpy()
    backwards = np.ascontiguousarray(array[::-1])[::-1]
    for same in (h, h.double(), array, array.astype(">f4"), backwards):
        code = sae.encode(same)
        assert torch.equal(code.index, expected.index) and torch.equal(code.value, expected.value)
        assert torch.equal(expander_sae.infer(sae, same, "encoder").index, expected.index)
    wide = type(expected)(expected.index, expected.value.double())
    assert torch.equal(sae.decode(wide), sae.decode(expected))
    whole = sae.encode((h.float() * 10).long())
    assert torch.equal(whole.index, sae.encode((h.float() * 10).long().float()).index)
    double = sae.double()
    assert double.encode(h).value.dtype == torch.float64 and double.decode(expected).dtype == torch.float64
    with pytest.raises(expander_sae.UserError, match="activations: found list, expected a tensor"):
        sae.encode(h.tolist())  # type: ignore[arg-type]


def test_a_code_that_names_no_feature_is_refused(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(5)
    ones = torch.ones(2, 3)
    for index, message in (
        (torch.tensor([[0, 1, N], [0, 1, 2]]), f"code.index: found {N}, expected −1"),
        (torch.tensor([[0, 1, 10_000], [0, 1, 2]]), "code.index: found 10000"),
        (torch.tensor([[0, -2, 1], [0, 1, 2]]), "code.index: found -2"),
        (torch.tensor([[0.0, 1.0, 2.0], [0, 1, 2]]), "code.index: found torch.float32, expected whole"),
        (torch.tensor([[0, 1]]), r"code: found index \[1, 2\] and value \[2, 3\], expected"),
    ):
        with pytest.raises(expander_sae.UserError, match=message):
            sae.decode(expander_sae.SparseCode(index, ones))
    edge = torch.tensor([[-1, 0, N - 1], [-1, -1, -1]])
    same = [sae.decode(expander_sae.SparseCode(index, ones * (edge >= 0))) for index in (edge, edge.int())]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0][1], sae.b_dec)
    assert len(sae.decode(expander_sae.SparseCode(edge[:0], ones[:0]))) == 0


def test_activations_of_another_shape_are_refused(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(5)
    for wrong in (activations[0], activations.reshape(2, -1, M), activations[:, :1], activations[:, 1:]):
        with pytest.raises(expander_sae.UserError, match=r"activations: found shape .*, expected \["):
            sae.encode(wrong)
        for call in (sae, sae.encoded, lambda h: expander_sae.infer(sae, h)):
            with pytest.raises(expander_sae.UserError, match="activations: found shape"):
                call(wrong)


def test_encoded_are_tokens_within_the_norm_limit_whatever_holds_them(tmp_path: Path) -> None:
    sae = expander_sae.SparseAutoencoder(3, 4, 1)
    array = np.zeros((20_000, 3), np.float32)
    array[:, 1] = np.arange(20_000) % 7
    np.save(tmp_path / "h.npy", array)
    mapped = np.load(tmp_path / "h.npy", mmap_mode="r")
    assert sae.encoded(array).all(), "no limit"
    sae.about["norm_limit"] = 4
    expected = array[:, 1] <= 4
    tensor = torch.from_numpy(array)
    for same in (array, mapped, tensor, tensor.bfloat16(), tensor.long(), array.astype(">f8")):
        found = sae.encoded(same)
        assert found.dtype == torch.bool and np.array_equal(found.numpy(), expected)
    assert sae.encoded(array[:0]).shape == (0,)
    assert np.array_equal(sae.encoded(array, 2.0 * array[:, 1]).numpy(), array[:, 1] <= 2), "norms as given"


def test_the_norm_limit_is_compared_in_float64() -> None:
    """A limit is made from norms in float64; in float32 this token's would be within it."""
    sae = expander_sae.SparseAutoencoder(2, 4, 1)
    token = torch.tensor([[1.0, 1e-4]])
    sae.about["norm_limit"] = 1.0
    assert float(token.norm()) == 1.0 and not sae.encoded(token).any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_row_is_left_out_in_silence(activations: torch.Tensor, bad: float) -> None:
    """A row that is not finite was dropped by `evaluate`, and had no features by a pursuit."""
    sae = trainer(activations).fit(5)
    wrong = activations.clone()
    wrong[7, 3], wrong[9, 0] = bad, bad
    for same in (wrong, wrong.numpy(), wrong.bfloat16(), wrong.double()):
        for inference in ("encoder", "omp", "niht"):
            for call in (expander_sae.infer, expander_sae.evaluate):
                with pytest.raises(
                    expander_sae.UserError, match="activations: row 7 has a value that is not finite"
                ):
                    call(sae, same, inference)
        with pytest.raises(expander_sae.UserError, match="activations: row 7 has a value"):
            expander_sae.evaluate(sae, same, every_token=True)


def _views(h: torch.Tensor) -> dict[str, tuple[object, str]]:
    masked = np.ma.masked_array(h.numpy(), mask=h.numpy() > 40)
    quantised = torch.quantize_per_tensor(h, 0.1, 0, torch.qint8)
    return {
        "sparse": (h.to_sparse(), "layout sparse_coo, expected a dense one"),
        "csr": (h.to_sparse_csr(), "layout sparse_csr, expected a dense one"),
        "complex": (h.to(torch.complex64), "torch.complex64, expected real numbers"),
        "complex array": (h.numpy().astype(np.complex64), "torch.complex64, expected real numbers"),
        "meta": (h.to("meta"), "device meta, which has no values"),
        "quantised": (quantised, "torch.qint8, expected plain numbers"),
        "nested": (torch.nested.nested_tensor([h, h]), "a nested tensor, expected rows of one length"),
        "masked": (masked, "masked values, expected none"),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["sparse", "csr", "complex", "complex array", "meta", "quantised", "nested", "masked"]
)
def test_what_is_no_matrix_of_real_numbers_is_refused_in_a_sentence(
    activations: torch.Tensor, kind: str
) -> None:
    sae = trainer(activations).fit(5)
    found, said = _views(activations)[kind]
    calls = (
        sae.encode,
        lambda h: expander_sae.infer(sae, h),
        lambda h: expander_sae.evaluate(sae, h),
        trainer,
    )
    for call in calls:
        with pytest.raises(expander_sae.UserError, match=f"activations: found .*{said}"):
            call(found)


def test_tensors_of_a_graph_and_negative_views_are_what_they_show(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(5)
    expected, negated = expander_sae.evaluate(sae, activations), expander_sae.evaluate(sae, -activations)
    for same in (activations.clone().requires_grad_(), torch.nn.Parameter(activations)):
        assert expander_sae.evaluate(sae, same) == expected
        assert torch.equal(trainer(same).fit(5).b_dec, sae.b_dec)
    view = torch._neg_view(activations)
    assert expander_sae.evaluate(sae, view) == negated
    assert torch.equal(trainer(view).fit(5).b_dec, trainer(-activations).fit(5).b_dec)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_autoencoder_trained_on_a_gpu_encodes_activations_of_the_cpu(activations: torch.Tensor) -> None:
    sae = trainer(activations, device="auto").fit(20)
    assert sae.b_dec.device.type == "cuda"
    code = sae.encode(activations[:100])
    assert code.value.device.type == "cuda"
    on_cpu = type(code)(code.index.cpu(), code.value.cpu())
    torch.testing.assert_close(sae.decode(on_cpu), sae.decode(code))
    assert math.isfinite(expander_sae.evaluate(sae, activations, inference="omp")["relative_error"])
