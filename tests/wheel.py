"""What somebody has who installed the wheel and nothing else: `make test-wheel` runs this with python -I.

The ten lines of the README, the command line, and what a wheel does not bring said in words.
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


def main() -> None:
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
        (folder / "config.yaml").write_text("models: []\n")
        for module, argument in (("cost", "config.yaml"), ("report", ".")):
            said = run(*python, "-m", f"expander_sae.{module}", argument, folder=folder, code=2)
            assert "not by the installed library alone" in said, said
    print(f"the wheel alone works: torch {torch.__version__}, expander-sae {expander_sae.__version__}")


if __name__ == "__main__":
    main()
