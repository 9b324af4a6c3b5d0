"""The whole way in minutes, offline, on a CPU.

    python recipes/demo/run.py --sentence "Elena Rossi flog nach Lima."

Makes an encoder (once), trains an English teacher, distils a German and a Spanish student with the scripts that any
user runs, and ends with the scores and a tagged sentence. Everything lies in runs/demo/ of the repository.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from xlner import load_tagger
from xlner.errors import RunError, XlnerError

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path("runs/demo")
TARGETS = {"de": "German", "es": "Spanish"}
SENTENCE = "Elena Rossi flog am Montag von Oslo nach Lima und sprach dort mit Siemens."
# Nothing is fetched. Threads that wait for one another sleep rather than spin: where other programs compute on the
# same cores, spinning makes a tiny network many times slower.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(description="Encoder, teacher, students, scores, a tagged sentence.")
    parser.add_argument("--sentence", default="", help="German sentence to tag at the end")
    parser.add_argument("--seed", type=int, default=0, help="of teacher and students; the encoder is made once")
    arguments = parser.parse_args()
    started = time.perf_counter()
    os.chdir(REPOSITORY)  # recipes name their folders from here
    try:
        for name in ("teacher", *TARGETS):
            remove_run(FOLDER / name)
        train(arguments.seed)
        print("\n" + table({name: read_scores(FOLDER / target) for target, name in TARGETS.items()}))
        print("\n" + tagged(arguments.sentence.strip() or SENTENCE, FOLDER / "de" / "model"))
    except XlnerError as problem:
        print(problem, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as problem:
        return problem.returncode
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    return 0


def remove_run(folder: Path) -> None:
    """Remove what a former demo left here, and nothing else.

    Raises:
        RunError: If the folder holds anything but a run of the demo.
    """
    if not folder.exists():
        return
    recipe = folder / "recipe.yaml"
    lines = recipe.read_text(encoding="utf-8").splitlines() if recipe.is_file() else []
    if folder.is_symlink() or not {f"run: {folder}", "data: recipes/demo"} <= set(lines):
        raise RunError(f"{folder}: expected a run of the demo, found something else; move it away")
    shutil.rmtree(folder)


def train(seed: int) -> None:
    """The encoder where it is missing, the teacher, the students; each by its own script."""
    encoder = FOLDER / "encoder"
    if not (encoder / "model.safetensors").is_file():
        call("python", "recipes/demo/make_encoder.py", "--out", str(encoder))
    call("accelerate launch", "train_teacher.py", "recipe=demo", f"seed={seed}")
    for target in TARGETS:
        call("accelerate launch", "distill.py", f"target=demo-{target}", f"seed={seed}")


def call(launcher: str, *command: str) -> None:
    """Show a command as a user would type it, and run it with this Python."""
    print(f"\n$ {launcher} {' '.join(command)}", flush=True)
    module = [] if launcher == "python" else ["-m", "accelerate.commands.launch"]
    subprocess.run([sys.executable, *module, *command], env=os.environ | ENVIRONMENT, check=True)


def read_scores(run: Path) -> dict[str, Any]:
    """The scores of a finished student and of its teacher on the same test sentences."""
    scores: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))["scores"]
    return scores


def table(scores: dict[str, dict[str, Any]]) -> str:
    """A line per language: precision, recall and F1 of direct transfer and of the student, in percent."""
    lines = [
        f"{'':<8}  {'direct transfer':^22}  {'student':^22}",
        f"{'':<8}" + f"  {'P':>6}  {'R':>6}  {'F1':>6}" * 2,
    ]
    for name, systems in scores.items():
        found = (systems[system]["overall"] for system in ("teacher", "student"))
        numbers = (score[measure] for score in found for measure in ("precision", "recall", "f1"))
        lines.append(f"{name:<8}" + "".join(f"  {number:6.2f}" for number in numbers))
    return "\n".join(lines)


def tagged(sentence: str, model: Path) -> str:
    """The entities of a sentence, a line each: where it stands, its type, its score, its text."""
    entities = load_tagger(model).tag(sentence)
    rows = [f"  {e.start:>3}-{e.end:<3}  {e.label:<4}  {e.score:.2f}  {e.text}" for e in entities]
    return "\n".join([sentence, *(rows or ["  no entity found"])])


if __name__ == "__main__":
    sys.exit(main())
