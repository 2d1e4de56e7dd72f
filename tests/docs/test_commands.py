"""Every command of the README and the documentation is run here, planned, or listed with a reason.

A command that no rule knows fails: whoever writes one down says here how it is tested.
"""

import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml

from expander_sae.activations.shards import Rows, write_shard
from expander_sae.cli.main import build_parser, main
from expander_sae.interop import saelens
from expander_sae.interop.dense import to_dense
from expander_sae.study.study import Study, load_config
from tests.cli.conftest import make_weights
from tests.dashboard.conftest import make_run
from tests.docs.blocks import ROOT, blocks, commands

NOT_RUN = {
    r"(python -m )?pip install .*": "needs a package index",
    r"make (install|frontier|test|lint|docs)( TORCH_INDEX=\S+)?": "minutes long; CI has some of them",
    r"make saebench": "needs the results of the default run, and an environment of its own",
    r"snakemake --cores all results/\S+": "minutes long; tests/workflow runs them on a small study",
    r"make .*PROFILE=\S+.*": "needs a cluster; tests/cluster runs one of a single node",
    r"snakemake --workflow-profile profiles/\S+ .*": "needs a cluster",
    r"apptainer build .*|snakemake .* --software-deployment-method apptainer .*": "needs Apptainer",
    r"python -m benchmarks\.\S+ .*": "times the machine for minutes; tests/benchmarks runs it small",
    r"python -m expander_sae\.cost \S+ (--against|--cpu) .*": "needs a run; tests/cost/test_cost.py has one",
    r".* --wandb .*": "needs an account",
    r"(torchrun|srun) .*": "several processes; tests/training/test_data_parallel.py starts two",
    r"expander-sae (push|pull) .*": "needs the Hub; tests/cli/test_hub.py has a stand-in for it",
}
"""Commands that no test runs as they stand, and why."""

SMALL = {"n": "48", "d": "4", "k": "4", "steps": "4", "m": "16", "held-out": "16", "batch": "8"}
"""What stands in for the sizes of the documentation."""


def kind(command):
    remote = re.match(r"expander-sae (push|pull) (?!.*--dry-run)", command) or "--wandb" in command
    if command.startswith("expander-sae ") and not remote:
        return "expander-sae"
    if re.match(r"(\.venv/bin/)?snakemake (--dry-run|-n)( |$)", command):
        return "plan"
    if re.fullmatch(r"(\.venv/bin/)?python -m expander_sae\.cost \S+ --nodes \d+", command):
        return "cost"
    if re.fullmatch(r"make frontier CONFIG=\S+", command):
        return "configuration"
    known = [rule for rule in NOT_RUN if re.fullmatch(rule, command.removeprefix(".venv/bin/"))]
    assert known, "no rule of tests/docs/test_commands.py says how this command is tested"
    return "not run"


ALL = [pytest.param(command, id=f"{place} {command[:50]}") for place, command in commands()]


def texts():
    """Everything in which a command can be shown: pages, configurations, scripts and what `make` says."""
    folders = ("docs", "configs", "studies", "profiles", "workflow", "expander_sae", ".ci")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    kept = [path for path in found if path.suffix in (".md", ".yaml", ".py", ".smk", "")]
    return [path for path in [*kept, *ROOT.glob("*.md"), ROOT / "Makefile"] if path.is_file()]


def test_no_target_is_shown_where_snakemake_takes_it_for_a_configuration():
    """Every word after --configfile is one, up to the next option; but `all` is a file of that name."""
    shown = 0
    for path in texts():
        for file, rest in re.findall(
            r"snakemake[^`\"\n]* --configfile ([^\s`\"]+)([^`\"\n]*)", path.read_text("utf-8")
        ):
            shown += 1
            words = rest.split("#")[0].split()
            wrong = words and words[0] != "all" and not words[0].startswith(("-", "\\", "|", "&"))
            assert not wrong, f"{path.relative_to(ROOT)}: --configfile {file}{rest}"
    assert shown > 3


@pytest.mark.parametrize("command", ALL)
def test_every_command_is_known(command):
    assert kind(command)


def of_kind(wanted):
    def matches(command):
        try:
            return kind(command) == wanted
        except AssertionError:
            return False

    return [case for case in ALL if matches(case.values[0])]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with every file that the documentation's commands name."""
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    for name in ("activations.npy", "held_out.npy"):
        np.save(name, draws.standard_normal((200, 24)).astype(np.float32))
    sae = make_weights(tmp_path / "weights.safetensors")
    saelens.export(sae, tmp_path / "saelens_folder", say=False)
    dense, zeros = to_dense(sae), np.zeros(sae.n, np.float32)
    arrays = {"W_enc": dense.encoder.T, "W_dec": dense.decoder, "b_enc": dense.b_enc, "b_dec": dense.b_dec}
    np.savez(tmp_path / "params.npz", threshold=zeros, **{name: one.numpy() for name, one in arrays.items()})
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("finished"))


def smaller(command):
    for option, value in SMALL.items():
        command = re.sub(rf"--{option} \d+", f"--{option} {value}", command)
    return f"{command} --steps 4" if " train " in command else command


def pages_that_train():
    """Page → its commands of ours in order, where it makes the files that it goes on to use."""
    found = {}
    for where, command in commands():
        if command.startswith("expander-sae ") and kind(command) == "expander-sae":
            found.setdefault(where.partition(":")[0], []).append(command)
    return {page: told for page, told in found.items() if any(" train " in command for command in told)}


@pytest.mark.parametrize("page", pages_that_train())
def test_a_page_that_trains_needs_nothing_but_activations(page, place, finished, capsys):
    for file in place.iterdir():
        if file.is_dir():
            shutil.rmtree(file)
        elif file.name != "activations.npy":
            file.unlink()
    for command in pages_that_train()[page]:
        run_as_written(command, place, finished, capsys)


ALONE = [
    case
    for case in of_kind("expander-sae")
    if not any(case.values[0] in told for told in pages_that_train().values())
]


@pytest.mark.parametrize("command", ALONE)
def test_our_commands_run(command, place, finished, capsys):
    run_as_written(command, place, finished, capsys)


def in_memory():
    """The address of a folder of shards, in the stead of one that a network would be needed for."""
    tokens = np.load("activations.npy")
    place = np.arange(len(tokens))
    rows = Rows(place.astype("i4"), (0 * place).astype("i2"), place.astype("i4"), tokens)
    write_shard("memory://bucket/shards/train-00000.parquet", rows, {"split": "train"})
    return "memory://bucket/shards"


def run_as_written(command, place, finished, capsys):
    arguments = shlex.split(smaller(command))[1:]
    build_parser().parse_args(shlex.split(command)[1:])  # as it stands, too
    if "--tensorboard" in arguments:
        pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    arguments = [str(finished) if part.startswith("results/") else part for part in arguments]
    arguments = [in_memory() if part.startswith("s3://") else part for part in arguments]
    assert main(arguments) == 0, capsys.readouterr().err
    assert capsys.readouterr().out
    for option in ("--out", "--csv", "--held-out-to"):
        if option in arguments:
            assert (place / arguments[arguments.index(option) + 1]).stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("command", of_kind("plan"))
def test_plans_are_made(command, tmp_path):
    words = shlex.split(command)[1:]
    if "--configfile" in words:
        where = words.index("--configfile") + 1
        if not (ROOT / words[where]).exists():
            words[where] = str(example(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--directory", str(tmp_path), *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def example(folder):
    """A configuration of the how-to pages, as the file that its commands name."""
    path = folder / "mine.yaml"
    shown = next(block.text for block in blocks("yaml") if block.place.startswith("docs/howto/model"))
    path.write_text(shown)
    return path


@pytest.mark.parametrize("command", of_kind("configuration"))
def test_configurations_that_are_named_exist_or_are_shown(command):
    name = command.partition("CONFIG=")[2]
    assert name == "mine.yaml" or (ROOT / name).is_file()


@pytest.mark.parametrize("command", of_kind("cost"))
def test_costs_are_estimated(command):
    words = shlex.split(command)[1:]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0 and done.stdout, done.stderr


CONFIGURATIONS = [block for block in blocks("yaml") if re.search(r"^runs:", block.text, re.MULTILINE)]


@pytest.mark.parametrize("block", CONFIGURATIONS, ids=lambda block: block.place)
def test_configurations_are_accepted(block):
    assert Study(load_config(yaml.safe_load(block.text))).runs


def test_reasons_are_all_needed():
    """A rule that matches nothing any more is to be removed."""
    known = [command.removeprefix(".venv/bin/") for _, command in commands()]
    optional = {r".* --wandb .*", r"snakemake --workflow-profile profiles/\S+ .*"}
    unused = [rule for rule in NOT_RUN if not any(re.fullmatch(rule, command) for command in known)]
    assert set(unused) <= optional
