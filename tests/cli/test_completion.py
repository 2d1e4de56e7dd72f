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
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _expander_sae; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
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
    assert complete(script, "expander-sae", "omp", "w") == []  # bash's own file names follow


def test_the_script_as_json(command):
    assert command("completion", "fish", "--json").json == {
        "shell": "fish",
        "script": command("completion", "fish").out.removesuffix("\n"),
    }
