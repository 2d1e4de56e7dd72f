"""Names and paths full of shell and YAML: planned, printed and run, and nothing of them executed."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.faults.generators import Canary
from tests.faults.processes import SCRIPTS, run, script
from tests.faults.tally import Tally
from tests.faults.tiny_study import ENVIRONMENT, ROOT, configuration, snakemake

FOLDERS = (
    "a b",
    "it's",
    '"quoted"',
    "a;touch canary",
    "$(touch canary)",
    "`touch canary`",
    "{model}",
    "a&b|c",
    "é",
)
BAD_NAMES = ("..", "../x", "/tmp/x", "a/b", "a b", "$(touch canary)", "a;b", "", ".x", "x\n", "-x", "logs")


def _said(text: str) -> bool:
    return "Traceback" not in text and ("error: " in text or "config: " in text or "WorkflowError" in text)


def shell(folder: Path, names: tuple[str, ...] = FOLDERS) -> Tally:
    """Model folders of these names: planned with their commands printed, and the model's job run."""
    tally = Tally("shell and paths")
    for number, name in enumerate(names):
        here = folder / f"shell-{number}"
        model = here / name
        shutil.copytree(folder / "study" / "model", model)
        config = configuration(folder / "study")
        config["models"][0]["location"] = str(model)
        done = _workflow(here, config, "--dry-run", "--printshellcmds", "--", "results/metrics.parquet")
        fine = done.returncode == 0 or _said(done.stdout + done.stderr)
        tally.fault(fine, f"plan of {name!r}: {done.stdout[-500:]} {done.stderr[-500:]}")
        found = [line for line in (done.stdout + done.stderr).splitlines() if "/model.py --log" in line]
        command = found[0].partition("command: ")[2] if found else ""
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            cwd=here,
            timeout=120,
        )
        made = list((here / "results").glob("*/model.json"))
        clear = bool(made) if ran.returncode == 0 else _said(ran.stdout + ran.stderr)
        tally.fault(bool(command) and clear, f"model of {name!r}: {ran.returncode} {ran.stderr[-500:]}")
        outside = [path.name for path in here.rglob("canary")]
        tally.fault(not outside, f"{name!r}: executed")
        shutil.rmtree(here)
    for name in BAD_NAMES:
        from expander_sae.errors import UserError
        from expander_sae.study.study import Study, load_config

        for block in ("models", "corpus"):
            config = configuration(folder / "study")
            (config[block][0] if block == "models" else config[block])["name"] = name
            try:
                runs = Study(load_config(config)).runs
                inside = all(
                    run.path.startswith("results/") and ".." not in run.path.split("/") for run in runs
                )
                # Only a model must not be called as a folder of results/ is.
                tally.fault(
                    inside and block == "corpus" and name == "logs", f"{block}: {name!r} was accepted"
                )
            except UserError:
                tally.fault(True)
    return tally


def _workflow(folder: Path, config: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        snakemake(folder, *arguments),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=folder,
        timeout=300,
    )


def foreign_code(folder: Path) -> Tally:
    """Models that would run code: pickles, a pickle named as safetensors, Python beside the weights."""
    import json

    tally = Tally("foreign code")
    source = folder / "study" / "model"

    def pickles_alone(model: Path) -> None:
        (model / "model.safetensors").unlink()
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Canary()))

    def pickle_beside(model: Path) -> None:
        (model / "model.safetensors").rename(model / "other.safetensors")
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Canary()))

    def pickle_in_disguise(model: Path) -> None:
        (model / "model.safetensors").write_bytes(pickle.dumps(Canary()))

    def pickle_by_index(model: Path) -> None:
        (model / "model.safetensors").rename(model / "other.safetensors")
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Canary()))
        index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "pytorch_model.bin"}}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))

    def python(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
        config["model_type"] = "own"
        (model / "config.json").write_text(json.dumps(config))
        (model / "own.py").write_text("open('canary', 'w')\nclass Own: pass\n")

    def python_tokenizer(model: Path) -> None:
        config = json.loads((model / "tokenizer_config.json").read_text())
        config["auto_map"] = {"AutoTokenizer": ["own.Own", None]}
        config["tokenizer_class"] = "Own"
        (model / "tokenizer_config.json").write_text(json.dumps(config))
        (model / "own.py").write_text("open('canary', 'w')\nclass Own: pass\n")

    cases: list[Callable[[Path], None]] = [pickles_alone, pickle_beside, pickle_in_disguise, pickle_by_index]
    for change in [*cases, python, python_tokenizer]:
        here = folder / f"foreign-{change.__name__}"
        model = here / "model"
        shutil.copytree(source, model)
        change(model)
        ended = run(lambda model=model: _load(model), here)
        harmless = change is python_tokenizer and ended.code == 0
        clear = ended.code == 2 and "error: " in ended.output and "Traceback" not in ended.output
        tally.fault(clear or harmless, f"{change.__name__}: {ended.code} {ended.output[-500:]}")
        tally.fault(not (here / "canary").exists(), f"{change.__name__}: executed")
        shutil.rmtree(here)
    return tally


def _load(model: Path) -> None:
    from expander_sae.activations.language_model import LanguageModel
    from expander_sae.activations.weights import materialise
    from expander_sae.errors import reported_to_user
    from tests.tiny_models import tiny_spec

    os.environ.update(ENVIRONMENT)
    with reported_to_user():
        materialise(tiny_spec(model), model, Path("model.json"))
        loaded = LanguageModel.load("model.json")
        print(loaded.tokenizer)


def tokens_in_logs(folder: Path) -> Tally:
    """A token in the environment stands neither in logs nor in what is said of the machine."""
    tally = Tally("tokens in logs")
    token = "hf_" + "AnotherTokenThatIsNone"
    here = folder / "token"
    here.mkdir()

    def work() -> None:
        os.environ.update({**ENVIRONMENT, "HF_TOKEN": token})
        from expander_sae.machine import provenance

        print(provenance.versions(), provenance.hardware(), provenance.git_state(ROOT))
        script(
            [
                str(SCRIPTS / "mask.py"),
                "--log",
                "results/logs/a.log",
                "--spec",
                "{",
                "--out",
                "results/a.json",
            ]
        )()

    ended = run(work, here)
    told = [path for path in here.rglob("*") if path.is_file() and token in path.read_text(errors="replace")]
    tally.fault(ended.code != 0 and token not in ended.output and not told, f"{ended.output[-300:]} {told}")
    shutil.rmtree(here)
    return tally
