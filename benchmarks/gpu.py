"""All that takes a GPU to measure, in one command of a few minutes: training, several processes, memory, tagging.

    python benchmarks/gpu.py [--out gpu.md] [--data DIR --encoder FOLDER]

Without `--encoder` the network has the size of XLM-R base and random weights: what it says is nothing, what it costs is
what it is. Without `--data` the sentences are those of the demo, again and again. Every row is a real run of
train_teacher.py or distill.py over one epoch, or a tagger, in a process of its own; the speed is that of training
alone, as report.json has it, and memory the most that one GPU held. The table is written row by row, so that what was
measured stays when time runs out; a row that fails says why. `--cpu --layers 2 --width 64` tries it without a GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from xlner import load_tagger
from xlner.corpora.source import read_corpus
from xlner.corpora.write import write_corpus
from xlner.words import Sentence

REPOSITORY = Path(__file__).parents[1]
DEMO = REPOSITORY / "recipes" / "demo"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LAUNCH = ("accelerate.commands.launch",)
HEADER = "| what | words a second | seconds | GiB |\n|---|---|---|---|"


@dataclass(frozen=True)
class Place:
    """Where the runs lie and what they have in common."""

    out: Path
    encoder: str
    data: Path
    n_sentences: int
    settings: Sequence[str]


def main() -> int:
    """Measure row by row; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.md"), help="the table")
    parser.add_argument("--encoder", default="", help="folder or hub name; random weights without it")
    parser.add_argument("--data", type=Path, help="folder with en/{train,dev}.conll and de/train.conll")
    parser.add_argument("--sentences", type=int, default=6000, help="of an epoch")
    parser.add_argument("--batch", type=int, default=64, help="sentences of a step")
    parser.add_argument("--layers", type=int, default=12, help="of the random network")
    parser.add_argument("--width", type=int, default=768, help="of the random network")
    parser.add_argument("--cpu", action="store_true", help="try it without a GPU")
    parser.add_argument("--tag", nargs=3, metavar=("MODEL", "FILE", "PRECISION"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.tag:
        print(json.dumps(tagged(*given.tag, device="cpu" if given.cpu else "cuda")))
        return 0
    if not given.cpu and not torch.cuda.is_available():
        sys.exit("no GPU is seen by torch; --cpu --layers 2 --width 64 --sentences 60 tries the script without one")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        settings = [f"optimization.batch_size={given.batch}", "optimization.batch_pieces=0", "optimization.epochs=1"]
        settings += ["checkpoint.steps=0", *(["hardware.cpu=true"] if given.cpu else [])]
        data = given.data.resolve() if given.data else demo_data(out / "data", given.sentences)
        encoder = given.encoder or random_encoder(out / "encoder", data, given.layers, given.width)
        measure(Place(out, encoder, data, given.sentences, settings), given.out, on_cpu=given.cpu)
    return 0


def measure(place: Place, table: Path, *, on_cpu: bool) -> None:
    """Write the table; what is told of a row is told at once."""
    device = "CPU" if on_cpu else torch.cuda.get_device_name()
    lines = [f"{device}, torch {torch.__version__}, {place.n_sentences:,} sentences", "", HEADER]
    n_gpus = 0 if on_cpu else torch.cuda.device_count()
    rows: dict[str, Callable[[], dict[str, float]]] = {
        "teacher, bf16": lambda: trained(place, "teacher", ["hardware.precision=bf16"]),
        "teacher, fp32": lambda: trained(place, "teacher", ["hardware.precision=fp32"]),
        "teacher, bf16, layers computed twice": lambda: trained(
            place, "teacher", ["hardware.precision=bf16", "optimization.gradient_checkpointing=true"]
        ),
        "teacher, bf16, one process by torchrun": lambda: trained(
            place, "teacher", ["hardware.precision=bf16"], launcher=["torch.distributed.run", "--nproc_per_node", "1"]
        ),
        "teacher, bf16, compiled": lambda: trained(
            place,
            "teacher",
            ["hardware.precision=bf16"],
            launcher=[*LAUNCH, "--num_processes", "1", "--dynamo_backend", "inductor", "--dynamo_use_dynamic"],
        ),
        "teacher, bf16, FSDP of one": lambda: trained(
            place,
            "teacher",
            ["hardware.precision=bf16"],
            launcher=[
                *(*LAUNCH, "--num_processes", "1", "--use_fsdp", "--fsdp_version", "2"),
                *("--fsdp_cpu_ram_efficient_loading", "false", "--fsdp_transformer_layer_cls_to_wrap", "BertLayer"),
            ],
        ),
        "student, bf16": lambda: trained(place, "student", ["hardware.precision=bf16"]),
        "student, fp32": lambda: trained(place, "student", ["hardware.precision=fp32"]),
        "tagging, fp32": lambda: tagged_in_own_process(place, "fp32", on_cpu=on_cpu),
        "tagging, bf16": lambda: tagged_in_own_process(place, "bf16", on_cpu=on_cpu),
    }
    if n_gpus > 1 or on_cpu:
        rows["teacher, bf16, two processes"] = lambda: trained(
            place,
            "teacher",
            ["hardware.precision=bf16"],
            launcher=[*LAUNCH, "--num_processes", "2", "--multi_gpu"],
        )
    for name, row in rows.items():
        started = time.perf_counter()
        try:
            found = row()
            cells = f"{found['words_per_second']:,.0f} | {found['seconds']:.1f} | {found['gib']:.2f}"
        except subprocess.CalledProcessError as problem:
            told = (problem.stderr or "").strip().splitlines() or [f"status {problem.returncode}"]
            cells = f"failed: {told[-1]} | {time.perf_counter() - started:.1f} | "
        lines.append(f"| {name} | {cells} |")
        print(lines[-1], flush=True)
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(place: Place, what: str, more: Sequence[str], launcher: Sequence[str] = ()) -> dict[str, float]:
    """An epoch of a teacher or a student; a student's teacher is the first one that was trained."""
    run = place.out / f"run-{len(list(place.out.glob('run-*')))}"
    own = [f"data={place.data}", f"run={run}", f"corpus.max_sentences={place.n_sentences}", *place.settings, *more]
    if what == "teacher":
        script = [str(REPOSITORY / "train_teacher.py"), "language=en", f"encoder={place.encoder}", *own]
    else:
        script = [str(REPOSITORY / "distill.py"), "target=de", f"teacher={place.out / 'run-0' / 'model'}", *own]
    module = ["-m", *launcher] if launcher else []
    call([sys.executable, *module, *script])
    training = json.loads((run / "report.json").read_text(encoding="utf-8"))["training"]
    return {
        "words_per_second": training["words_per_second"],
        "seconds": training["seconds"],
        "gib": training["peak_memory_mib"] / 1024,
    }


def tagged_in_own_process(place: Place, precision: str, *, on_cpu: bool) -> dict[str, float]:
    """What the first teacher tags of the target text, as many sentences as an epoch has."""
    command = [sys.executable, __file__, *(["--cpu"] if on_cpu else []), "--tag"]
    done = call([*command, str(place.out / "run-0" / "model"), str(place.data / "de" / "train.conll"), precision])
    found: dict[str, float] = json.loads(done.splitlines()[-1])
    return found


def tagged(model: str, path: str, precision: str, *, device: str) -> dict[str, float]:
    """Words a second of a tagger, after a first pass that warms it up."""
    tagger = load_tagger(model, device=device, precision=precision)
    sentences = [sentence.words for sentence in read_corpus(path)]
    tagger.tag_sentences(sentences[: len(sentences) // 10 + 1])
    started = time.perf_counter()
    tagger.tag_sentences(sentences)
    seconds = time.perf_counter() - started
    memory = 0.0 if device == "cpu" else torch.cuda.max_memory_allocated() / 2**30
    return {"words_per_second": sum(map(len, sentences)) / seconds, "seconds": seconds, "gib": memory}


def call(command: Sequence[str]) -> str:
    """What a command prints; its errors are kept for the table."""
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    return done.stdout


def demo_data(folder: Path, n_sentences: int) -> Path:
    """The demo's corpora, again and again until there are so many sentences."""
    for language, source in (("en", "train.conll"), ("de", "test.conll")):
        sentences = list(read_corpus(DEMO / language / source))
        repeated: list[Sentence] = [sentences[number % len(sentences)] for number in range(n_sentences)]
        (folder / language).mkdir(parents=True)
        write_corpus(repeated, folder / language / "train.conll")
    write_corpus(list(read_corpus(DEMO / "en" / "dev.conll"))[:50], folder / "en" / "dev.conll")
    return folder


def random_encoder(folder: Path, data: Path, n_layers: int, width: int) -> str:
    """An encoder that has learnt nothing, of the shape of XLM-R, with pieces of the text itself."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=8000, special_tokens=list(SPECIAL), unk_token="<unk>")
    texts = (" ".join(s.words) for lang in ("en", "de") for s in read_corpus(data / lang / "train.conll"))
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", **names
    )
    fast.save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        num_hidden_layers=n_layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        max_position_embeddings=514,
        pad_token_id=1,
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    sys.exit(main())
