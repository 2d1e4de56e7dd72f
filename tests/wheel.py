"""What somebody has who installed the wheel: `make test-wheel` runs this with python -I.

That is the ten lines of the README and the command line; with the extra `workflow`, and that word as its
argument, a study from nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = Path(sys.executable).with_name("expander-sae")


def run(*arguments: str, folder: Path, code: int = 0) -> str:
    """Standard output and error of a command, which must end with `code` and no traceback."""
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == code and "Traceback" not in said, f"{arguments}: {done.returncode}\n{said}"
    return said


def library() -> None:
    """Without the workflow's packages."""
    import torch

    import expander_sae

    assert not Path(expander_sae.__file__).is_relative_to(ROOT / "expander_sae"), "found the checkout"
    python = sys.executable, "-I"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        torch.save(
            torch.randn(2000, 64, generator=torch.Generator().manual_seed(0)), folder / "activations.pt"
        )
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
        (folder / "quickstart.py").write_text(block, encoding="utf-8")
        said = run(*python, "quickstart.py", folder=folder)
        assert said.count("relative_error") == 2 and "Warning" not in said, said
        assert (folder / "sae.safetensors").stat().st_size < 30_000

        commands = str(COMMANDS)
        assert "dashboard" in run(commands, "--help", folder=folder)
        run(commands, "eval", "sae.safetensors", "activations.pt", "--json", folder=folder)
        run(commands, "inspect", "sae.safetensors", folder=folder)
        for kind in ("saelens", "sparsify", "dictionary_learning"):
            run(commands, "export", "sae.safetensors", "--format", kind, "--out", kind, folder=folder)
        said = run(commands, "init", "s", "--config", "smoke", folder=folder)
        assert "pip install 'expander-sae[workflow]'" in said, said
        assert "evaluation" in run(*python, "-m", "expander_sae.cost", "s/config.yaml", folder=folder)
        said = run(*python, "-m", "expander_sae.report", ".", folder=folder, code=2)
        assert "no such table" in said, said
    print(f"the wheel alone works: torch {torch.__version__}, expander-sae {expander_sae.__version__}")


def workflow() -> None:
    """With them: `init` and `snakemake` plan the default study, and jobs find what they read."""
    snakemake = COMMANDS.with_name("snakemake")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "s"
        run(str(COMMANDS), "init", str(folder), folder=Path(place))
        said = run(str(snakemake), "-n", folder=folder)
        for rule in ("model", "tokens", "pool", "mask", "evaluate", "collect", "frontier", "claims"):
            assert re.search(rf"^{rule} +\d+$", said, re.MULTILINE), f"{rule} is not planned\n{said}"
        mask = "results/masks/expander_m16_n32_d3_seed0.json"
        run(str(snakemake), "--cores", "1", mask, folder=folder)
        assert (folder / mask).stat().st_size
    print("the wheel with the extra `workflow` plans the default study")


if __name__ == "__main__":
    workflow() if sys.argv[1:] == ["workflow"] else library()
