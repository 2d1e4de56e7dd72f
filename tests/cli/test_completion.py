import shutil
import subprocess

import pytest

from expander_sae.cli.main import COMMANDS


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_accepted_by_its_shell(command, tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(command("completion", shell).out)
    done = subprocess.run([shell, "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def complete(script, *words):
    """What bash offers for the last of `words`."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_expander_sae; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=script.parent)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_offers_commands_options_and_choices(command, tmp_path):
    script = tmp_path / "script"
    script.write_text(command("completion", "bash").out)
    assert set(COMMANDS) <= set(complete(script, "expander-sae", ""))
    assert complete(script, "expander-sae", "ins") == ["inspect"]
    assert "--inference" in complete(script, "expander-sae", "eval", "--")
    assert complete(script, "expander-sae", "bench", "--backend", "tri") == ["triton"]
    assert complete(script, "expander-sae", "completion", "") == ["bash", "zsh", "fish"]
    (tmp_path / "weights.safetensors").touch()
    for words in (("omp", "w"), ("omp", "a.npy", "w"), ("inspect", "--activations", "w")):
        assert complete(script, "expander-sae", *words) == ["weights.safetensors"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_every_command_and_option(command, shell):
    script = command("completion", shell).out
    for name in (*COMMANDS, "inference", "prepend-bos", "triton", "dictionary_learning"):
        assert name in script


def test_the_script_as_json(command):
    assert command("completion", "fish", "--json").json == {
        "shell": "fish",
        "script": command("completion", "fish").out.removesuffix("\n"),
    }
