import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers
from gguf import GGUFWriter
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from expander_sae.activations import weights
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.weights import materialise, read_model, verify_weights
from expander_sae.errors import UserError
from expander_sae.storage.seals import write_sealed_json
from tests.tiny_models import DEPTH, VOCABULARY, WIDTH, save_tiny_model, tiny_model, tiny_spec


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("saved") / "weights", "qwen2")


def test_folder_is_used_where_it_is(saved, tmp_path):
    materialise(tiny_spec(saved, "qwen2"), tmp_path / "weights", tmp_path / "model.json")
    record = json.loads((tmp_path / "model.json").read_text())
    assert (record["width"], record["depth"], record["dtype"]) == (WIDTH, DEPTH, "float32")
    assert record["architecture"] == "Qwen2ForCausalLM"
    assert record["path"] == str(saved)
    assert not (tmp_path / "weights").exists()


def test_a_folder_of_any_name_is_that_folder(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("model [1]", "~x", "{model}", "it's *"):
        (tmp_path / name).symlink_to(saved)
        for location in (tmp_path / name, f"~/{name}"):
            materialise(tiny_spec(location, "qwen2"), tmp_path / "weights", tmp_path / "model.json")
            assert read_model(tmp_path / "model.json")["path"] == str(saved)
    with pytest.raises(UserError, match=r"location: found no config\.json in ~nobody-of-this-name/x"):
        materialise(tiny_spec("~nobody-of-this-name/x", "qwen2"), tmp_path / "weights", tmp_path / "no.json")


def test_a_folder_that_was_named_relatively_moves_with_the_study(saved, tmp_path, monkeypatch):
    first = tmp_path / "first"
    shutil.copytree(saved, first / "models" / "tiny")
    monkeypatch.chdir(first)
    materialise(tiny_spec(Path("models/tiny"), "qwen2"), Path("weights"), Path("results/tiny/model.json"))
    shutil.copytree(first, tmp_path / "second")
    shutil.rmtree(first)
    record = read_model(tmp_path / "second/results/tiny/model.json")
    assert Path(record["path"]) == tmp_path / "second" / "models" / "tiny"
    verify_weights(record, "model.json")


def test_folder_below_the_results_is_recorded_relative(saved):
    materialise(tiny_spec(saved, "qwen2"), saved, saved.parent / "model.json")
    assert json.loads((saved.parent / "model.json").read_text())["path"] == saved.name
    assert read_model(saved.parent / "model.json")["path"] == str(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 17}, r"models\[tiny-qwen2\]\.width: found 17, expected 16"),
        ({"depth": 4}, r"models\[tiny-qwen2\]\.depth: found 4, expected 3"),
        ({"dtype": "float16"}, r"models\[tiny-qwen2\]\.dtype: found 'float16'"),
        ({"source": "ftp"}, r"models\[tiny-qwen2\]\.source: found 'ftp'"),
        ({"location": "/no/such/folder"}, r"models\[tiny-qwen2\]\.location: found no config\.json"),
        ({"source": "package", "location": "no-such-package"}, r"\.location: package 'no-such-package'"),
        ({"source": "package", "location": "numpy"}, r"\.location: found 0 GGUF files"),
    ],
)
def test_wrong_spec_names_the_key_and_writes_nothing(saved, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        materialise(tiny_spec(saved, "qwen2", **changes), tmp_path / "weights", tmp_path / "model.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"model_type": "mamba2", "num_heads": 3},
            r"location: .* no readable model \(Strict.* Inconsistent configuration",
        ),
        (
            {"model_type": "musicgen"},
            r"found no one model of text in its MusicgenConfig \(ValueError: Multiple",
        ),
        ({"model_type": "blt"}, r"models\[tiny-qwen2\]: found no hidden_size in its BltConfig"),
        (
            {"model_type": "qwen2", "num_attention_heads": "four"},
            r"location: .* no readable model \(.*num_attention_heads",
        ),
    ],
)
def test_a_configuration_that_the_library_refuses_gets_one_line(saved, tmp_path, config, said):
    folder = tmp_path / "odd"
    shutil.copytree(saved, folder)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said) as refused:
        materialise(tiny_spec(folder, "qwen2"), tmp_path / "weights", tmp_path / "model.json")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("fails", [AttributeError("no dropout"), ImportError("\nno timm"), TypeError("\n")])
def test_a_class_that_cannot_be_built_gets_one_line(saved, tmp_path, monkeypatch, fails):
    """As musicgen's of its own configuration, or one that needs a package that is not there."""

    def build(*_, **__):
        raise fails

    monkeypatch.setattr(transformers.Qwen2ForCausalLM, "__init__", build)
    materialise(tiny_spec(saved, "qwen2"), tmp_path / "weights", tmp_path / "model.json")
    with pytest.raises(UserError, match=rf"cannot load the model at .* \({type(fails).__name__}") as refused:
        LanguageModel.load(tmp_path / "model.json")
    assert "\n" not in str(refused.value)


class ConnectError(Exception):
    """What the Hub's HTTP client raises without a network; which client depends on the version."""

    __module__ = "httpx"


def http(kind):
    """An error of the Hub, made without the response that its constructor wants."""
    error = kind.__new__(kind, "401 from the server\nwith more lines")
    Exception.__init__(error, *error.args)
    return error


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (http(GatedRepoError), "is gated: accept its licence at https://huggingface.co/a/b, set HF_TOKEN"),
        (http(RepositoryNotFoundError), "was not found: check the name"),
        (LocalEntryNotFoundError("offline"), "could not be fetched .*: check the network"),
        (ConnectError("no route"), "could not be fetched .*: check the network"),
    ],
)
def test_model_the_hub_does_not_give_gets_one_line(monkeypatch, tmp_path, error, advice):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    spec = tiny_spec(tmp_path, source="hub", location="a/b", revision="abc")
    with pytest.raises(UserError, match=rf"models\[tiny-llama\]\.location: a/b {advice}") as caught:
        materialise(spec, tmp_path / "weights", tmp_path / "model.json")
    assert "\n" not in str(caught.value)
    assert "source: folder" in str(caught.value)


def test_hub_model_is_the_pinned_revision_without_code(monkeypatch, saved, tmp_path):
    asked = {}

    def give(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    spec = tiny_spec(saved, "qwen2", source="hub", location="a/b", revision="abc")
    materialise(spec, tmp_path / "weights", tmp_path / "model.json")
    assert (asked["name"], asked["revision"]) == ("a/b", "abc")
    assert not {"*.py", "*.bin", "*.pt"} & set(asked["patterns"])


def write_gguf(path, model):
    """The tiny Qwen2 model and a tokenizer of single characters as a GGUF file."""
    config, state = model.config, model.state_dict()
    writer = GGUFWriter(path, "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*(chr(33 + i) for i in range(VOCABULARY - 1)), "AB"])
    writer.add_token_types([1] * VOCABULARY)
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        "attn_output": "self_attn.o_proj",
        **{f"attn_{p}": f"self_attn.{p}_proj" for p in "qkv"},
        **{f"ffn_{p}": f"mlp.{p}_proj" for p in ("gate", "up", "down")},
    }
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for layer in range(DEPTH):
        names |= {f"blk.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in parts.items()}
    for ours, theirs in names.items():
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in state:
                writer.add_tensor(f"{ours}.{kind}", state[f"{theirs}.{kind}"].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_package_weights_become_a_plain_model(monkeypatch, tmp_path):
    plain = tiny_model("qwen2")
    write_gguf(tmp_path / "tiny.gguf", plain)
    monkeypatch.setattr(weights, "_gguf_file", lambda package, key: tmp_path / "tiny.gguf")
    spec = tiny_spec(tmp_path, "qwen2", source="package", location="some-package")
    materialise(spec, tmp_path / "out" / "weights", tmp_path / "out" / "model.json")
    config = json.loads((tmp_path / "out" / "weights" / "config.json").read_text())
    assert "quantization_config" not in config
    assert json.loads((tmp_path / "out" / "model.json").read_text())["path"] == "weights"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "weights"]
    model = LanguageModel.load(tmp_path / "out" / "model.json")
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
    torch.testing.assert_close(model.logits_after(model.residual(ids, [0])[0], 0, ids), expected)
    assert model.tokenizer("ABC")["input_ids"] == [VOCABULARY - 1, ord("C") - 33]


def test_stale_or_moved_model_is_named(saved, tmp_path):
    path = tmp_path / "model.json"
    materialise(tiny_spec(saved, "qwen2"), tmp_path / "weights", path)
    record = json.loads(path.read_text())
    write_sealed_json(path, {**record, "path": "gone"})
    with pytest.raises(UserError, match=r"the model's folder .*gone is gone"):
        read_model(path)
    write_sealed_json(path, {**record, "lineage": "model0"})
    with pytest.raises(UserError, match="another version of the code"):
        read_model(path)


def test_damaged_weights_are_named(tmp_path):
    folder = save_tiny_model(tmp_path / "weights")
    materialise(tiny_spec(folder), folder, tmp_path / "model.json")
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(
        UserError, match=r"model\.json: the files in .* are not those that it was written for"
    ):
        LanguageModel.load(tmp_path / "model.json")
    materialise(tiny_spec(folder), folder, tmp_path / "model.json")
    with pytest.raises(UserError, match=r"model\.json: cannot load the model"):
        LanguageModel.load(tmp_path / "model.json")


def test_weights_that_lack_a_tensor_are_refused(tmp_path):
    folder = save_tiny_model(tmp_path / "weights")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    materialise(tiny_spec(folder), folder, tmp_path / "model.json")
    with pytest.raises(UserError, match=r"has no model\.layers\.1\.mlp\.up_proj\.weight"):
        LanguageModel.load(tmp_path / "model.json")
