"""An exported folder: the graph of a network for ONNX Runtime, compared with the original, published whole or not."""

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from xlner.backends import GRAPH_FILE, PARITY_FILE, Session, is_exported, unlisted_names, write_manifest
from xlner.encode import WordEncoder
from xlner.errors import ModelError
from xlner.export.int8 import CALIBRATION_SENTENCES, SCHEMES, Reaches, channel_reaches, quantize
from xlner.export.parity import Attempt, Reference
from xlner.export.small import export_halves, export_student
from xlner.files import replaced, to_json
from xlner.hub import find_file
from xlner.models.folder import read_settings
from xlner.models.joint import JointModel
from xlner.models.settings import SETTINGS_FILE, THRESHOLDS_FILE, ModelSettings, is_compact
from xlner.models.token_classifier import heeds_mask
from xlner.tagger import Tagger, load_tagger

# A network of torch as an ONNX graph of any number of windows and pieces.
#
# Made by torch's own exporter (`dynamo=True`): the one in transformers wraps it and calls itself experimental.


# Windows and pieces that a graph is tried on: other ones than it is exported with, and what an exporter may fix at 1.
_TRIED_SHAPES = ((1, 4), (3, 9))


class _Logits(nn.Module):
    """The network with its inputs in a fixed order and one output."""

    def __init__(self, recognizer: PreTrainedModel) -> None:
        super().__init__()
        self.recognizer = recognizer

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, P) to (B, P, C)."""
        logits: Tensor = self.recognizer(input_ids=input_ids, attention_mask=attention_mask.long()).logits
        return logits


def write_graph(recognizer: PreTrainedModel, path: Path, *, max_length: int) -> None:
    """Write the graph; weights above 2 GB go into a second file beside it.

    Args:
        recognizer: In float32, on the CPU; it computes attention by plain matrix products afterwards.
        path: The file to write.
        max_length: Pieces of the longest window, special ones included.

    Raises:
        ModelError: If the packages that exporting needs are not installed, torch cannot export the network, or what it
            exports is for windows of one length alone.
    """
    _check_packages()
    told = type(recognizer).__name__
    if not heeds_mask(recognizer):
        raise ModelError(f"{told} cannot be exported: what it says of a text depends on the padding beside it")
    # ONNX Runtime fuses plain attention better than what torch makes of its own fused one: a fifth faster in int8.
    recognizer.set_attn_implementation("eager")
    # Two windows, one padded: what the exporter saw as a 1 it would take for a constant.
    input_ids = torch.full((2, 6), 5)
    attention_mask = torch.ones(2, 6, dtype=torch.bool)
    attention_mask[1, 4:] = False
    axes: dict[int, Any] = {0: torch.export.Dim("windows"), 1: torch.export.Dim("pieces", max=max_length)}
    chatter = logging.getLogger("torch.onnx")
    level = chatter.level
    chatter.setLevel(logging.ERROR)  # it tells which packages of other fields are not installed
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Logits(recognizer).eval(),
                (input_ids, attention_mask),
                dynamo=True,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": axes, "attention_mask": axes},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as problem:
        first_line = str(problem).strip().splitlines()[0]
        raise ModelError(f"{told} cannot be exported by torch: {first_line}") from problem
    finally:
        chatter.setLevel(level)
    if program is None:
        raise ModelError(f"{told} cannot be exported by torch")
    program.save(path)
    _try_graph(told, path, max_length)


def _try_graph(told: str, path: Path, max_length: int) -> None:
    """Refuse a graph in which the exporter has fixed a number of windows or of pieces."""
    try:
        shapes = [(windows, min(pieces, max_length)) for windows, pieces in _TRIED_SHAPES]
        session = Session(path)
        given = []
        for shape in shapes:
            inputs = {"input_ids": np.full(shape, 5, dtype=np.int64), "attention_mask": np.ones(shape, dtype=np.bool_)}
            given.append(session.run(["logits"], inputs)[0].shape[:2])
    except ModelError as problem:
        raise ModelError(
            f"{told} cannot be exported, its graph is for windows of one length alone: {problem}"
        ) from problem
    if given != shapes:
        raise ModelError(f"{told} cannot be exported: its graph gives {given} for {shapes} windows and pieces")


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as problem:
        raise ModelError(f"exporting needs {problem.name}: pip install 'xlner[onnx]'") from problem


# The exported folder: written beside its place, compared with the original, and published whole or not at all.


WHOLE = "float32"


def export_model(
    model: str,
    target: Path,
    sentences: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]] | None = None,
    *,
    precision: str = "fp32",
    force: bool = False,
    report: Callable[[Attempt], None] = lambda attempt: None,
) -> Attempt:
    """Export a tagger for ONNX Runtime.

    In int8 the schemes of `SCHEMES` are tried in their order until one is acceptable; some of the sentences then serve
    to measure ranges, and the others to compare.

    Args:
        model: Folder or hub name of the original.
        target: The folder to make; one that an earlier export made is replaced.
        sentences: Words to compare on, at least one sentence.
        gold: Their tags, if they are labelled.
        precision: `fp32` or `int8`; `fp16`: no graph, but the same kind of folder in half the bytes.
        force: Publish the best attempt even if none is acceptable.
        report: Called after each attempt.

    Returns:
        The attempt that was published.

    Raises:
        ModelError: If the original cannot be opened or exported, or no attempt is acceptable; then whatever was at
            `target` is as it was.
        RunError: The same if the disk refuses.
    """
    if is_compact(Path(model)):
        return export_student(Path(model), target, sentences, gold, precision=precision, force=force, report=report)
    if precision == "fp16":
        return export_halves(model, target, sentences, gold, force=force, report=report)
    if is_exported(Path(model)):
        raise ModelError(f"{model}: is an exported model; export the folder that it was made of")
    tagger = load_tagger(model)
    encoder = cast(WordEncoder, tagger.encoder)
    measured, compared = _split(len(sentences)) if precision == "int8" else ([], range(len(sentences)))
    reference = Reference(
        tagger,
        [sentences[number] for number in compared],
        None if gold is None else [gold[number] for number in compared],
    )
    with replaced(target, _check_folder) as unfinished:
        unfinished.mkdir()
        whole = unfinished / "whole"
        whole.mkdir()
        write_graph(cast(JointModel, tagger.model).recognizer, whole / GRAPH_FILE, max_length=encoder.max_length)
        reaches = channel_reaches(whole / GRAPH_FILE, encoder, [sentences[number] for number in measured])
        attempts: list[Attempt] = []
        for scheme in SCHEMES if precision == "int8" else [WHOLE]:
            folder = unfinished / f"attempt-{len(attempts)}"
            folder.mkdir()
            _write_attempt(tagger, read_settings(model), whole, folder, scheme, reaches)
            attempts.append(Attempt(scheme, reference.compare(load_tagger(folder))))
            report(attempts[-1])
            if attempts[-1].parity.acceptable:
                break
        best = min(range(len(attempts)), key=lambda number: attempts[number].parity.loss)
        if not attempts[best].parity.acceptable and not force:
            tried = "; ".join(f"{scheme}: {parity}" for scheme, parity in attempts)
            raise ModelError(
                f"{model}: the export differs too much from the original; nothing is written. Tried {tried}"
            )
        content = {
            "precision": precision,
            "published": attempts[best].scheme,
            "attempts": [{"scheme": scheme, **parity.to_json()} for scheme, parity in attempts],
        }
        chosen = unfinished / f"attempt-{best}"
        (chosen / PARITY_FILE).write_text(to_json(content, indent=2, ascii_only=True) + "\n", encoding="utf-8")
        for path in chosen.iterdir():
            path.rename(unfinished / path.name)
        for place in (whole, *unfinished.glob("attempt-*")):
            shutil.rmtree(place)
    return attempts[best]


def _split(n_sentences: int) -> tuple[Sequence[int], Sequence[int]]:
    """Which sentences ranges are measured on, and which others exports are compared on; of a single one, both."""
    measured = range(0, n_sentences, max(2, n_sentences // CALIBRATION_SENTENCES))
    return measured, sorted(set(range(n_sentences)) - set(measured)) or measured


def _write_attempt(
    tagger: Tagger, settings: ModelSettings, whole: Path, folder: Path, scheme: str, reaches: Reaches
) -> None:
    """A complete exported folder."""
    recognizer, encoder = cast(JointModel, tagger.model).recognizer, cast(WordEncoder, tagger.encoder)
    if scheme == WHOLE:
        for path in whole.iterdir():  # weights above 2 GB lie in a file of their own
            shutil.copy(path, folder / path.name)
    else:
        quantize(whole / GRAPH_FILE, folder / GRAPH_FILE, scheme, recognizer.config.num_hidden_layers, reaches)
    # Written from what was loaded: it splits words as the original does, also where the original's file was patched.
    tokenizer = encoder.tokenizer.backend_tokenizer.to_str(pretty=True)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    config = recognizer.config.to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    (folder / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
    if tuned := find_file(tagger.name, THRESHOLDS_FILE):
        shutil.copy(tuned, folder / THRESHOLDS_FILE)
    write_manifest(
        folder,
        [path.name for path in folder.iterdir()],
        precision="fp32" if scheme == WHOLE else "int8",
        max_length=encoder.max_length,
        pad_id=encoder.pad_id,
    )


def _check_folder(target: Path) -> None:
    if others := unlisted_names(target):
        found = ", ".join(others[:5])
        raise ModelError(
            f"{target}: holds other things than an exported model ({found}); give another folder, or an empty one"
        )


# Sentences to compare an export on where no corpus is given, in words; they are those of the demo, without labels.


_TEXT = """\
Elena Rossi waited three hours at the airport in Santiago for a suitcase that was still in Madrid .
The chief economist of Siemens sees little reason for hope before the autumn .
Portugal burned more forest in one August than in the previous five years .
Every child in the village learns to swim before learning to cycle .
Real Madrid and Ajax will open the tournament in Boston on 2 July .
" I trust the numbers , not the speeches , " said Anna Lindqvist of the University of Oslo .
An Italian cargo ship ran aground off the coast of Uruguay on Monday night .
Was the letter to Marie Curie ever answered ?
A court in Hamburg has ordered Novatec to stop selling the device .
The frost came early , and most of the apples were lost .
Diego Ramos won the Golden Bear for his portrait of a blind postman .
Between the wars , Berlin had more newspapers than any other city in Europe .
Airbus has opened a school for mechanics in Seville .
Its author , Victor Novak , died before the second volume could be printed .
Flights to the island were suspended because of ash from the volcano .
In 1939 Albert Einstein signed a letter that warned of a new kind of bomb .
The Mexican painter Frida Kahlo was born in Coyoacan , then a village .
" Nothing tastes as good as bread from home , " Jonas Weber wrote from Buenos Aires .
What began as a joke among neighbours is now the largest flea market in the region .
Greenpeace ships have been refused entry to three ports in Norway .
UNESCO 's new head will travel to Peru to inspect the damage .
Tom Becker , left out of the squad since October , may return against Sevilla .
They had no map , no money and only one pair of dry socks .
Sunflowers from Ukraine supply much of the oil used in Spanish kitchens .
Carlos Mendoza bought the newspaper and dismissed its editor on the same afternoon .
The night train from Paris to Vienna has been fully booked since January .
Romeo and Juliet will be performed in the open air in Verona .
Council members Laura Hoffmann and Martin Vogel walked out before the vote .
At low tide you can walk across to the chapel without getting your feet wet .
Nokia will test the antennas on the roofs of Lima .
Maria Keller reiste am Montag von Lima nach Madrid .
Die deutsche Regierung kündigte am Freitag neue Hilfen für kleine Betriebe an .
In Hamburg eröffnete der Konzern Airbus eine weitere Halle für die Montage der Kabinen .
Wer hätte gedacht , dass Pablo Ortega schon nach zwölf Minuten das erste Tor schießen würde ?
Nach dem Regen stand das Wasser knöcheltief in den Kellern der alten Häuser .
Für ihre Arbeiten zur Radioaktivität erhielt Marie Curie gleich zweimal den Nobelpreis .
„ Wir haben einfach zu viele Chancen vergeben “ , sagte Trainer Carlos Mendoza nach dem Spiel in Valencia .
Der Zug nach Wien fährt heute ausnahmsweise von Gleis sieben ab .
Von der UNESCO wurde die Altstadt im Jahr 1996 zum Welterbe erklärt .
Die Bäckerin am Markt verkauft seit dreißig Jahren dasselbe dunkle Brot .
Anna Lindqvist , eine schwedische Biologin , untersucht Quallen vor der Küste von Portugal .
Im Finale der Champions League traf Real Madrid auf einen müden Gegner aus London .
Ob die Brücke noch vor dem Winter fertig wird , konnte der Bürgermeister nicht sagen .
Frida Kahlo malte viele ihrer Bilder im Bett liegend , nachdem ein Unfall sie schwer verletzt hatte .
Das Unternehmen Novatec mit Sitz in Boston entwickelt Sensoren für die Landwirtschaft .
Am Abend las Elena Rossi im Theater aus der italienischen Übersetzung von Don Quijote .
Die Universität Hamburg und die Universität Wien bieten gemeinsam einen neuen Studiengang an .
Zwischen Oslo und Bergen führt die Strecke über eine karge , windige Hochebene .
Mit großer Mehrheit stimmte der Rat gegen den Bau des zweiten Parkhauses .
Bei den Olympischen Spielen in Paris gewann die Mannschaft aus Chile überraschend eine Medaille .
Greenpeace wirft dem Ministerium vor , die Daten absichtlich zurückgehalten zu haben .
Liebe Anna , endlich komme ich dazu , dir aus Buenos Aires zu schreiben .
Der Präsident von Peru empfing am Mittwoch eine Delegation der Vereinten Nationen .
Zu den ersten Gästen des Hotels zählten Kaufleute , Dichter und einige recht zweifelhafte Grafen .
Tom Becker wechselt im Sommer von Bayern zu einem Verein in England .
Eine Sonde der NASA schickte gestern die ersten Bilder vom Rand des Kraters zur Erde .
Warum Albert Einstein die Stadt Bern so gern mochte , erklärt eine kleine Ausstellung am Fluss .
Der Preis für Kaffee stieg im Oktober auf den höchsten Stand seit neun Jahren .
In Köln demonstrierten rund zweitausend Menschen gegen die Schließung des Krankenhauses .
Maria Keller viajó el lunes de Lima a Madrid para presentar su nuevo libro .
¿ Quién pagará las obras del puente que une Hamburgo con la orilla sur del río ?
La empresa Solaris Energy instalará tres mil paneles en los tejados de Valencia .
« No tenemos miedo a la competencia » , dijo Tom Becker ante los periodistas .
Los vecinos se quejan del ruido de los camiones desde hace varios meses .
En 1911 , Marie Curie recibió por segunda vez el Premio Nobel .
El pan se vende mejor por la mañana , cuando todavía está caliente .
Nokia cerrará su pequeña oficina de Oslo antes del verano .
La cantante portuguesa Sofia Duarte actuará el sábado en el teatro principal de Lisboa .
El equipo de Carlos Mendoza perdió en casa por dos goles a uno .
Airbus y Siemens firmaron en París un acuerdo para desarrollar motores eléctricos .
La pintora Frida Kahlo nació en una casa azul al sur de Ciudad de México .
El Ministerio de Cultura compró dos cuadros que llevaban un siglo en manos privadas .
Los Juegos Olímpicos cambiaron para siempre el barrio del puerto de Barcelona .
Elena Rossi , profesora de física en la Universidad de Bolonia , dirige el proyecto .
¡ Qué difícil es encontrar un piso barato en el centro !
El delantero argentino marcó tres veces para el Real Madrid en la segunda parte .
Las pruebas fueron realizadas por un laboratorio de Boston que trabaja para la NASA .
A los veinte años leyó Don Quijote por primera vez y decidió aprender español .
El alcalde prometió arreglar las aceras , plantar árboles y abrir una biblioteca .
Desde la ventana del hotel se ven los tejados rojos de Praga y el río .
Anna Lindqvist fue elegida presidenta de la asociación con más de dos tercios de los votos .
La sede de Novatec , situada a las afueras de Múnich , ocupa un antiguo molino .
El museo abrirá también los domingos por la tarde a partir de mayo .
Un portavoz de la UNESCO explicó que la lista se revisará cada cuatro años .
El Bayern ganó con facilidad y Lukas Weber fue el mejor jugador del partido .
"""

SENTENCES = tuple(tuple(line.split()) for line in _TEXT.splitlines())
