// Correcting what the models found. Entities are whole words of one sentence, which is a line of the text.
//
// What is saved is with the server. Edits that are not saved are a draft in this browser, one of each text: it outlives
// the page, and all tabs that show the text show the draft.

import { ask, byId, colourOf, make, say } from "./elements.js";

const DRAFT = "xlner draft "; // before the text, in the browser's storage
const MOST_WORDS = 20000; // a browser takes long to lay out many more of them
const MOST_UNDONE = 200;

// The text that is corrected: { text, version, types, sentences: [{ words, saved, entities }] }, words as [start, end]
// in the text, entities and saved as { first, last, label } in words; saved is null where nothing is.
let shown = null;
let models = []; // as they were compared
let chosen = null; // { sentence, first, last } in words
let active = 0; // the word that the keyboard is at, of the chosen sentence
let anchor = 0; // where the chosen words began
let undone = []; // entities of all sentences, before each edit
let isSaving = false;
let wanted = ""; // the text that was asked for last

/** Show the words of a text with what is saved, with the draft, or with what the first model found. */
export async function openEditor(text, compared) {
  models = compared;
  byId("correct").hidden = false;
  byId("conflict").hidden = true;
  await find(text, true);
}

async function find(text, isNew) {
  wanted = text;
  const answer = await ask("v1/annotations/find", { text, offsets: "utf16" });
  if (wanted !== text) return;
  const sentences = answer.sentences.map(({ words, entities }) => {
    const saved = entities && inWords(words, entities);
    return { words, saved, entities: copyOf(saved ?? inWords(words, models[0].entities)) };
  });
  const nWords = sentences.reduce((sum, { words }) => sum + words.length, 0);
  byId("editor").hidden = nWords > MOST_WORDS || nWords === 0;
  if (nWords > MOST_WORDS) {
    shown = null;
    const most = MOST_WORDS.toLocaleString("en");
    return say(`Texts of more than ${most} words cannot be corrected here; compare a part.`, true, "correct-status");
  }
  shown = { text, version: answer.version, types: answer.types, sentences };
  if (isNew) undone = [];
  chosen = null;
  const draft = readDraft(text);
  if (draft) takeEntities(draft.entities);
  if (draft) shown.version = draft.version;
  showTypes();
  byId("source").replaceChildren(...models.map(({ model }, number) => make("option", { value: number }, model)));
  showAll();
  say(draft ? "These are your changes that are not saved yet." : "", false, "correct-status");
}

/** Entities with places in the text, in order, as words of a sentence; one over two sentences becomes two. */
function inWords(words, entities) {
  const found = [];
  let first = 0;
  for (const { start, end, label } of entities) {
    while (first < words.length && words[first][1] <= start) first++;
    let last = first - 1;
    while (last + 1 < words.length && words[last + 1][0] < end) last++;
    if (last >= first) found.push({ first, last, label });
    first = last + 1;
  }
  return found;
}

const inText = ({ words, entities }) =>
  entities.map(({ first, last, label }) => ({ start: words[first][0], end: words[last][1], label }));
const allInText = () => shown.sentences.flatMap(inText);
const copyOf = (entities) => entities.map((entity) => ({ ...entity }));
const isSame = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const isUnsaved = (sentence) => sentence.saved === null || !isSame(sentence.saved, sentence.entities);

function takeEntities(entities) {
  for (const sentence of shown.sentences) sentence.entities = inWords(sentence.words, entities);
}

// The draft.

function readDraft(text) {
  try {
    return JSON.parse(localStorage.getItem(DRAFT + text));
  } catch {
    return null;
  }
}

function keepDraft() {
  try {
    if (!shown.sentences.some(isUnsaved)) return localStorage.removeItem(DRAFT + shown.text);
    const draft = { version: shown.version, entities: allInText(), time: Date.now() };
    localStorage.setItem(DRAFT + shown.text, JSON.stringify(draft));
  } catch {
    say("This browser keeps no changes: save before you leave.", true, "correct-status");
  }
}

/** The texts with changes that are not saved, the latest first. */
export function textsOfDrafts() {
  try {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(DRAFT));
    const texts = keys.map((key) => key.slice(DRAFT.length));
    return texts.sort((one, other) => readDraft(other).time - readDraft(one).time);
  } catch {
    return [];
  }
}

// Edits.

function edit(change) {
  undone.push(shown.sentences.map(({ entities }) => copyOf(entities)));
  undone = undone.slice(-MOST_UNDONE);
  change();
  keepDraft();
}

function undo() {
  const before = undone.pop();
  if (!before) return;
  shown.sentences.forEach((sentence, number) => { sentence.entities = before[number]; });
  chosen = null;
  keepDraft();
  showAll();
  say("Undone.", false, "correct-status");
}

const overlaps = (entity, first, last) => entity.first <= last && first <= entity.last;
const entityAt = (sentence, word) => sentence.entities.find((entity) => overlaps(entity, word, word));

/** The entity that is chosen, and not some words alone. */
function chosenEntity() {
  const found = chosen && entityAt(shown.sentences[chosen.sentence], chosen.first);
  return found && found.first === chosen.first && found.last === chosen.last ? found : null;
}

function setType(label) {
  if (!chosen) return;
  const { sentence, first, last } = chosen;
  const before = shown.sentences[sentence];
  const others = before.entities.filter((entity) => !overlaps(entity, first, last));
  edit(() => { before.entities = [...others, { first, last, label }].sort((one, other) => one.first - other.first); });
  showSentence(sentence);
  showChosen();
  say(`${wordsOf(chosen)}: ${label}.`, false, "correct-status");
}

function remove() {
  if (!chosen) return;
  const { sentence, first, last } = chosen;
  const before = shown.sentences[sentence];
  const left = before.entities.filter((entity) => !overlaps(entity, first, last));
  if (left.length === before.entities.length) return;
  edit(() => { before.entities = left; });
  showSentence(sentence);
  showChosen();
  say(`${wordsOf(chosen)}: no entity.`, false, "correct-status");
}

/** The chosen words with one border moved; null where there is no such word, or it belongs to another entity. */
function moved(border, step) {
  if (!chosen) return null;
  const wanted = { ...chosen, [border]: chosen[border] + step };
  const { words, entities } = shown.sentences[chosen.sentence];
  if (wanted.first < 0 || wanted.last >= words.length || wanted.first > wanted.last) return null;
  const entity = chosenEntity();
  const isFree = entities.every((other) => other === entity || !overlaps(other, wanted.first, wanted.last));
  return isFree || !entity ? wanted : null;
}

function move(border, step) {
  const wanted = moved(border, step);
  if (!wanted) return;
  const entity = chosenEntity();
  if (entity) edit(() => Object.assign(entity, { first: wanted.first, last: wanted.last }));
  chosen = wanted;
  active = anchor = wanted[border];
  showSentence(wanted.sentence);
  showChosen();
  say(`${wordsOf(chosen)}${entity ? `: ${entity.label}` : ""}.`, false, "correct-status");
}

async function save() {
  if (!shown || isSaving) return;
  isSaving = true;
  showState();
  const { text, version, sentences } = shown;
  const sent = sentences.map(({ entities }) => copyOf(entities));
  try {
    const answer = await ask("v1/annotations", { text, version, entities: allInText(), offsets: "utf16" });
    if (shown?.text !== text) return;
    shown.version = answer.version;
    shown.sentences.forEach((sentence, number) => { sentence.saved = sent[number]; });
    byId("conflict").hidden = true;
    keepDraft(); // what was changed meanwhile stays one
    showAll();
    say("Saved.", false, "correct-status");
  } catch (problem) {
    byId("conflict").hidden = problem.status !== 409;
    say(problem.status === 409 ? "" : `Not saved: ${problem.message}`, true, "correct-status");
    if (problem.status === 409) byId("theirs").focus();
  } finally {
    isSaving = false;
    showState();
  }
}

/** Save one's own corrections in the place of others that were saved meanwhile. */
async function saveMine() {
  byId("conflict").hidden = true;
  const { version } = await ask("v1/annotations/find", { text: shown.text, offsets: "utf16" });
  shown.version = version;
  await save();
}

/** Show what is saved, and what the first model found where nothing is. */
async function dropChanges() {
  byId("conflict").hidden = true;
  edit(() => {});
  localStorage.removeItem(DRAFT + shown.text);
  await find(shown.text, false);
  say("Your changes are dropped; Undo brings them back.", false, "correct-status");
  byId("words").focus();
}

function takeModel(number) {
  edit(() => takeEntities(models[number].entities));
  chosen = null;
  showAll();
}

// What is shown.

const wordsOf = ({ sentence, first, last }) => {
  const { words } = shown.sentences[sentence];
  return shown.text.slice(words[first][0], words[last][1]);
};

function showAll() {
  byId("words").replaceChildren(...shown.sentences.map((_, number) => make("div", { role: "group", dir: "auto" })));
  shown.sentences.forEach((_, number) => showSentence(number));
  showChosen();
}

function showSentence(number) {
  const sentence = shown.sentences[number];
  const { words, entities } = sentence;
  const option = (word, entity) => {
    const shownWord = shown.text.slice(...words[word]);
    const option = make("span", { id: `word-${number}-${word}`, role: "option", "aria-selected": "false" }, shownWord);
    const goesOn = word > entity?.first ? ", goes on" : "";
    if (entity) option.setAttribute("aria-label", `${shownWord}, ${entity.label}${goesOn}`);
    return option;
  };
  const gap = (word) => shown.text.slice(words[word - 1][1], words[word][0]);
  const line = byId("words").children[number];
  const isSaved = !isUnsaved(sentence);
  line.setAttribute("aria-label", `Sentence ${number + 1}, ${isSaved ? "saved" : "not saved"}`);
  line.classList.toggle("saved", isSaved);
  line.replaceChildren();
  let next = 0;
  for (let word = 0; word < words.length; word++) {
    if (word > 0) line.append(gap(word));
    const entity = entities[next];
    if (entity?.first !== word) {
      line.append(option(word));
      continue;
    }
    const mark = make("mark", { role: "presentation", class: colourOf(entity.label) }, option(word, entity));
    while (word < entity.last) mark.append(gap(++word), option(word, entity));
    mark.append(make("span", { class: "label", dir: "ltr", "aria-hidden": "true" }, make("bdi", {}, entity.label)));
    line.append(mark);
    next++;
  }
}

function showChosen() {
  for (const option of byId("words").querySelectorAll("[aria-selected=true]")) {
    option.setAttribute("aria-selected", "false");
  }
  byId("words").querySelector(".active")?.classList.remove("active");
  if (chosen) {
    for (let word = chosen.first; word <= chosen.last; word++) {
      byId(`word-${chosen.sentence}-${word}`).setAttribute("aria-selected", "true");
    }
    const at = byId(`word-${chosen.sentence}-${active}`);
    at.classList.add("active");
    at.scrollIntoView({ block: "nearest" });
    byId("words").setAttribute("aria-activedescendant", at.id);
  } else byId("words").removeAttribute("aria-activedescendant");
  const entity = chosenEntity();
  byId("chosen").replaceChildren(chosen ? make("bdi", {}, wordsOf(chosen)) : "no words");
  for (const button of byId("types").querySelectorAll("button")) {
    button.disabled = !chosen;
    button.setAttribute("aria-pressed", String(entity?.label === button.value));
  }
  for (const button of document.querySelectorAll("#borders button")) {
    button.disabled = !moved(button.name, Number(button.value));
  }
  const sentence = chosen && shown.sentences[chosen.sentence];
  byId("remove").disabled = !sentence?.entities.some((entity) => overlaps(entity, chosen.first, chosen.last));
  showState();
}

function showState() {
  if (!shown) return;
  const { sentences } = shown;
  const nSaved = sentences.filter((sentence) => !isUnsaved(sentence)).length;
  byId("saved").textContent = `Saved: ${nSaved} of ${sentences.length} sentence${sentences.length === 1 ? "" : "s"}`;
  byId("save").disabled = isSaving || nSaved === sentences.length;
  byId("undo").disabled = !undone.length;
}

function showTypes() {
  byId("types").replaceChildren(
    ...shown.types.map((label, number) => {
      const key = number < 9 ? String(number + 1) : "";
      const swatch = make("span", { class: `swatch ${colourOf(label)}`, "aria-hidden": "true" }, key);
      const button = make("button", { type: "button", value: label }, swatch, make("bdi", {}, label));
      if (key) button.setAttribute("aria-keyshortcuts", key);
      button.addEventListener("click", () => setType(label));
      return button;
    }),
  );
}

// Mouse and keyboard.

/** Choose a word, or the whole entity that it belongs to; or all words between it and the one chosen before. */
function choose(sentence, word, isMore = false) {
  const isRange = isMore && chosen?.sentence === sentence;
  active = word;
  if (!isRange) anchor = word;
  const entity = isRange ? null : entityAt(shown.sentences[sentence], word);
  chosen = {
    sentence,
    first: entity ? entity.first : Math.min(anchor, word),
    last: entity ? entity.last : Math.max(anchor, word),
  };
  showChosen();
}

/** Sentence and word of a place in the page; null where there is none. */
function wordAt(node) {
  const element = node?.nodeType === Node.ELEMENT_NODE ? node : node?.parentElement;
  const entity = element?.closest("#words mark");
  const option = element?.closest("#words [role=option]") ?? entity?.querySelector("[role=option]");
  return option ? option.id.split("-").slice(1).map(Number) : null;
}

/** Choose the words that the mouse has drawn over. */
function chooseDrawn(selection) {
  const range = selection.getRangeAt(0);
  const options = [...byId("words").querySelectorAll("[role=option]")].filter((option) => range.intersectsNode(option));
  selection.removeAllRanges();
  if (!options.length) return;
  const [sentence, first] = wordAt(options[0]);
  const last = options.map(wordAt).filter(([number]) => number === sentence).at(-1)[1];
  choose(sentence, first);
  if (last > first) choose(sentence, last, true);
}

byId("words").addEventListener("click", (event) => {
  const selection = getSelection();
  const isDrawn = !selection.isCollapsed && byId("words").contains(selection.anchorNode);
  if (isDrawn && !event.shiftKey) return chooseDrawn(selection);
  const place = wordAt(event.target);
  if (!place) return;
  selection.removeAllRanges(); // of a click with shift
  choose(...place, event.shiftKey);
});

byId("words").addEventListener("keydown", (event) => {
  if (!shown) return;
  const number = chosen?.sentence ?? 0;
  const last = shown.sentences[number].words.length - 1;
  const isFromRight = getComputedStyle(byId("words").children[number]).direction === "rtl";
  const step = isFromRight ? -1 : 1;
  const at = chosen ? active : -1;
  const isCommand = event.ctrlKey || event.metaKey;
  const go = (word) => choose(number, Math.max(0, Math.min(word, last)), event.shiftKey);
  const goTo = (sentence) => sentence in shown.sentences && choose(sentence, 0);
  const actions = {
    ArrowRight: () => go(at + step),
    ArrowLeft: () => go(at - step),
    Home: () => go(0),
    End: () => go(last),
    ArrowDown: () => goTo(chosen ? number + 1 : 0),
    ArrowUp: () => goTo(number - 1),
    Delete: remove,
    Backspace: remove,
    Escape: () => chosen && choose(number, active),
  };
  if (isCommand && event.key === "z") undo();
  else if (isCommand || event.altKey) return;
  else if (event.key in actions) actions[event.key]();
  else if (/^[1-9]$/.test(event.key) && event.key <= shown.types.length) setType(shown.types[event.key - 1]);
  else return;
  event.preventDefault();
});

byId("correct").addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key !== "s") return;
  event.preventDefault();
  save();
});
for (const button of document.querySelectorAll("#borders button")) {
  button.addEventListener("click", () => move(button.name, Number(button.value)));
}
byId("remove").addEventListener("click", remove);
byId("undo").addEventListener("click", undo);
byId("save").addEventListener("click", save);
byId("take").addEventListener("click", () => takeModel(byId("source").value));
const orSay = (action) => () => action().catch((problem) => say(problem.message, true, "correct-status"));
for (const id of ["theirs", "drop"]) byId(id).addEventListener("click", orSay(dropChanges));
byId("mine").addEventListener("click", orSay(saveMine));

// Another tab has changed the draft, or saved it.
window.addEventListener("storage", (event) => {
  if (!shown || event.key !== DRAFT + shown.text) return;
  orSay(() => find(shown.text, false))();
});
