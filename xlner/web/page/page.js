// The page of `xlner serve`: models side by side.

import { openEditor, textsOfDrafts } from "./annotate.js";
import { ask, byId, colourOf, make, say } from "./elements.js";

const LONGEST_LINK = 8000; // characters; longer addresses get lost in mails and proxies
const MOST_ROWS = 500;
const MOST_MARKS = 2000; // of a model; a browser takes long to lay out many more in one paragraph
const MARKS = {
  agreed: ["✓", "all models"],
  other_type: ["≠", "other type elsewhere"],
  other_borders: ["↔", "other borders elsewhere"],
  not_all: ["½", "not all models"],
  only_one: ["1", "this model alone"],
};

let last = null; // what was asked and what was answered
let isCorrected = false; // whether the server saves corrections

const inBrowser = new Map(); // models of folders for the browser, by name, and their taggers once they are loaded
const TIMED_RUNS = 5; // after one that warms up; fewer once TIMED_MS are over, as the server has it
const TIMED_MS = 2000;

const chosenModels = () => [...document.querySelectorAll("#models input:checked")].map((box) => box.value);

/** What a model finds here, and how long it takes: as the server tells it of its own. */
async function tagHere(name, text) {
  const model = inBrowser.get(name);
  model.tagger ??= import(new URL(`${model.folder}tagger.js`, document.baseURI)).then((script) => script.loadTagger());
  const tagger = await model.tagger;
  await tagger.tag(text);
  const times = [];
  let entities = [];
  let passed = 0;
  while (times.length < TIMED_RUNS && passed < TIMED_MS) {
    const start = performance.now();
    entities = await tagger.tag(text);
    times.push(performance.now() - start);
    passed += times.at(-1);
  }
  times.sort((one, other) => one - other);
  const at = (share) => times[Math.round(share * (times.length - 1))] / 1000;
  const seconds = { median: at(0.5), p95: at(0.95), runs: times.length };
  const found = entities.map(({ start, end, label, score }) => ({ start, end, label, score: Math.min(score, 1) }));
  const figures = { seconds, words_per_second: tagger.words(text).length / Math.max(seconds.median, 1e-9) };
  return { found: { model: name, entities: found }, figures: { ...figures, bytes: model.bytes } };
}

async function compare() {
  const text = byId("text").value;
  const wellFormed = text.toWellFormed ? text.toWellFormed() : text;
  const chosen = chosenModels();
  const asked = { text: wellFormed, models: chosen, threshold: Number(byId("threshold").value) };
  const served = chosen.filter((name) => !inBrowser.has(name));
  if (!served.length) return say(`Choose at least one model${inBrowser.size ? " of the server" : ""}.`, true);
  byId("compare").disabled = true;
  say("Comparing …");
  try {
    const here = [];
    for (const name of chosen.filter((name) => inBrowser.has(name))) here.push(await tagHere(name, wellFormed));
    const others = here.map(({ found }) => found);
    const answer = await ask("v1/compare", { ...asked, models: served, others, offsets: "utf16" });
    here.forEach(({ figures }, number) => Object.assign(answer.models[served.length + number], figures));
    last = { asked, answer };
    show();
    const link = linkOf(asked);
    history.replaceState(null, "", link.length > LONGEST_LINK ? location.pathname : link);
    const found = answer.models.map((model) => `${model.model} ${model.entities.length}`).join(", ");
    if (isCorrected) await openEditor(asked.text, answer.models);
    byId("drafts").hidden = true;
    say(`${answer.words.toLocaleString("en")} words. Entities: ${found}.`);
  } catch (problem) {
    say(problem.message, true);
  } finally {
    byId("compare").disabled = false;
  }
}

function show() {
  const { asked, answer } = last;
  byId("texts").replaceChildren(...answer.models.map((model, number) => taggedText(asked.text, model, number)));
  showDifferences();
  showFigures(answer);
  byId("results").hidden = false;
  for (const id of ["link", "json"]) byId(id).disabled = false;
}

function taggedText(text, model, number) {
  const tagged = make("div", { class: "tagged", dir: "auto", tabindex: "0", role: "group" });
  tagged.setAttribute("aria-labelledby", `model-${number}`);
  let place = 0;
  for (const entity of model.entities.slice(0, MOST_MARKS)) {
    tagged.append(text.slice(place, entity.start));
    const label = make("span", { class: "label", dir: "ltr" }, ...labelOf(entity));
    const words = text.slice(entity.start, entity.end);
    tagged.append(make("mark", { class: `${colourOf(entity.label)} ${entity.mark}` }, words, label));
    place = entity.end;
  }
  tagged.append(text.slice(place));
  const count = model.entities.length.toLocaleString("en");
  const note = model.entities.length > MOST_MARKS ? `the first ${MOST_MARKS} of ${count} entities are marked` : "";
  const title = make("h3", { id: `model-${number}` }, model.model);
  return make("section", {}, title, ...(note ? [make("p", { class: "note" }, note)] : []), tagged);
}

/** Type, score and sign of an entity; a screen reader says what the sign means. */
function labelOf(entity) {
  const [sign, meaning] = MARKS[entity.mark];
  return [make("bdi", {}, entity.label), ` ${entity.score.toFixed(2)} `, signOf(sign, meaning, entity.mark)];
}

function signOf(sign, meaning, kind) {
  return make("span", { class: `sign ${kind}`, role: "img", "aria-label": meaning, title: meaning }, sign);
}

function showDifferences() {
  const { asked, answer } = last;
  const rows = new Map();
  answer.models.forEach((model, number) => {
    for (const entity of model.entities) {
      const key = `${entity.start} ${entity.end}`;
      if (!rows.has(key)) rows.set(key, { start: entity.start, end: entity.end, cells: [], agreed: true });
      const row = rows.get(key);
      row.cells[number] = entity;
      row.agreed &&= entity.mark === "agreed";
    }
  });
  const all = [...rows.values()].sort((one, other) => one.start - other.start || one.end - other.end);
  const wanted = byId("all").checked ? all : all.filter((row) => !row.agreed);
  const [head, body] = byId("differences").children;
  head.replaceChildren(headRow(["Words", ...answer.models.map((model) => model.model)]));
  body.replaceChildren(
    ...wanted.slice(0, MOST_ROWS).map((row) => {
      const cells = answer.models.map((_, number) => differenceCell(row.cells[number]));
      return make("tr", {}, make("th", { scope: "row", dir: "auto" }, asked.text.slice(row.start, row.end)), ...cells);
    }),
  );
  const hidden = wanted.length - MOST_ROWS;
  byId("shown").textContent =
    `${wanted.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} places` +
    (hidden > 0 ? `; the first ${MOST_ROWS} are shown, and copied JSON holds all` : "");
  byId("differences").hidden = wanted.length === 0;
}

function differenceCell(entity) {
  return make("td", {}, ...(entity ? labelOf(entity) : [signOf("–", "not found", "none")]));
}

function headRow(names) {
  return make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
}

function showFigures(answer) {
  const [head, body] = byId("figures").children;
  head.replaceChildren(
    headRow([
      "Model", "Entities", "Median ms", "p95 ms", "Runs", "Words/s", "Parameters", "Bytes",
      "Cosine, all words", "Cosine, entity words", "JSD, all words", "JSD, entity words",
    ]),
  );
  const whole = (value) => (value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en"));
  const share = (value) => (value === null || value === undefined ? "–" : value.toFixed(4));
  body.replaceChildren(
    ...answer.models.map((model) => {
      const { median, p95, runs } = model.seconds;
      const all = model.agreement?.all_words;
      const inside = model.agreement?.entity_words;
      const cells = [
        whole(model.entities.length), (1000 * median).toFixed(1), (1000 * p95).toFixed(1), whole(runs),
        whole(model.words_per_second), whole(model.parameters), whole(model.bytes),
        share(all?.cosine), share(inside?.cosine), share(all?.jensen_shannon), share(inside?.jensen_shannon),
      ];
      const numbers = cells.map((cell) => make("td", { class: "number" }, cell));
      return make("tr", {}, make("th", { scope: "row" }, model.model), ...numbers);
    }),
  );
}

/** The address that opens the page with this text; behind the #, so that no server sees it. */
function linkOf(asked) {
  const parts = new URLSearchParams({ text: asked.text });
  for (const model of asked.models) parts.append("model", model);
  if (asked.threshold) parts.set("threshold", asked.threshold);
  return `${location.pathname}#${parts}`;
}

async function copy(content, what) {
  byId("fallback").hidden = true;
  try {
    await navigator.clipboard.writeText(content);
    say(`${what} copied.`);
  } catch {
    // Browsers give the clipboard to pages of this machine and of https alone.
    byId("content").value = content;
    byId("fallback").hidden = false;
    byId("content").focus();
    byId("content").select();
    say(`${what}: copy it from the field below.`);
  }
}

/** Tell of changes that were never saved, and whose text is not in the address. */
function showDrafts() {
  const texts = textsOfDrafts();
  byId("drafts").hidden = !texts.length || location.hash.includes("text=");
  byId("drafts-count").textContent = `Corrections of ${texts.length} text${texts.length === 1 ? "" : "s"} are not saved yet.`;
}

function openLink() {
  const parts = new URLSearchParams(location.hash.slice(1));
  if (!parts.has("text")) return;
  byId("text").value = parts.get("text");
  byId("threshold").value = parts.get("threshold") || "0";
  const wanted = new Set(parts.getAll("model"));
  for (const box of document.querySelectorAll("#models input")) box.checked = !wanted.size || wanted.has(box.value);
  compare();
}

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  compare();
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
byId("all").addEventListener("change", showDifferences);
byId("json").addEventListener("click", () => copy(JSON.stringify(last, null, 2), "JSON"));
byId("link").addEventListener("click", () => {
  const link = location.origin + linkOf(last.asked);
  if (link.length > LONGEST_LINK) return say("This text is too long for a link; copy it as JSON.", true);
  return copy(link, "Link");
});
window.addEventListener("hashchange", openLink);
byId("open-draft").addEventListener("click", () => {
  byId("text").value = textsOfDrafts()[0] ?? "";
  byId("form").requestSubmit();
});

try {
  const { models, browser, annotations } = await ask("v1/models");
  isCorrected = annotations;
  models.flatMap(({ types }) => types).sort().forEach(colourOf);
  for (const model of browser) inBrowser.set(model.name, model);
  byId("models").append(
    ...[...models, ...browser].map((model) => {
      const box = make("input", { type: "checkbox", value: model.name });
      box.checked = true;
      const title = model.types?.join(", ") ?? "runs in this browser";
      return make("label", { title }, box, " ", model.name, inBrowser.has(model.name) ? " (in this browser)" : "");
    }),
  );
  if (isCorrected) showDrafts();
  openLink();
} catch (problem) {
  say(problem.message, true);
}
