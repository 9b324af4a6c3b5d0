// The demo page: tags the text while it is typed. Whatever comes from a text becomes a text node, never HTML.

import { loadTagger } from "./tagger.js";

const N_COLOURS = 8;
const [text, threshold, status, tagged] = ["text", "threshold", "status", "tagged"].map((id) =>
  document.getElementById(id),
);

function say(message, isError = false) {
  status.textContent = message;
  status.classList.toggle("error", isError);
}

/** An entity with its type and score behind it. */
function marked({ text, label, score }, types) {
  const [mark, note] = [document.createElement("mark"), document.createElement("span")];
  mark.className = `type-${types.indexOf(label) % N_COLOURS}`;
  note.className = "label";
  note.dir = "ltr";
  note.append(`${label} ${score.toFixed(2)}`);
  mark.append(text, note);
  return mark;
}

let latest = 0;

async function show(tagger) {
  const [asked, began] = [text.value, performance.now()];
  const number = ++latest;
  const entities = await tagger.tag(asked, { threshold: Number(threshold.value) });
  if (number !== latest) return; // typed on meanwhile
  const took = performance.now() - began;
  const parts = [];
  let place = 0;
  for (const entity of entities) {
    parts.push(asked.slice(place, entity.start), marked(entity, tagger.types));
    place = entity.end;
  }
  tagged.replaceChildren(...parts, asked.slice(place));
  const nWords = tagger.words(asked).length;
  say(`${nWords.toLocaleString("en")} words, ${entities.length.toLocaleString("en")} entities, ${took.toFixed(0)} ms.`);
}

try {
  const began = performance.now();
  const tagger = await loadTagger();
  say(`Loaded in ${(performance.now() - began).toFixed(0)} ms. It finds ${tagger.types.join(", ")}.`);
  for (const field of [text, threshold]) {
    field.addEventListener("input", () => show(tagger).catch((problem) => say(problem.message, true)));
  }
  if (text.value) await show(tagger);
} catch (problem) {
  say(problem.message, true);
}
