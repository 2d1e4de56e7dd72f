"""Where a language model's files come from, and the `model.json` that points at them."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError, first_line
from expander_sae.stages import lineage
from expander_sae.storage.files import AGAIN, digest, read_json, sha256_file, temporary_sibling
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

_HUB_PATTERNS = [
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "tokenizer*",
    "*.model",
    "merges.txt",
    "*.txt",
]
_HASHED_SUFFIXES = {".safetensors", ".json", ".model", ".txt", ".py", ".bin"}
DTYPES = ("float32", "bfloat16")
_RECORD = (
    "label",
    "name",
    "path",
    "width",
    "depth",
    "dtype",
    "architecture",
    "trust_remote_code",
    "sha256",
    "lineage",
)


def materialise(spec: dict[str, Any], weights_folder: Path, out_json: Path) -> None:
    """Put a model's files where they can be loaded offline and write `model.json`.

    package: the GGUF file inside an installed package is rewritten as safetensors into
    `weights_folder`; hub: a snapshot of the pinned revision in the Hub's own cache; folder: the
    path as it is.

    Raises:
        UserError: the model cannot be had, or its width or depth is not what the config says; names the key.
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
    out_json = Path(out_json)
    write_sealed_json(
        out_json,
        {
            "label": spec["label"],
            "name": spec["name"],
            "path": _path_beside(folder, out_json.parent),
            "width": spec["width"],
            "depth": spec["depth"],
            "dtype": spec["dtype"],
            "architecture": (config.architectures or [type(config).__name__])[0],
            "trust_remote_code": spec["trust_remote_code"],
            "sha256": _folder_sha256(folder),
            "lineage": lineage("model"),
        },
    )


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
    text = config.get_text_config()
    for name, found in (("width", text.hidden_size), ("depth", text.num_hidden_layers)):
        if spec[name] != found:
            raise UserError(f"{key}.{name}: found {spec[name]}, expected {found} (what the model has)")


def read_model(model_json: str | Path) -> dict[str, Any]:
    """`model.json` with `path` made absolute.

    Raises:
        UserError: it or the model's files are missing or stale.
    """
    model_json = Path(model_json)
    record = read_sealed_json(model_json, _RECORD, "model record")
    if record["lineage"] != lineage("model"):
        raise UserError(
            f"{model_json}: written by another version of the code (found {record['lineage']}, expected "
            f"{lineage('model')}); {AGAIN}"
        )
    path = Path(model_json.parent, record["path"])
    if not path.is_dir():
        raise UserError(
            f"{model_json}: the model's folder {path} is gone; remove {model_json} to fetch it again"
        )
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


def _path_beside(folder: Path, base: Path) -> str:
    """Relative where `folder` lies below `base`, so that results can be moved; else absolute."""
    folder, base = folder.resolve(), base.resolve()
    return folder.relative_to(base).as_posix() if folder.is_relative_to(base) else str(folder)


def _folder_sha256(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in _HASHED_SUFFIXES)
    return digest({path.name: sha256_file(path) for path in files})


def _config(folder: Path, trust_remote_code: bool, key: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{key}.location: {folder} holds no readable model ({first_line(error)})") from None


def _from_folder(spec: dict[str, Any], weights_folder: Path, key: str) -> Path:
    folder = Path(spec["location"]).expanduser()
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{key}.location: found no config.json in {folder}, expected a saved Hugging Face model"
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{key}.location: found no .safetensors in {folder}; save the model as safetensors")
    return folder


def _from_hub(spec: dict[str, Any], weights_folder: Path, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name = spec["location"]
    patterns = [*_HUB_PATTERNS, "*.py"] if spec["trust_remote_code"] else _HUB_PATTERNS
    local = "or set source: folder with a local path"
    try:
        folder = Path(snapshot_download(name, revision=spec["revision"], allow_patterns=patterns))
    except GatedRepoError:
        advice = f"is gated: accept its licence at https://huggingface.co/{name}, set HF_TOKEN, {local}"
        raise UserError(f"{key}.location: {name} {advice}") from None
    except RevisionNotFoundError:
        raise UserError(f"{key}.revision: found {spec['revision']!r}, which {name} does not have") from None
    except RepositoryNotFoundError:
        advice = f"was not found: check the name, set HF_TOKEN if it is private, {local}"
        raise UserError(f"{key}.location: {name} {advice}") from None
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        advice = f"could not be fetched ({first_line(error)}): check the network and HF_HUB_OFFLINE, {local}"
        raise UserError(f"{key}.location: {name} {advice}") from None
    except Exception as error:  # the HTTP client's own errors, which differ between versions
        if not type(error).__module__.startswith(("httpx", "requests", "huggingface_hub")):
            raise
        advice = f"could not be fetched ({first_line(error)}): check the network, {local}"
        raise UserError(f"{key}.location: {name} {advice}") from None
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{key}.location: {name} has no .safetensors files, which are the only weights read")
    return folder


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
    try:
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{key}.location: cannot read {gguf} ({first_line(error)})") from None
    config = type(loaded.config)(
        **{k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "dtype")}
    )
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


def _gguf_file(package: str, key: str) -> Path:
    """The package's one GGUF file, found through its metadata: importing it needs other packages."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{key}.location: package {package!r} is not installed; `make install` installs it"
        ) from None
    found = [Path(str(distribution.locate_file(f))) for f in distribution.files or [] if f.suffix == ".gguf"]
    if len(found) != 1 or not found[0].is_file():
        raise UserError(f"{key}.location: found {len(found)} GGUF files in package {package!r}, expected one")
    return found[0].resolve()
