import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import REPOSITORY

KEYWORDS = """
from os import fspath
from pathlib import Path

from xlner import Tagger, adapt_encoder, distill, load_recipe, train_teacher

encoder = adapt_encoder(target="de", text=Path("letters.txt"), vocabulary={"new_pieces": 2000})
teacher = train_teacher(language="en", data="data", encoder=encoder, optimization={"epochs": 2, "decay": "cosine"})
student = distill(target="de", teacher=[teacher, "runs/nl/model"], text=["Ein Satz.", "Noch einer."], seed=1)
student = distill(target="de", teacher=teacher, text=[["Ein", "Satz", "."]], trackers="tensorboard")
student = distill(load_recipe("distill", ["target=de"]))
tagger: Tagger = student.tagger()
score: float = student.report["scores"]["student"]["overall"]["f1"]
place: str = fspath(student)
folder: Path = student.path
"""

pytestmark = pytest.mark.slow

pytest.importorskip("mypy", reason="mypy is not installed: pip install -e '.[dev]'")


def test_the_python_of_readme_and_docs_passes_a_strict_type_checker(tmp_path):
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
    blocks = [re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL) for page in pages]
    snippets = [block for found in blocks for block in found if "from xlner import" in block]
    for number, snippet in enumerate(snippets):
        (tmp_path / f"snippet_{number}.py").write_text(snippet, encoding="utf-8")
    for path in (REPOSITORY / "examples").glob("*.py"):
        shutil.copy(path, tmp_path / f"example_{path.name}")
    (tmp_path / "model_of_torch.py").write_text(
        "from torch import nn\nfrom xlner import load_tagger\n\nnetwork: nn.Module = load_tagger('x').model\n"
    )
    (tmp_path / "keywords.py").write_text(KEYWORDS)
    wrong = "from xlner import distill, load_recipe\n\ndistill(load_recipe('teacher', []))\n"
    (tmp_path / "wrong.py").write_text(wrong)

    # In the settings of this repository, which are strict: what `make lint` has found out of torch is found here again,
    # and in others it would be checked anew, for minutes. A user's differ in the packages without types, which no
    # snippet may import.
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]
    untyped = {name.partition(".")[0] for override in settings["overrides"] for name in override["module"]}
    scripts = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*.py")]
    imported = {name for script in scripts for name in re.findall(r"^\s*(?:from|import) (\w+)", script, re.MULTILINE)}
    assert settings["strict"]
    assert "xlner" in imported
    assert not imported & untyped
    command = [sys.executable, "-m", "mypy", str(tmp_path)]
    checked = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    errors = [line for line in checked.stdout.splitlines() if ": error:" in line and not line.startswith("xlner")]
    assert len(snippets) > 3
    assert [line for line in errors if "wrong.py:3" not in line] == []
    assert len(errors) == 1, checked.stdout + checked.stderr  # that of the wrong one: the check can fail
