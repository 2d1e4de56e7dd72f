"""Autoencoders in fewer bits: what was evaluated is what a file holds, in the bytes that it should take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expander_sae import UserError, infer, load
from expander_sae.evaluation.storage import storage
from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.precisions import PRECISIONS
from expander_sae.rng import torch_generator
from expander_sae.storage.files import canonical_json
from expander_sae.storage.safetensors_files import load_tensors, save_tensors

M, N, D, K = 24, 101, 5, 4
KINDS = [
    *[(family, encoder) for family in ("expander", "bernoulli") for encoder in ("tied", "independent")],
    *[("bernoulli", "own_support"), ("bernoulli", "full"), ("expander", "warm_tied"), ("pruned", "tied")],
    *[("dense", "tied"), ("dense", "independent")],
]
ROUNDED = [name for name in PRECISIONS if name != "float32"]


def made(family: str, encoder: str = "tied", m: int = M, n: int = N, d: int = D) -> SparseAutoencoder:
    stream = torch_generator(0, f"{family}/{encoder}")
    if family == "pruned":
        mask, _ = prune(torch.randn(n, m, generator=stream), d, 0)
    else:
        mask = None if family == "dense" else MaskRecipe(family, m, n, d, 1).generate()
    sae = SparseAutoencoder(m, n, min(K, n), mask, encoder, "torch")
    sae.initialise(stream)
    with torch.no_grad():
        sae.b_enc.normal_(generator=stream)
        sae.b_dec.normal_(generator=stream)
    return sae


def activations() -> torch.Tensor:
    return torch.randn(60, M, generator=torch_generator(0, "activations"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("family", "encoder"), KINDS)
def test_a_file_computes_what_was_evaluated(
    family: str, encoder: str, precision: str, tmp_path: Path
) -> None:
    h, sae = activations(), made(family, encoder).stored(precision)
    file = sae.save(tmp_path / "sae.safetensors")
    loaded = load(file, backend="torch")
    assert loaded.precision == sae.precision == precision
    for inference in ("encoder", "omp"):
        mine, its = infer(sae, h, inference), infer(loaded, h, inference)
        assert torch.equal(mine.index, its.index) and torch.equal(mine.value, its.value)
        assert torch.equal(sae.decode(mine), loaded.decode(its))
    again = loaded.save(tmp_path / "again.safetensors")
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize(("family", "encoder"), KINDS)
def test_the_file_holds_so_many_bits(family: str, encoder: str, precision: str, tmp_path: Path) -> None:
    sae = made(family, encoder).stored(precision)
    bits, stepped = PRECISIONS[precision].bits, bool(PRECISIONS[precision].levels)
    sizes = {"values": sae.decoder.count, "encoder": 0 if sae.free is None else sae.free.count}
    expected = {name: -(-count * bits // 8) for name, count in sizes.items() if count}
    expected |= {"b_enc": N if stepped else 2 * N, "b_dec": 2 * M}
    expected |= {"encoder_step": 2 * N} if stepped and sae.free is not None else {}
    expected |= {"rows": -(-N * D * 5 // 8)} if family == "pruned" else {}  # m = 24 rows: 5 bits
    tensors, header = load_tensors(sae.save(tmp_path / "sae.safetensors"))
    assert {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()} == expected
    assert header["precision"] == precision
    counted = storage(sae)
    said = {name: value for name, value in header.items() if name not in ("about", "encoder_mask")}
    said = len(canonical_json(said)) - (0 if said["mask"] else 4)
    assert counted["storage_total_bytes"] == sum(expected.values()) + said
    assert counted["storage_bits_per_value"] == bits


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize(
    ("family", "n", "d"),
    [("expander", 4608, 7), ("expander", 4608, 30), ("expander", 4608, 100), ("dense", 240, 576)],
)
def test_files_of_a_real_size_are_as_small_as_the_formula(
    family: str, n: int, d: int, precision: str, tmp_path: Path
) -> None:
    m = 576
    sae = made(family, m=m, n=n, d=d).stored(precision)
    size = sae.save(tmp_path / "sae.safetensors", norm_limit=1745.3).stat().st_size
    counted = storage(sae)["storage_total_bytes"]
    values = n * d * PRECISIONS[precision].bits // 8
    assert 100 < counted - (values + n + 2 * m) < 310, "values, biases and the recipe"
    assert counted < size < 1.02 * counted


@pytest.mark.parametrize("precision", ROUNDED)
def test_a_flipped_byte_is_refused(precision: str, tmp_path: Path) -> None:
    file = made("expander", "independent").stored(precision).save(tmp_path / "sae.safetensors")
    whole = file.read_bytes()
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"sae\.safetensors"):
            load(file)


def test_rounding_is_close_and_leaves_the_original_alone() -> None:
    sae, h = made("dense"), activations()
    before = sae.values.detach().clone()
    columns = sae.dictionary().columns(torch.arange(N))
    lost = []
    for precision in PRECISIONS:
        stored = sae.stored(precision)
        cosine = (columns * stored.dictionary().columns(torch.arange(N))).sum(dim=1)
        lost.append(float(1 - cosine.mean()))
        assert torch.allclose(stored.b_enc, sae.b_enc, atol=0.02) and torch.isfinite(stored(h)[0]).all()
    assert sae.precision == "float32" and torch.equal(sae.values, before)
    assert lost == sorted(lost) and abs(lost[0]) < 1e-6
    # Lloyd and Max, for Gaussian entries: 1 − cos is about half the error of each bit width.
    for loss, bound in zip(lost[1:], (1e-5, 5e-5, 0.008, 0.07, 0.22), strict=True):
        assert loss < bound


def test_stored_from_stored_is_stored() -> None:
    sae = made("expander", "independent")
    for precision in PRECISIONS:
        once = sae.stored(precision)
        wide = once.stored("float32")
        assert wide.precision == "float32"
        assert torch.equal(once.dictionary().entries, wide.dictionary().entries)
    assert sae.to(torch.float64).stored("int8").b_enc.dtype == torch.float32


def test_a_free_encoder_keeps_the_length_of_its_columns() -> None:
    sae = made("expander", "independent")
    assert sae.encoder is not None
    with torch.no_grad():
        sae.encoder.mul_(torch.arange(1, N + 1)[:, None])
    stored = sae.stored("int8")
    assert stored.encoder is not None
    error = (stored.encoder - sae.encoder).norm(dim=1) / sae.encoder.norm(dim=1)
    assert error.max() < 0.01


def test_what_a_file_could_not_hold_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "sae.safetensors"
    for name in ("values", "encoder", "b_enc", "b_dec"):
        for precision in ("bfloat16", "int4"):
            changed = made("expander", "independent").stored(precision)
            with torch.no_grad():
                getattr(changed, name).reshape(-1)[3] += 0.123456
            with pytest.raises(UserError, match=rf"^{name}: found values that .* cannot hold"):
                changed.save(file)
    assert not file.exists()


def test_a_column_of_zeros_is_kept_or_refused() -> None:
    sae = made("dense")
    with torch.no_grad():
        sae.values[17] = 0
    assert (sae.stored("int8").dictionary().entries[17] == 0).all()
    for precision in ("int4", "int2", "int1"):
        with pytest.raises(UserError, match=f"column 17 is zero, for which {precision} has no level"):
            sae.stored(precision)


def test_what_is_no_number_does_not_become_one(tmp_path: Path) -> None:
    for precision in ROUNDED:
        sae = made("dense")
        with torch.no_grad():
            sae.values[3, 2] = float("nan")
        loaded = load(sae.stored(precision).save(tmp_path / "sae.safetensors"))
        assert not all(parameter.isfinite().all() for parameter in loaded.parameters())


def test_unknown_precisions_are_named(tmp_path: Path) -> None:
    expected = "expected one of float32, bfloat16, int8, int4, int2, int1"
    with pytest.raises(UserError, match=f"^precision: found 'int3', {expected}$"):
        made("dense").stored("int3")
    file = made("dense").stored("int4").save(tmp_path / "sae.safetensors")
    tensors, header = load_tensors(file)
    save_tensors(tensors, file, header | {"precision": "int3"})
    with pytest.raises(UserError, match=rf"sae\.safetensors: precision: found 'int3', {expected}"):
        load(file)


@pytest.mark.parametrize(
    ("precision", "change"),
    [
        ("int4", {"values": torch.zeros(N * D, dtype=torch.uint8)}),
        ("int4", {"values": torch.zeros(N, D)}),
        ("int8", {"values": torch.full((N, D), -128, dtype=torch.int8)}),
        ("int8", {"b_enc": torch.zeros(N)}),
        ("int8", {"encoder_step": torch.full((N,), -1.0, dtype=torch.bfloat16)}),
        ("bfloat16", {"b_dec": torch.zeros(M)}),
        ("bfloat16", {"values": torch.zeros(N, D, dtype=torch.int8)}),
    ],
)
def test_files_that_somebody_made_up_are_refused(
    precision: str, change: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = made("expander", "independent").stored(precision).save(tmp_path / "sae.safetensors")
    tensors, header = load_tensors(file)
    save_tensors(tensors | change, file, header)
    with pytest.raises(UserError, match=r"sae\.safetensors: "):
        load(file)


@pytest.mark.parametrize("step", [0, 0.0, -1.0, float("inf"), "0.1", None, True])
def test_a_step_that_is_none_is_refused(step: object, tmp_path: Path) -> None:
    file = made("expander").stored("int8").save(tmp_path / "sae.safetensors")
    tensors, header = load_tensors(file)
    save_tensors(tensors, file, header | {"b_enc_step": step if step != float("inf") else 10**400})
    with pytest.raises(UserError, match=r"sae\.safetensors: .*b_enc_step"):
        load(file)


def test_training_rounds_and_ends_with_what_it_used(tmp_path: Path) -> None:
    """In a training the file is that of the rounded columns, and so are codes and gradients."""
    h = activations()
    for family, encoder in (("expander", "tied"), ("bernoulli", "independent")):
        sae = made(family, encoder)
        sae.train_in("int2")
        latent = sae.values.detach().clone()
        used, code = sae.dictionary().columns(torch.arange(N)), sae.encode(h)
        early = load(sae.save(tmp_path / "early.safetensors"), backend="torch")
        assert torch.equal(sae.values, latent) and early.precision == "int2"
        sae.settle()
        assert not sae.decoder.rounds and not torch.equal(sae.values, latent)
        assert torch.allclose(sae.dictionary().columns(torch.arange(N)), used, atol=1e-6)
        if sae.free is not None:
            assert torch.equal(sae.free.dictionary().entries, early.free.dictionary().entries)
        assert (sae.encode(h).index == code.index).double().mean() > 0.95, "b_enc alone is rounded since"
        assert torch.equal(sae.dictionary().entries, early.dictionary().entries)
