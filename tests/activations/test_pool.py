import json

import numpy as np
import pytest

from expander_sae.activations.pool import Pool, build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.seals import write_sealed_json

M, SHARD = 5, 30


def activations(count):
    values = np.random.default_rng(0).standard_normal((count, M)).astype(np.float32) + 1
    values[::10] *= 100  # massive activations
    return values


def write_shards(folder, tokens=70, **about):
    values = activations(tokens)
    paths = []
    for shard, start in enumerate(range(0, tokens, SHARD)):
        part = np.arange(start, min(start + SHARD, tokens))
        rows = Rows(
            (part // 8).astype(np.int32), (part % 8).astype(np.int16), part.astype(np.int32), values[part]
        )
        paths.append(folder / f"train-{shard:05d}.parquet")
        record = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": shard}
        record |= {"shard_tokens": SHARD, "lineage": lineage("extraction")}
        write_shard(paths[-1], rows, {**record, **about})
    return paths


def build(folder, paths):
    build_pool(paths, "train", folder / "train.f32", folder / "train.json", {"label": "mine"})
    return Pool.open(folder / "train.json")


@pytest.fixture
def pool(tmp_path):
    return build(tmp_path, write_shards(tmp_path))


def test_pool_is_the_shards_in_order(pool, tmp_path):
    values = activations(70)
    assert (pool.m, pool.tokens) == (M, 70)
    assert (tmp_path / "train.f32").read_bytes() == values.tobytes()
    assert np.array_equal(pool.activations, values)
    assert not pool.activations.flags.writeable
    assert np.array_equal(pool.token_id, np.arange(70))
    assert np.array_equal(pool.document, np.arange(70) // 8)
    assert np.array_equal(pool.position, np.arange(70) % 8)
    np.testing.assert_allclose(pool.norms, np.linalg.norm(values.astype(np.float64), axis=1), rtol=1e-15)


def test_pool_is_rebuilt_byte_for_byte(pool, tmp_path):
    files = [tmp_path / name for name in ("train.f32", "train.json", "train.tokens.safetensors")]
    before = [file.read_bytes() for file in files]
    build(tmp_path, write_shards(tmp_path))
    assert [file.read_bytes() for file in files] == before


def test_prefix_digest_survives_growth_only(pool, tmp_path):
    digests = {tokens: pool.prefix_digest(tokens) for tokens in (1, 30, 31, 60)}
    assert len(set(digests.values())) == 4
    grown = build(tmp_path, write_shards(tmp_path, tokens=90))
    assert {tokens: grown.prefix_digest(tokens) for tokens in digests} == digests
    assert grown.prefix_digest(70) != pool.prefix_digest(70)
    with pytest.raises(UserError, match=r"train\.json: found 90 tokens, expected 91"):
        grown.prefix_digest(91)


@pytest.mark.parametrize("name", ["train.f32", "train.tokens.safetensors"])
def test_altered_pool_is_noticed(pool, tmp_path, name):
    raw = bytearray((tmp_path / name).read_bytes())
    raw[-3] ^= 1
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match=f"{name}: found sha256"):
        Pool.open(tmp_path / "train.json")
    Pool.open(tmp_path / "train.json", verify=False)


def test_truncated_missing_and_stale_pools_are_named(pool, tmp_path):
    raw, manifest = tmp_path / "train.f32", tmp_path / "train.json"
    raw.write_bytes(raw.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"train\.f32: found 1396 bytes, expected 1400"):
        Pool.open(manifest)
    raw.unlink()
    with pytest.raises(UserError, match=r"train\.f32: found 0 bytes"):
        Pool.open(manifest)
    write_sealed_json(manifest, {**json.loads(manifest.read_text()), "lineage": "pool0"})
    with pytest.raises(UserError, match=r"train\.json: found lineage 'pool0'"):
        Pool.open(manifest)


def test_shards_out_of_order_or_of_another_layer_are_refused(tmp_path):
    paths = write_shards(tmp_path)
    with pytest.raises(UserError, match=r"train-00001\.parquet: found shard 1, expected 0"):
        build(tmp_path, paths[::-1][1:])
    other = write_shards(tmp_path / "other", layer=2)
    with pytest.raises(UserError, match=r"train-00001\.parquet: found layer 2, expected 1"):
        build(tmp_path, [paths[0], other[1]])
    with pytest.raises(UserError, match="found split 'train', expected 'ce'"):
        build_pool(paths, "ce", tmp_path / "ce.f32", tmp_path / "ce.json")
    assert not list(tmp_path.glob("*.f32")) and not list(tmp_path.glob("*.json"))


def test_missing_shard_and_no_token(tmp_path):
    paths = write_shards(tmp_path)
    with pytest.raises(UserError, match=r"gone\.parquet: no such file"):
        build(tmp_path, [paths[0], tmp_path / "gone.parquet"])
    with pytest.raises(UserError, match="found no token in the train split"):
        build(tmp_path, [])
    assert not (tmp_path / "train.f32").exists()
