"""The sparse path against dense float64 matrices: values, gradients, files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.errors import UserError
from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.encoders import ENCODERS
from expander_sae.rng import torch_generator
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from tests import dense_reference

FAMILIES = ("expander", "bernoulli", "clustered", "clustered_cover", "right_regular", "min_overlap")


def build(
    family: str, m: int, n: int, d: int, k: int, encoder: str, seed: int, backend: str = "torch"
) -> SparseAutoencoder:
    mask = None if family == "dense" else MaskRecipe(family, m, n, d, seed).generate()
    autoencoder = SparseAutoencoder(m, n, k, mask, encoder, backend, dtype=torch.float64)
    autoencoder.initialise(torch_generator(seed, "initialisation"))
    with torch.no_grad():
        autoencoder.b_enc.normal_(generator=torch_generator(seed, "b_enc"))
        autoencoder.b_dec.normal_(generator=torch_generator(seed, "b_dec"))
    return autoencoder


def support_of(mask: Mask | None, m: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, degrees), of all rows where there is no mask."""
    if mask is None:
        return np.tile(np.arange(m), (n, 1)), np.full(n, m)
    return mask.rows, mask.degrees


@st.composite
def problems(draw: st.DrawFn) -> tuple[SparseAutoencoder, torch.Tensor]:
    family = draw(st.sampled_from([*sorted(FAMILIES), "dense"]))
    m = draw(st.integers(2, 16))
    d = m if family == "dense" else draw(st.integers(1, m))
    n = draw(st.integers(max(2, -(-m // d)), 40))
    k = draw(st.integers(1, n))
    seed = draw(st.integers(0, 99))
    backend = draw(st.sampled_from(["torch", "auto"]))
    encoder = draw(st.sampled_from(ENCODERS[:3] if family == "dense" else ENCODERS))
    autoencoder = build(family, m, n, d, k, encoder, seed, backend)
    with torch.no_grad():
        if draw(st.booleans()):
            # Ties: equal columns and biases on two features of one support.
            autoencoder.b_enc.zero_()
            autoencoder.values[1] = autoencoder.values[0]
            if autoencoder.encoder is not None:
                autoencoder.encoder[1] = autoencoder.encoder[0]
        if draw(st.booleans()):
            # Dead features: nothing selects the last third unless k forces it.
            autoencoder.b_enc[-(n // 3) - 1 :] = -30.0
    batch = torch.randn(
        draw(st.integers(1, 9)), m, generator=torch_generator(seed, "batch"), dtype=torch.float64
    )
    return autoencoder, batch


@settings(max_examples=150, deadline=None)
@given(problems())
def test_values_and_gradients_equal_dense_computation(
    problem: tuple[SparseAutoencoder, torch.Tensor],
) -> None:
    autoencoder, h = problem
    m, n = autoencoder.m, autoencoder.n
    rows, degrees = support_of(autoencoder.mask, m, n)
    mask = dense_reference.dense_mask(rows, degrees, m)
    own = support_of(autoencoder.encoder_mask, m, n)
    encoder_mask = dense_reference.dense_mask(*own, m)

    def dense(values: torch.Tensor, support: tuple[np.ndarray, np.ndarray]) -> torch.Tensor:
        return dense_reference.to_dense(values.detach(), *support, m).requires_grad_()

    v = dense(autoencoder.values, (rows, degrees))
    e = None if autoencoder.encoder is None else dense(autoencoder.encoder, own)
    b_enc = autoencoder.b_enc.detach().clone().requires_grad_()
    b_dec = autoencoder.b_dec.detach().clone().requires_grad_()
    rebuilt, code = autoencoder(h)
    expected, x = dense_reference.forward(
        mask, v, e, b_enc, b_dec, h, autoencoder.k, code.index, encoder_mask
    )
    torch.testing.assert_close(rebuilt, expected, rtol=1e-10, atol=1e-10)
    written = torch.zeros_like(x).scatter(1, code.index, code.value.detach())
    torch.testing.assert_close(written, x.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        autoencoder.decode(autoencoder.encode(h)), expected.detach(), rtol=1e-10, atol=1e-10
    )

    (expected - h).square().sum(1).mean().backward()
    (rebuilt - h).square().sum(1).mean().backward()
    assert v.grad is not None
    v.grad[:, degrees == 1] = 0  # of one entry at unit norm; the dense formula has what rounding leaves
    pairs = [(autoencoder.values, v, (rows, degrees)), (autoencoder.encoder, e, own)]
    for sparse, full, support in pairs:
        if sparse is not None and full is not None:
            on_mask = dense_reference.to_dense(sparse.grad, *support, m)
            # A short column's gradient is large and sums terms as large: what cancels is exact to their size.
            atol = 1e-10 * max(1.0, float(full.grad.abs().max()))
            torch.testing.assert_close(on_mask, full.grad, rtol=1e-10, atol=atol)
    torch.testing.assert_close(autoencoder.b_enc.grad, b_enc.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(autoencoder.b_dec.grad, b_dec.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", [*FAMILIES, "dense"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_saved_and_loaded_is_the_same_function(tmp_path: Path, family: str, encoder: str) -> None:
    if family == "dense" and encoder in ("own_support", "full"):
        with pytest.raises(UserError, match=f"encoder: found '{encoder}' for a dense dictionary"):
            build(family, 12, 40, 12, 6, encoder, 0)
        return
    autoencoder = build(family, 12, 40, 12 if family == "dense" else 5, 6, encoder, 0)
    h = torch.randn(7, 12, dtype=torch.float64, generator=torch_generator(0, "h"))
    path = tmp_path / "weights.safetensors"
    autoencoder.save(path, note="x", norm_limit=3.5)
    loaded = SparseAutoencoder.load(path, backend="torch")
    about = loaded.about
    assert about == {"note": "x", "norm_limit": 3.5}
    assert torch.equal(loaded(h)[0], autoencoder(h)[0])


def test_an_encoder_has_a_support_of_its_own() -> None:
    autoencoder = build("expander", 64, 512, 7, 8, "own_support", 0)
    assert autoencoder.mask is not None and autoencoder.encoder_mask is not None
    overlap = [
        len({*a} & {*b}) for a, b in zip(autoencoder.mask.rows, autoencoder.encoder_mask.rows, strict=True)
    ]
    assert abs(np.mean(overlap) - 7 * 7 / 64) < 0.15, "as two independent random masks overlap"
    again = build("expander", 64, 512, 7, 8, "own_support", 0)
    assert again.encoder_mask is not None and again.encoder_mask.sha256 == autoencoder.encoder_mask.sha256


def test_pruning_keeps_the_largest_entries_of_each_column(tmp_path: Path) -> None:
    columns = torch.tensor([[0.1, -3.0, 2.0, 0.5], [1.0, 1.0, -1.0, 0.0]], dtype=torch.float64)
    mask, kept = prune(columns, 2, seed=5)
    assert mask.rows.tolist() == [[1, 2], [0, 1]], "the lower row of a tie"
    assert kept.tolist() == [[-3.0, 2.0], [1.0, 1.0]]
    pruned = SparseAutoencoder(4, 2, 1, mask, dtype=torch.float64)
    with torch.no_grad():
        pruned.values.copy_(kept)
    path = tmp_path / "pruned.safetensors"
    pruned.save(path)
    tensors, header = load_tensors(path)
    assert tensors["rows"].dtype == torch.uint16
    loaded = SparseAutoencoder.load(path)
    h = torch.randn(5, 4, dtype=torch.float64, generator=torch_generator(0, "h"))
    assert torch.equal(loaded(h)[0], pruned(h)[0])
    tensors["rows"][1, 1] = 3
    save_tensors(tensors, path, header)
    with pytest.raises(UserError, match=r"pruned\.safetensors: rows have sha256 .* was the file altered"):
        SparseAutoencoder.load(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([[1, 2], [0, 60000]], dtype=torch.uint16), "found row 60000, expected 0 to m − 1 = 3"),
        (torch.tensor([[1, 2], [0, 1 << 30]], dtype=torch.int32), "found row 1073741824, expected 0 to"),
        (torch.tensor([[1, 2], [-7, 1]], dtype=torch.int32), "found row -7, expected 0 to"),
        (torch.tensor([[1, 2], [1, 1]], dtype=torch.int32), "rows of column 1, expected strictly ascending"),
        (torch.tensor([[1, 2], [0, 1 << 32]]), r"rows of shape \[2, 2\] and torch.int64, expected .* int32"),
        (
            torch.tensor([[1, 2]], dtype=torch.int32),
            r"rows of shape \[1, 2\] .* expected \[n, d\] = \[2, 2\]",
        ),
    ],
)
def test_a_made_up_learned_mask_cannot_lead_out_of_memory(
    rows: torch.Tensor, message: str, tmp_path: Path
) -> None:
    """Its seal and its checksum are right: whoever makes up rows makes these up as well."""
    mask, _ = prune(torch.tensor([[0.1, -3.0, 2.0, 0.5], [1.0, 1.0, -1.0, 0.0]]), 2, seed=5)
    path = tmp_path / "w.safetensors"
    SparseAutoencoder(4, 2, 1, mask).save(path)
    tensors, header = load_tensors(path)
    content = np.full(2, 2, "<i4").tobytes() + rows.to(torch.int64).numpy().astype("<i4").tobytes()
    header["mask"]["sha256"] = hashlib.sha256(content).hexdigest()
    save_tensors(tensors | {"rows": rows}, path, header)
    with pytest.raises(UserError, match=r"w\.safetensors: .*" + message):
        SparseAutoencoder.load(path)


@pytest.mark.parametrize(
    ("family", "claims", "message"),
    [
        ("expander", {"n": 4_000_000}, "m = 12, n = 4000000 beside biases of 12 and 40"),
        ("expander", {"m": 4_000_000}, "m = 4000000, n = 40 beside biases of 12 and 40"),
        ("bernoulli", {"d": 12}, "n = 40, d = 12 beside tensors of m = 12, n = 40 and 200 decoder values"),
        ("dose20", {"d": 6}, "n = 40, d = 6 beside tensors of m = 12, n = 40 and 200 decoder values"),
    ],
)
def test_a_claimed_size_is_compared_with_the_tensors_before_a_mask_is_made(
    family: str, claims: dict[str, int], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    SparseAutoencoder(12, 40, 4, MaskRecipe(family, 12, 40, 5, 0).generate()).save(path)
    tensors, header = load_tensors(path)
    header["mask"]["recipe"] |= claims
    header["shape"] |= {key: value for key, value in claims.items() if key != "d"}
    save_tensors(tensors, path, header)
    monkeypatch.setattr(MaskRecipe, "generate", lambda *_: pytest.fail("a mask was generated"))
    with pytest.raises(UserError, match=r"w\.safetensors: .*" + message):
        SparseAutoencoder.load(path)
    header["shape"] |= {"m": 12, "n": 40}
    save_tensors(tensors, path, header)
    with pytest.raises(UserError, match=r"w\.safetensors: a mask of m = .* was the file altered"):
        SparseAutoencoder.load(path)


def test_a_shape_is_of_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    build("expander", 12, 40, 5, 4, "tied", 0).save(path)
    tensors, header = load_tensors(path)
    for wrong in ({"k": 1.5}, {"k": True}, {"m": 12.0}):
        save_tensors(tensors, path, header | {"shape": header["shape"] | wrong})
        with pytest.raises(UserError, match=r"w\.safetensors: shape .* expected whole numbers m, n and k"):
            SparseAutoencoder.load(path)


@pytest.mark.parametrize(("family", "encoder"), [("dense", "tied"), ("expander", "full")])
def test_a_claimed_dense_matrix_is_compared_before_it_is_made(
    family: str, encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = build(family, 12, 40, 5, 4, encoder, 0)
    path = tmp_path / "w.safetensors"
    autoencoder.save(path)
    assert SparseAutoencoder.load(path).m == 12
    tensors, header = load_tensors(path)
    name = "values" if family == "dense" else "encoder"
    save_tensors(tensors | {name: tensors[name][:1].clone()}, path, header)
    monkeypatch.setattr(SparseAutoencoder, "__init__", lambda *_, **__: pytest.fail("it was made"))
    with pytest.raises(UserError, match=rf"w\.safetensors: 12 {name}, expected 12·40"):
        SparseAutoencoder.load(path)


def test_weights_hold_true_edges_only(tmp_path: Path) -> None:
    autoencoder = build("bernoulli", 64, 512, 7, 8, "tied", 0)
    autoencoder.save(tmp_path / "w.safetensors")
    assert autoencoder.values.numel() > 7 * 512
    assert (tmp_path / "w.safetensors").stat().st_size < 8 * (7 * 512 + 512 + 64) + 1000


def test_rescaling_moves_between_units_exactly() -> None:
    autoencoder = build("expander", 12, 40, 5, 6, "warm_tied", 0)
    h = torch.randn(7, 12, dtype=torch.float64, generator=torch_generator(0, "h"))
    scaled = autoencoder(4.0 * h)[0] / 4.0
    autoencoder.rescale(4.0)
    torch.testing.assert_close(autoencoder(h)[0], scaled, rtol=1e-12, atol=1e-12)


def test_initial_values_do_not_depend_on_dtype() -> None:
    mask = MaskRecipe("expander", 16, 64, 4, 0).generate()
    made = [
        SparseAutoencoder(16, 64, 4, mask, "independent", dtype=t) for t in (torch.float32, torch.float64)
    ]
    for autoencoder in made:
        autoencoder.initialise(torch_generator(5, "initialisation"))
    assert torch.equal(made[0].values.double(), made[1].values)
    assert made[0].encoder is not None and not torch.equal(made[0].encoder, made[0].values)


def test_a_column_of_zeros_stays_finite() -> None:
    autoencoder = build("expander", 12, 40, 5, 6, "tied", 0)
    with torch.no_grad():
        autoencoder.values[3] = 0
    rebuilt, _ = autoencoder(torch.ones(3, 12, dtype=torch.float64))
    rebuilt.sum().backward()
    assert torch.isfinite(rebuilt).all() and torch.isfinite(autoencoder.values.grad).all()


def test_bad_shapes_and_files_are_named(tmp_path: Path) -> None:
    mask = MaskRecipe("expander", 12, 40, 5, 0).generate()
    with pytest.raises(UserError, match="k: found 41, expected 1 to n = 40"):
        SparseAutoencoder(12, 40, 41, mask)
    with pytest.raises(UserError, match="encoder: found 'tide'"):
        SparseAutoencoder(12, 40, 4, mask, "tide")
    with pytest.raises(UserError, match="mask: found 12×40, expected m×n = 12×48"):
        SparseAutoencoder(12, 48, 4, mask)
    missing = tmp_path / "none.safetensors"
    with pytest.raises(UserError, match=r"none\.safetensors: no such file"):
        SparseAutoencoder.load(missing)
    path = tmp_path / "w.safetensors"
    SparseAutoencoder(12, 40, 4, mask).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"w\.safetensors: altered or cut short"):
        SparseAutoencoder.load(path)
