"""What opening a model for tagging takes of memory, each way in a process of its own.

    python benchmarks/opening.py runs/de/model [runs/de/fp32 runs/de/int8 ...]

A folder of torch is opened in fp32 and in bf16, an exported one as it is. Libraries are imported before, a batch of 32
short texts is tagged after. Of each: the peak while it opens, and that beside the file of the weights; and what stays
once it has tagged, the process' own memory and pages of files, which processes share and the system may take back. All
in MiB, on Linux, whose kernel tells these.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

TEXTS = ["Angela Merkel besuchte gestern am Abend die Stadt Kiel an der Förde ."] * 32


def main() -> None:
    """Open every model in a process of its own and print a table in Markdown; or open one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="model folders, as trained or exported")
    parser.add_argument("--precision", default="", help="of the only model: it is opened here")
    given = parser.parse_args()
    if given.precision:
        print(json.dumps(opened(given.models[0], given.precision)))
        return
    if missing := [model for model in given.models if not Path(model).is_dir()]:
        parser.error(f"{missing[0]}: no such folder; expected a model, as trained or exported")
    print("| | weights | peak while it opens | x weights | stays: own | stays: of files |\n|---|---|---|---|---|---|")
    for model in given.models:
        is_exported = (Path(model) / "model.onnx").is_file()
        for precision in ["auto"] if is_exported else ["fp32", "bf16"]:
            command = [sys.executable, __file__, model, "--precision", precision]
            told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found = json.loads(told.splitlines()[-1])
            files = ("model.onnx", "model.onnx.data") if is_exported else ("model.safetensors",)
            weights = sum(path.stat().st_size for name in files if (path := Path(model) / name).is_file()) / 2**20
            print(
                f"| {model}{'' if is_exported else f', {precision}'} | {weights:,.0f} | {found['peak']:,.0f} | "
                f"{found['peak'] / weights:.2f} | {found['own']:,.0f} | {found['files']:,.0f} |",
                flush=True,
            )


def opened(model: str, precision: str) -> dict[str, float]:
    """What a model takes beside the libraries."""
    import onnxruntime  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.bert.modeling_bert
    import transformers.models.xlm_roberta.modeling_xlm_roberta  # noqa: F401

    import xlner.models.folder
    import xlner.models.inference
    import xlner.tagger

    forget_peak()
    before = memory()
    tagger = xlner.tagger.load_tagger(model, precision=precision)
    peak = memory()["VmHWM"] - before["RssAnon"] - before["RssFile"]
    tagger.tag_batch(TEXTS)
    after = memory()
    return {
        "peak": peak,
        "own": after["RssAnon"] - before["RssAnon"],
        "files": after["RssFile"] - before["RssFile"],
    }


def memory() -> dict[str, float]:
    """MiB: the peak, and what is in memory now, of this process alone and of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon", "RssFile")}


def forget_peak() -> None:
    """Count the peak from here on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main()
