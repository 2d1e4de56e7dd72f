"""Blocks that take an autoencoder from elsewhere: what planning reads of it, and what they may not say."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.interop import dictionary_learning, saelens, sparsify
from expander_sae.interop.foreign import load_any
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.masks.supports import find, support_of
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.storage.files import digest
from expander_sae.study import targets
from expander_sae.study.imported import read
from expander_sae.study.study import Study, load_config
from tests.study.configs import config

M, N, K, D = 576, 40, 5, 64


def made(mask=None, k=K, encoder="tied"):
    sae = SparseAutoencoder(M, N, k, mask, encoder, "torch")
    sae.initialise(torch_generator(0, "imported"))
    return sae


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Name → an autoencoder as every format holds it."""
    folder = tmp_path_factory.mktemp("formats")
    sparse, dense = made(MaskRecipe("expander", M, N, D, 3).generate()), made(encoder="independent")
    jump = made(k=N, encoder="independent")
    jump.thresholds = torch.full((N,), 0.5)
    sparse.save(folder / "native.safetensors")
    sparse.stored("int4").save(folder / "run" / "weights.safetensors", spec={"codes": "omp"})
    saelens.export(dense, folder / "topk", say=False)
    saelens.export(sparse, folder / "masked", say=False)
    saelens.export(sparse, folder / "compact", compact=True, say=False)
    saelens.export(jump, folder / "jump", say=False)
    sparsify.export(sparse, folder / "sparsify", say=False)
    dictionary_learning.export(dense, folder / "learning", say=False)
    older = json.loads((folder / "topk" / "cfg.json").read_text())
    older |= {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}}
    shutil.copytree(folder / "topk", folder / "older")
    older = {key: value for key, value in older.items() if key != "k"}
    older["metadata"] = {key: value for key, value in older["metadata"].items() if "version" not in key}
    (folder / "older" / "cfg.json").write_text(json.dumps(older))
    arrays = {"W_enc": (M, N), "W_dec": (N, M), "b_enc": (N,), "b_dec": (M,), "threshold": (N,)}
    np.savez(folder / "params.npz", **{name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    return folder


@pytest.mark.parametrize(
    "name",
    ["native.safetensors", "run", "topk", "masked", "compact", "jump", "older", "sparsify", "learning",
     "params.npz"],
)  # fmt: skip
def test_sizes_are_those_of_the_loaded_autoencoder(places, name):
    sizes, loaded = read("x", str(places / name)).sizes, load_any(places / name)
    assert (sizes.m, sizes.n, sizes.d, sizes.k) == (loaded.m, loaded.n, loaded.d, loaded.k)
    assert sizes.precision == loaded.decoder.precision.name
    assert sizes.codes == loaded.about.get("spec", {}).get("codes", "encoder")
    assert sizes.encoder == (loaded.encoder_kind if name in ("native.safetensors", "run") else "imported")


def block(place, **changes):
    return {"support": "imported", "path": str(place), "name": "their-topk", **changes}


def study(*blocks):
    return Study(load_config(config(runs=[{"support": "expander"}, *blocks])))


def test_a_block_is_one_run_whatever_the_grid_says(places):
    found = study(block(places / "topk")).runs[-1]
    assert re.fullmatch("imported-their-topk-[0-9a-f]{12}", found.support)
    assert (found.m, found.n, found.d, found.k, found.steps, found.seed) == (M, N, M, K, 0, 0)
    assert (found.precision, found.codes) == ("float32", "encoder") and found.parent is None
    assert found.evaluation.inference == ("encoder", "omp") and found.mask is None
    known = support_of(found.support)
    assert known.short == known.legend == "their-topk" and not known.trained and not known.floor
    assert find("imported") is None and find("imported-x") is None


def test_a_rounded_run_of_ours_is_no_run_that_this_study_rounds(places):
    """Nothing is trained for it, and what is measured of its spoilt encoder are its own codes."""
    made = study(block(places / "run"))
    found = made.runs[-1]
    assert (found.precision, found.codes, found.d) == ("int4", "omp", D) and found.parent is None
    assert found.is_trained and found.evaluation.inference == ("omp",)
    assert found in made.trained and not found.ancestors


def test_other_runs_are_planned_as_without_the_block(places):
    alone, beside = study(), study(block(places / "topk"))
    assert beside.runs[:-1] == alone.runs and beside.speed_spec() == alone.speed_spec()
    assert [run.path for run in beside.runs[:-1]] == [run.path for run in alone.runs]
    for job in alone.trainings:
        assert job in beside.trainings
    (imported,) = [job for job in beside.trainings if job.runs[0].is_imported]
    assert imported.runs == beside.runs[-1:]
    told = targets.training_spec(imported)[imported.runs[0].path]
    assert told["imported"] == str(places / "topk") and told.keys() == {"spec", "imported", "sha256"}


@pytest.mark.parametrize("name", ["topk/sae_weights.safetensors", "topk/cfg.json"])
def test_a_changed_byte_is_another_run_and_another_place_is_not(places, tmp_path, name):
    shutil.copytree(places / "topk", tmp_path / "topk")
    first, moved = study(block(places / "topk")).runs[-1], study(block(tmp_path / "topk")).runs[-1]
    assert moved.spec == first.spec and moved.path == first.path
    content = bytearray((tmp_path / name).read_bytes())
    place = content.index(b"cpu") if name.endswith("json") else len(content) - 1  # the device changes nothing
    content[place] ^= 1
    (tmp_path / name).write_bytes(content)
    changed = study(block(tmp_path / "topk")).runs[-1]
    assert digest(changed.spec) != digest(first.spec) and changed.path != first.path


def test_beside_a_readme_it_is_the_same(places, tmp_path):
    shutil.copytree(places / "topk", tmp_path / "topk")
    (tmp_path / "topk" / "README.md").write_text("mine")
    assert study(block(tmp_path / "topk")).runs[-1] == study(block(places / "topk")).runs[-1]


def test_a_relative_path_begins_where_the_workflow_runs(places, monkeypatch):
    monkeypatch.chdir(places)
    assert study(block("topk")).runs[-1] == study(block(places / "topk")).runs[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "nowhere"}, "runs[1].path: nowhere: no such file or folder, expected an autoencoder"),
        ({"path": None}, "runs[1].path: missing, expected it with support imported"),
        ({"name": None}, "runs[1].name: missing, expected it with support imported"),
        ({"name": "a/b"}, "runs[1].name: found 'a/b', expected a name of at most 40 letters"),
        ({"seeds": [0, 1]}, "runs[1].seeds: found [0, 1] with support imported, expected no such key"),
        ({"precision": "int8"}, "runs[1].precision: found 'int8' with support imported, expected no such"),
        ({"steps": 10}, "runs[1].steps: found 10 with support imported, expected no such key"),
        ({"n": 64, "k": 3}, "runs[1].n: found 64 with support imported, expected no such key"),
        ({"recipe": "paper"}, "runs[1].recipe: unknown key"),
        ({"support": "dense"}, "runs[1].name: found 'their-topk' with support dense, expected support imp"),
        ({"support": ["imported", "dense"]}, "runs[1].support: found ['imported', 'dense'], expected impo"),
        ({"inference": ["encoder"], "cross_entropy": ["omp"]}, "runs[1].cross_entropy: found 'omp', expe"),
        ({"models": ["gpt"]}, "runs[1].models: found 'gpt', expected one of smollm2"),
        ({"layers": [99]}, "runs[1].layers[0]: found 99, expected at most 29"),
    ],
)
def test_what_makes_no_sense_is_named(places, changes, message):
    asked = {key: value for key, value in block(places / "topk", **changes).items() if value is not None}
    with pytest.raises(UserError) as caught:
        study(asked)
    assert message in str(caught.value), caught.value


def test_two_blocks_of_one_name_and_another_width_are_refused(places, tmp_path):
    narrow = SparseAutoencoder(16, 32, 4)
    narrow.save(tmp_path / "narrow.safetensors")
    with pytest.raises(UserError) as caught:
        study(block(places / "topk"), block(tmp_path / "narrow.safetensors", name="Their-TopK"))
    assert "runs[2].name: found 'Their-TopK' again, expected another name" in str(caught.value)
    with pytest.raises(UserError) as caught:
        study(block(tmp_path / "narrow.safetensors"))
    assert "runs[1].path: found m = 16 in" in str(caught.value)
    assert "expected 576, the width of model smollm2-135m-instruct" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("sae_weights.safetensors", b"nonsense", "not a whole safetensors file"),
        ("cfg.json", b"[]", "cfg.json: found none"),
        ("cfg.json", None, "cfg.json: no such file"),
        ("cfg.json", b'{"architecture": "topk"}', "cfg.json: found k None, expected a whole number"),
        ("ae.pt", b"x", "found sae_weights.safetensors and ae.pt, expected one of them"),
    ],
)
def test_files_that_say_no_sizes_are_named(places, tmp_path, file, content, message):
    shutil.copytree(places / "topk", tmp_path / "topk")
    if content is None:
        (tmp_path / "topk" / file).unlink()
    else:
        (tmp_path / "topk" / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        study(block(tmp_path / "topk"))
    assert message in str(caught.value), caught.value


@pytest.mark.parametrize("kept", [0, 100, 400])
def test_a_cut_file_of_arrays_is_named(places, tmp_path, kept):
    (tmp_path / "params.npz").write_bytes((places / "params.npz").read_bytes()[:kept])
    with pytest.raises(UserError, match=r"runs\[1\]\.path: .*params.npz: not a .npz of numbers"):
        study(block(tmp_path / "params.npz"))


def test_arrays_of_other_names_say_no_sizes(tmp_path):
    np.savez(tmp_path / "params.npz", values=np.ones((4, 4), np.float32))
    with pytest.raises(UserError, match=r"params.npz: found none .*W_dec"):
        study(block(tmp_path / "params.npz"))


def test_a_pickle_says_no_sizes(places, tmp_path):
    shutil.copytree(places / "learning", tmp_path / "learning")
    (tmp_path / "learning" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        study(block(tmp_path / "learning"))
