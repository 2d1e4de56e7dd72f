import io
import json
import subprocess
import sys

import pytest

from expander_sae.cli.main import COMMANDS, build_parser, command_module, main
from expander_sae.cli.terminal import Terminal, number


def test_help_needs_no_torch_numpy_or_pandas():
    code = (
        "import sys\nfrom expander_sae.cli.main import build_parser\nbuild_parser().format_help()\n"
        "print([name for name in ('torch', 'numpy', 'pandas', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(command, name):
    done = command(name, "--help")
    assert done.code == 0
    assert all(example in done.out for example in command_module(name).EXAMPLES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json(name):
    commands = next(action for action in build_parser()._actions if action.dest == "command")
    assert "--json" in commands.choices[name]._option_string_actions


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("eval",), ("bench", "--m", "0"), ("bench", "--n", "9" * 30)]
)
def test_a_wrong_command_line_exits_with_2(command, arguments):
    done = command(*arguments)
    assert done.code == 2
    assert "usage:" in done.err and done.out == ""


def test_a_user_error_is_one_message_and_exits_with_1(command, tmp_path):
    done = command("inspect", tmp_path / "none.safetensors", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"error: {tmp_path / 'none.safetensors'}: no such file\n"


def test_an_unreadable_place_is_no_traceback(command, weights, activations):
    done = command("omp", weights, activations[0], "--out", "/proc/none/codes.parquet")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: /proc/none")


def test_the_version_is_the_package_s(command):
    import expander_sae

    assert command("--version").out == f"expander-sae {expander_sae.__version__}\n"


def test_numbers_are_written_for_people():
    shown = {0.12345: "0.1235", 80921.3: "80,921", 12: "12", 4608: "4,608", None: "–", True: "yes"}
    assert {value: number(value) for value in shown} == shown


def test_too_little_memory_of_a_device_is_no_traceback(command, weights, activations, monkeypatch):
    import torch

    from expander_sae.cli import eval as command_of_eval

    def full(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore lines")

    monkeypatch.setattr(command_of_eval, "run", full)
    done = command("eval", weights, activations[0])
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: too little memory (CUDA out of memory. Tried to allocate 2 GiB. More lines)\n"


def test_a_defect_is_still_a_traceback(command, weights, activations, monkeypatch):
    from expander_sae.cli import eval as command_of_eval

    monkeypatch.setattr(command_of_eval, "run", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        command("eval", weights, activations[0])


def test_eval_takes_no_device_without_values(command, weights, activations):
    done = command("eval", weights, activations[0], "--device", "meta")
    assert (
        done.code == 1
        and done.err == "error: --device: found 'meta', expected auto, cpu, cuda or cuda:INDEX\n"
    )


def test_an_encoding_without_a_letter_ends_nothing(monkeypatch):
    """What an encoding lacks is replaced for a person, and spelled in JSON."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit):
        main(["--version"])
    Terminal().result({}, ["flatness β"])
    Terminal(as_json=True).result({"name": "β"}, [])
    stream.flush()
    lines = stream.buffer.getvalue().decode("cp1252").splitlines()
    assert lines[1] == "flatness ?"
    assert json.loads("".join(lines[2:])) == {"name": "β"}
