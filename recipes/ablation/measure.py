"""All methods side by side on one protocol: teachers, students, supervised taggers, and the table of them.

    python recipes/ablation/measure.py --encoder ENCODER --data data/wikineural --out runs/ablation

A row is a recipe, `TEACHERS/ROW.yaml`; its folder says which teachers it learns from: the one that `TEACHERS.yaml`
trains, three seeds of `plain.yaml` (`seeds`), or it and supervised taggers of other languages (`languages`).
Finished runs are not done again: a stopped table goes on, and grows by further rows, targets and seeds.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
SUPERVISED = "supervised"


def main() -> int:
    """Run what is missing and print the table; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    rows = sorted(path.stem for path in FOLDER.glob("*/*.yaml"))
    parser.add_argument("--encoder", required=True, help="encoder folder or hub name")
    parser.add_argument("--data", required=True, help="folder with LANGUAGE/{train,dev,test}.conll")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), help="folder of all runs and tables")
    parser.add_argument("--targets", nargs="+", default=["de", "es", "nl"], help="target languages")
    parser.add_argument("--languages", nargs="+", default=["de", "es", "nl"], help="of further teachers, with labels")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of teachers and students alike")
    parser.add_argument("--rows", nargs="+", default=[*rows, SUPERVISED], help=f"of {', '.join(rows)}, {SUPERVISED}")
    parser.add_argument("--sentences", type=int, default=3000, help="target sentences; 0: all")
    parser.add_argument("--labelled", type=int, default=6000, help="labelled sentences of supervised taggers")
    parser.add_argument("--epochs", type=int, default=2, help="of the students")
    parser.add_argument("--no-table", action="store_true", help="run, and leave the table to another call")
    parser.add_argument("settings", nargs="*", help="key=value for every run, as in hardware.threads=1")
    arguments = parser.parse_args()
    if unknown := sorted({*arguments.rows} - {*rows, SUPERVISED}):
        parser.error(f"no row called {', '.join(unknown)}; known: {', '.join(rows)}, {SUPERVISED}")
    common = [f"data={arguments.data}", *arguments.settings]
    place = Place(arguments.out, arguments.encoder, tuple(arguments.languages), common, arguments.labelled)
    students = [f"corpus.max_sentences={arguments.sentences}", f"optimization.epochs={arguments.epochs}"]
    done = []
    try:
        for seed in arguments.seeds:
            for row in arguments.rows:
                for target in arguments.targets:
                    if row == SUPERVISED:
                        done.append(supervised(place, target, seed))
                    else:
                        done.append(student(place, row, target, seed, students))
    except subprocess.CalledProcessError as problem:
        return problem.returncode
    if not arguments.no_table:
        files = ["--csv", str(arguments.out / "table.csv"), "--plot", str(arguments.out / "table.png")]
        call("xlner", "compare", *map(str, done), *files)
    return 0


@dataclass(frozen=True)
class Place:
    """Where the runs lie and what they have in common.

    `languages` are those of further teachers; `settings` are of all runs, `n_labelled` sentences of supervised ones.
    """

    out: Path
    encoder: str
    languages: tuple[str, ...]
    settings: list[str]
    n_labelled: int


def student(place: Place, row: str, target: str, seed: int, settings: Sequence[str]) -> Path:
    """The run of a row, trained now if it is missing, its teachers first."""
    (recipe,) = FOLDER.glob(f"*/{row}.yaml")
    kind = recipe.parent.name
    run = place.out / f"{target}-{row}-{seed}"
    if not finished(run):
        models = [str(found / "model") for found in teachers(place, kind, target, seed)]
        soft_labels = place.out / f"soft-{target}-{kind}-{seed}"
        own = [f"target={target}", f"recipe={recipe}", f"teacher={','.join(models)}", f"seed={seed}", f"run={run}"]
        call("accelerate", "launch", "distill.py", *own, f"soft_labels={soft_labels}", *place.settings, *settings)
    return run


def teachers(place: Place, kind: str, target: str, seed: int) -> list[Path]:
    """The teachers of a folder of rows, trained now as far as they are missing."""
    if kind == "seeds":
        return [teacher(place, "plain", number) for number in range(3)]
    if kind == "languages":
        others = [language for language in place.languages if language != target]
        return [teacher(place, "plain", seed), *(supervised(place, language, seed) for language in others)]
    return [teacher(place, kind, seed)]


def teacher(place: Place, kind: str, seed: int) -> Path:
    """A teacher, trained now if it is missing."""
    run = place.out / f"teacher-{kind}-{seed}"
    train(place, run, kind, seed)
    return run


def supervised(place: Place, target: str, seed: int) -> Path:
    """A tagger trained on labelled sentences of the target: what there would be to gain."""
    run = place.out / f"{target}-{SUPERVISED}-{seed}"
    train(place, run, "plain", seed, f"language={target}", f"corpus.max_sentences={place.n_labelled}")
    return run


def train(place: Place, run: Path, kind: str, seed: int, *settings: str) -> None:
    """Run train_teacher.py, unless the run has come to its end before."""
    if not finished(run):
        own = [f"recipe={FOLDER / kind}.yaml", f"encoder={place.encoder}", f"seed={seed}", f"run={run}"]
        call("accelerate", "launch", "train_teacher.py", *own, *settings, *place.settings)


def finished(run: Path) -> bool:
    """Whether a run has come to its end."""
    return (run / "report.json").is_file()


def call(program: str, *command: str) -> None:
    """Show a command as a user would type it, and run it with this Python."""
    print(f"\n$ {program} {' '.join(command)}", flush=True)
    installed = Path(sys.executable).with_name(program)
    subprocess.run([str(installed), *command], cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    sys.exit(main())
