// Entities in text, in a browser alone: what a compact student of xlner says, with the offsets of JavaScript.
//
//     import { loadTagger } from "./tagger.js";
//     const tagger = await loadTagger();
//     await tagger.tag("Angela Merkel besuchte Kiel."); // [{text, label, start, end, score}, ...]
//
// The parts are those of the Python package, under its names: words.py, compact_words.py, encode.py, backends.py,
// decoding.py. A test holds them together; who changes one changes the other. Needs regular expressions with the flag
// `v`: Chrome 112, Firefox 116, Safari 17.

/**
 * The tagger of a folder that `xlner export --web` wrote.
 *
 * @param {string | URL} folder Its address; by default the folder that this script lies in.
 * @returns {Promise<Tagger>}
 * @throws {Error} If a file is missing or of another format.
 */
export async function loadTagger(folder = ".") {
  const base = new URL(`${folder}/`, import.meta.url);
  const [student, settings] = await Promise.all([json(base, "student.json"), json(base, "xlner.json")]);
  if (student.format !== 1) throw new Error(`${base}student.json: found format ${student.format}, expected 1`);
  const split = WORD_SPLITTERS[settings.word_splitter];
  if (!split) throw new Error(`${base}xlner.json: unknown word splitter ${settings.word_splitter}`);
  const open = STUDENTS[student.kind];
  if (!open) throw new Error(`${base}student.json: unknown kind of student ${student.kind}`);
  const isCrf = student.decoder === "crf";
  const weights = isCrf || student.kind === "linear" ? await safetensors(base) : {};
  const { row, width, network } = await open(base, student, weights);
  return new Tagger(student, split, row, width, network, isCrf ? new Marginals(student.tags, weights) : null);
}

const STUDENTS = {
  async bilstm(base, { sizes }) {
    const [vocabulary, network] = await Promise.all([json(base, "vocabulary.json"), Graph.open(base)]);
    return { row: vocabularyRow(vocabulary, sizes.n_chars), width: 1 + sizes.n_chars, network };
  },
  async linear(base, { tags }, weights) {
    return { row: featuresRow, width: N_FEATURES, network: new LinearTable(weights, tags.length) };
  },
};

export class Tagger {
  #maxWords;
  #split;
  #row;
  #width;
  #network;
  #marginals;
  #decoder;
  #rows = new Map();
  #running = Promise.resolve();

  /** Made by `loadTagger`. */
  constructor(student, split, row, width, network, marginals) {
    this.tags = student.tags;
    this.types = [...new Set(student.tags.map(typeOf).filter(Boolean))].sort();
    this.#maxWords = student.max_words;
    [this.#split, this.#row, this.#width] = [split, row, width];
    [this.#network, this.#marginals, this.#decoder] = [network, marginals, new ValidTags(student.tags)];
  }

  /**
   * The entities of a text of any length, in order.
   *
   * @param {string} text
   * @param {object} options `threshold`: entities of a lower score are left out. `types`: those of other types are.
   *     `offsets`: "utf16", so that `text.slice(start, end)` is the entity, or "characters", as Python counts.
   * @returns {Promise<{text: string, label: string, start: number, end: number, score: number}[]>}
   */
  async tag(text, { threshold = 0, types = this.types, offsets = "utf16" } = {}) {
    const places = this.#split(text);
    const spans = this.#decoder.entities(await this.probs(places.map(([start, end]) => text.slice(start, end))));
    const wanted = spans.filter(({ label, score }) => score >= threshold && types.includes(label));
    const count = offsets === "characters" ? characterCounter(text) : (place) => place;
    return wanted.map(({ label, first, last, score }) => {
      const [start, end] = [places[first][0], places[last][1]];
      return { text: text.slice(start, end), label, start: count(start), end: count(end), score };
    });
  }

  /** The words of a text, as the tagger splits it. */
  words(text) {
    return this.#split(text).map(([start, end]) => text.slice(start, end));
  }

  /** The probability of each of `tags` for each word: a Float32Array a word. */
  async probs(words) {
    const found = new Array(words.length);
    for (const { shown, decided } of planWindows(words.length, this.#maxWords)) {
      const rows = this.#rowsOf(words.slice(...shown));
      // One after the other: a session of ONNX Runtime takes no second call before the first one has ended.
      const computed = this.#running.catch(() => {}).then(() => this.#network.scores(rows, this.#width));
      this.#running = computed;
      const scores = this.#marginals ? this.#marginals.of(await computed) : await computed;
      for (let word = decided[0]; word < decided[1]; word++) found[word] = softmax(scores[word - shown[0]]);
    }
    return found;
  }

  #rowsOf(words) {
    if (this.#rows.size > KEPT_WORDS) this.#rows.clear();
    return words.map((word) => {
      let row = this.#rows.get(word);
      if (!row) this.#rows.set(word, (row = this.#row(word)));
      return row;
    });
  }
}

const KEPT_WORDS = 200_000;

/** Counts the characters (code points) before places of a text, which must come in rising order. */
function characterCounter(text) {
  let [place, count] = [0, 0];
  return (until) => {
    for (; place < until; place += text.codePointAt(place) > 0xffff ? 2 : 1) count++;
    return count;
  };
}

async function fetched(base, name) {
  const response = await fetch(new URL(name, base));
  if (!response.ok) throw new Error(`${base}${name}: the server answered ${response.status}`);
  return response;
}

const json = async (base, name) => (await fetched(base, name)).json();

// words.py: where the words of a text begin and end. `\X`, which JavaScript lacks, is spelled out for the characters
// that it is asked for. What repeats never goes back, as in Python, since nothing that follows it can fail.

const X = String.raw;
const SCRIPTS = [
  X`\p{Script=Han}`, X`\p{Script=Hiragana}ー`, X`\p{Script=Katakana}ーｰ`, X`\p{Script=Thai}`, X`\p{Script=Lao}`,
  X`\p{Script=Khmer}`, X`\p{Script=Myanmar}`,
];
const UNSPACED = X`[[${SCRIPTS.join("")}]--\p{Nd}]`;
const INVISIBLE = X`\p{White_Space}\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}`;
const WORD = X`[[\p{L}\p{N}\p{M}_]--${UNSPACED}]`;
const FIRST = X`[${WORD}--[${INVISIBLE}]]`;
const GLUE = X`[\u00AD\u200C\u200D\u2060]`;
const LETTER = X`[[\p{L}\p{M}]--${UNSPACED}]`;
const APOSTROPHE = "['’]";
const ELIDED = "l|d|s|n|c|j|m|t|qu|jusqu|lorsqu|puisqu|un|gl|sant|quest|quell|all|dell|dall|nell|sull|coll";
const ELISION = `(?:${ELIDED}|${ELIDED.replace(/[a-z]+/g, (word) => word[0].toUpperCase() + word.slice(1))})`;
const CLITIC = X`${APOSTROPHE}(?:s|S|ll|re|ve|d|m)(?!${WORD})`;
// Unicode Standard Annex 29: what stays with the character before it, and marks with a place of their own that do not.
const EXTEND = X`\p{Grapheme_Extend}\p{Emoji_Modifier}`;
const MARKS_APART = X`\u102B\u102C\u1038\u1062-\u1064\u1067-\u106D\u1083\u1087-\u108C\u108F\u109A-\u109C` +
  X`\u1A61\u1A63\u1A64\uAA7B\uAA7D\u{11720}\u{11721}`;
// Consonants of Khmer and Burmese, which stand below the one before where a sign (coeng, virama) says so. Signs of other
// scripts, which Unicode joins to them as well and no text does, are not listed.
const CONSONANTS = X`\u1000-\u102A\u103F\u1050-\u1055\u105A-\u105D\u1061\u1065\u1066\u106E-\u1070\u1075-\u1081` +
  X`\u108E\u1780-\u17B3\uA9E0-\uA9E4\uA9E7-\uA9EF\uA9FA-\uA9FE\uAA60-\uAA6F\uAA71-\uAA73\uAA7A\uAA7E\uAA7F`;
const BELOW = X`(?<=[\u1039\u17D2][${EXTEND}\u200D]*)[${CONSONANTS}]`;
const JOINED = X`(?:[${EXTEND}\u200D\u0E33\u0EB3[\p{Mc}--[${MARKS_APART}]]]|${BELOW})*`;

const wordPattern = (unspacedWord) => new RegExp(
  [
    X`\p{Extended_Pictographic}(?:[${EXTEND}]*\u200D\p{Extended_Pictographic})*${JOINED}`,
    X`\p{Regional_Indicator}{1,2}`,
    unspacedWord,
    X`(?:https?:\/\/|www\.)[!-~]*[A-Za-z0-9\/]`,
    X`[A-Za-z0-9._+\-]{1,64}@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+`,
    X`(?:${LETTER}{1,2}\.)(?:${LETTER}{1,2}\.)+`,
    X`\p{Lu}\p{M}?\.(?=[ \u00A0\-]{0,2}\p{Lu})`,
    X`(?:St|Dr|Mr|Mrs|Ms|Jr|Sr|Prof|Chr|Bros|Inc|Ltd|Corp)\.`,
    X`${ELISION}${APOSTROPHE}(?=${LETTER})(?!${CLITIC})`,
    X`(?<!${APOSTROPHE})${ELISION}${APOSTROPHE}(?=[ ]${LETTER})`,
    CLITIC,
    X`${FIRST}${WORD}*(?:(?:` +
      [
        X`${GLUE}+`,
        X`(?<=${LETTER})[\-‐‑](?=${WORD})`,
        X`(?<=\p{N})[\-‐‑](?=${LETTER})`,
        X`(?<=${LETTER})(?!${CLITIC})${APOSTROPHE}(?=${LETTER})`,
        X`(?<=${LETTER})&(?=${LETTER})`,
        X`(?<=\p{L})\.(?=\p{Ll})`,
        X`(?<=\p{Nd})[.,:\/٫٬](?=\p{Nd})`,
      ].join("|") +
      X`)${WORD}+)*\u200D?`,
    X`(?<sign>[^${INVISIBLE}])\k<sign>*\p{M}*`,
  ].join("|"),
  "gv",
);
const UNICODE_WORD = wordPattern(X`${UNSPACED}${JOINED}`);
const SCRIPT_RUN_WORD = wordPattern(SCRIPTS.map((script) => X`(?:[[${script}]--\p{Nd}]${JOINED})+`).join("|"));
const NOT_SPACE = /[^\p{White_Space}\x1C-\x1F]+/gv;
const VISIBLE = new RegExp(X`[^${INVISIBLE}]`, "v");

const matches = (pattern, text) =>
  Array.from(text.matchAll(pattern), ({ index, 0: word }) => [index, index + word.length]);

const WORD_SPLITTERS = {
  unicode: (text) => matches(UNICODE_WORD, text),
  script_runs: (text) => matches(SCRIPT_RUN_WORD, text),
  whitespace: (text) => matches(NOT_SPACE, text).filter(([start, end]) => VISIBLE.test(text.slice(start, end))),
};

// compact_words.py: a word becomes a row of numbers.

const zeroDigits = (word) => word.replace(/\p{Nd}/gv, "0");

/** The number of the word and those of its characters; a long word keeps its two ends. */
function vocabularyRow(vocabulary, nChars) {
  const words = new Map(vocabulary.words.map((word, number) => [word, number + 2]));
  const characters = new Map(Array.from(vocabulary.characters, (character, number) => [character, number + 2]));
  const [head, tail] = [Math.ceil(nChars / 2), Math.floor(nChars / 2)];
  return (word) => {
    const letters = [...word];
    const seen = letters.length <= nChars ? letters : [...letters.slice(0, head), ...letters.slice(-tail)];
    const row = new Int32Array(1 + nChars);
    row[0] = words.get(zeroDigits(word.toLowerCase())) ?? 1;
    seen.forEach((letter, place) => (row[1 + place] = characters.get(letter) ?? 1));
    return row;
  };
}

const N_FEATURES = 12;

/** The features of a word, each a number of 31 bits; 0 for what a short word does not have. */
function featuresRow(word) {
  const size = [...word].length;
  const lower = [...word.toLowerCase()];
  const shape = Array.from(word, shapeOf);
  const part = (longer, ...range) => (size > longer ? lower.slice(...range).join("") : "");
  const texts = [
    word, shape.join("").replace(/([^\n])\1+/gv, "$1"), zeroDigits(lower.join("")), part(3, 0, 3), part(3, -3),
    shape.slice(0, 8).join(""), part(0, 0, 1), part(2, 0, 2), part(4, 0, 4), part(0, -1), part(2, -2), part(4, -4),
  ];
  return Int32Array.from(texts, (text, place) => (text ? (crc32(`${place}=${text}`) & 0x7fffffff) || 1 : 0));
}

// What Python's `isdigit` takes for a digit beyond decimal ones: superscripts, digits in circles, ...
const DIGIT = new RegExp(
  X`^[\p{Nd}²³¹\u1369-\u1371\u19DA\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468\u2474-\u247C\u2488-\u2490` +
    X`\u24EA\u24F5-\u24FD\u24FF\u2776-\u277E\u2780-\u2788\u278A-\u2792\u{10A40}-\u{10A43}\u{10E60}-\u{10E68}` +
    X`\u{11052}-\u{1105A}\u{1F100}-\u{1F10A}]$`,
  "v",
);

function shapeOf(character) {
  if (/^\p{Uppercase}$/v.test(character)) return "X";
  return DIGIT.test(character) ? "0" : /^\p{L}$/v.test(character) ? "x" : character;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** Of the text in UTF-8, halves of characters included, which TextEncoder would replace. */
function crc32(text) {
  let crc = -1;
  const add = (byte) => (crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff]);
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code < 0x80) {
      add(code);
      continue;
    }
    const more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    add(((0xff00 >> (more + 1)) & 0xff) | (code >> (6 * more)));
    for (let rest = more - 1; rest >= 0; rest--) add(0x80 | ((code >> (6 * rest)) & 0x3f));
  }
  return ~crc;
}

// encode.py: windows of a long text.

const CONTEXT_RATIO = 0.25;

/** The words that each window shows, and those among them that it decides: [from, to) each. */
function planWindows(nWords, maxWords) {
  const context = Math.floor(maxWords * CONTEXT_RATIO);
  const windows = [];
  let from = 0;
  while (from < nWords) {
    const first = windows.length ? Math.max(0, from - context) : 0;
    const to = Math.min(nWords, first + maxWords);
    const decidedTo = to < nWords ? Math.max(from + 1, to - context) : to;
    windows.push({ shown: [first, to], decided: [from, decidedTo] });
    from = decidedTo;
  }
  return windows;
}

// backends.py: the rows of a window to scores of tags, a Float32Array for each word.

/** A graph for ONNX Runtime. */
class Graph {
  static async open(base) {
    const ort = await import(new URL("ort.wasm.bundle.min.mjs", base));
    // More threads need a page that is isolated from other origins, which takes headers of the server.
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", base).href };
    const model = new Uint8Array(await (await fetched(base, "model.onnx")).arrayBuffer());
    return new Graph(ort, await ort.InferenceSession.create(model, { executionProviders: ["wasm"] }));
  }

  constructor(ort, session) {
    [this.ort, this.session] = [ort, session];
  }

  async scores(rows, width) {
    const numbers = new Int32Array(rows.length * width);
    rows.forEach((row, word) => numbers.set(row, word * width));
    const { Tensor } = this.ort;
    const { emissions } = await this.session.run({
      rows: new Tensor("int32", numbers, [1, rows.length, width]),
      lengths: new Tensor("int32", Int32Array.of(rows.length), [1]),
    });
    const nTags = emissions.dims[2];
    return rows.map((_, word) => emissions.data.subarray(word * nTags, (word + 1) * nTags));
  }
}

// The features of a word and its neighbours that a linear student adds up: (offset from the word, place in the row).
const [WORD_IS, SHAPE, LOWER, PREFIX_3, SUFFIX_3] = [0, 1, 2, 3, 4];
const TEMPLATES = [
  ...Array.from({ length: N_FEATURES }, (_, place) => [[0, place]]),
  ...[-1, 1].flatMap((offset) => [WORD_IS, SHAPE, LOWER, PREFIX_3, SUFFIX_3].map((place) => [[offset, place]])),
  ...[-2, 2].flatMap((offset) => [WORD_IS, SHAPE].map((place) => [[offset, place]])),
  [[-1, LOWER], [0, LOWER]],
  [[0, LOWER], [1, LOWER]],
  [[-1, SHAPE], [0, SHAPE]],
  [[0, SHAPE], [1, SHAPE]],
  [[-1, SHAPE], [0, SHAPE], [1, SHAPE]],
  [[-1, LOWER], [0, SHAPE]],
  [[0, SHAPE], [1, LOWER]],
  [[-2, LOWER], [-1, LOWER], [0, SHAPE]],
  [[0, SHAPE], [1, LOWER], [2, LOWER]],
  [[-1, LOWER], [0, SHAPE], [1, LOWER]],
  [[-1, SUFFIX_3], [0, SUFFIX_3]],
  [[0, PREFIX_3], [1, SHAPE]],
  [[-1, SHAPE], [0, SUFFIX_3]],
  [[-2, SHAPE], [-1, SHAPE], [0, SHAPE], [1, SHAPE], [2, SHAPE]],
];
const uint64 = (value) => BigInt.asUintN(64, value);
const MIXERS = TEMPLATES.map((_, number) => uint64(BigInt(2 * number + 3) * 0x9e3779b97f4a7c15n) | 1n);
const JOINER = 0xc2b2ae3d27d4eb4fn;

/** A table of scores, (buckets, C), of which each word adds up the rows that its features name. */
class LinearTable {
  constructor(weights, nTags) {
    const scales = weights["body.scales"];
    this.table = Float32Array.from(weights["body.table"], (value, place) => value * scales[place % nTags]);
    this.nTags = nTags;
    this.buckets = BigInt(this.table.length / nTags);
    this.nothing = new Int32Array(N_FEATURES);
  }

  scores(rows) {
    return rows.map((_, word) => this.#scoresOf(rows, word));
  }

  #scoresOf(rows, word) {
    const found = new Float32Array(this.nTags);
    TEMPLATES.forEach((template, number) => {
      let value = 0n;
      template.forEach(([offset, place], part) => {
        const feature = BigInt((rows[word + offset] ?? this.nothing)[place]);
        value = part ? uint64((value ^ (value >> 29n)) * JOINER + feature) : feature;
      });
      let mixed = uint64((value + 1n) * MIXERS[number]);
      mixed = uint64((mixed ^ (mixed >> 31n)) * JOINER);
      const start = Number(((mixed >> 32n) * this.buckets) >> 32n) * this.nTags;
      for (let tag = 0; tag < this.nTags; tag++) found[tag] += this.table[start + tag];
    });
    return found;
  }
}

/** What a CRF makes of the scores of tags: the log-probability of each tag of each word. */
class Marginals {
  constructor(tags, weights) {
    const IMPOSSIBLE = -1e4;
    const { steps, free } = validSteps(tags);
    const nTags = tags.length;
    const exp = (weight, allowed) => Math.exp(Math.fround(weight + (allowed ? 0 : IMPOSSIBLE)));
    this.pairs = tags.map((_, before) =>
      tags.map((_, tag) => exp(weights["crf.transitions"][before * nTags + tag], steps[before][tag])),
    );
    this.first = tags.map((_, tag) => exp(weights["crf.first"][tag], free[tag]));
    this.last = Array.from(weights["crf.last"], Math.exp);
  }

  of(emissions) {
    const weights = emissions.map((scores) => {
      const highest = Math.max(...scores);
      return Array.from(scores, (score) => Math.max(Math.exp(Math.fround(score - highest)), 1e-100));
    });
    const forward = [];
    weights.forEach((ofWord, word) => {
      const before = forward[word - 1];
      const reached = (tag) => (before ? sum(before, (mass, other) => mass * this.pairs[other][tag]) : this.first[tag]);
      forward.push(normalised(ofWord.map((weight, tag) => reached(tag) * weight)));
    });
    const found = new Array(weights.length);
    let backward = this.last;
    for (let word = weights.length - 1; word >= 0; word--) {
      const marginals = normalised(forward[word].map((mass, tag) => mass * backward[tag]));
      found[word] = Float32Array.from(marginals, (mass) => Math.log(Math.max(mass, 1e-30)));
      const after = weights[word].map((weight, tag) => weight * backward[tag]);
      backward = normalised(this.pairs.map((ofTag) => sum(ofTag, (pair, tag) => pair * after[tag])));
    }
    return found;
  }
}

const sum = (values, of = (value) => value) => values.reduce((total, value, place) => total + of(value, place), 0);

function normalised(values) {
  const total = sum(values);
  return values.map((value) => value / total);
}

function softmax(scores) {
  const highest = Math.max(...scores);
  return normalised(Float32Array.from(scores, (score) => Math.exp(Math.fround(score - highest))));
}

/** The arrays of `model.safetensors`, by name, in the order that they are stored in. */
async function safetensors(base) {
  const name = "model.safetensors";
  const content = await (await fetched(base, name)).arrayBuffer();
  const start = 8 + Number(new DataView(content).getBigUint64(0, true));
  const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 8, start - 8)));
  return Object.fromEntries(
    Object.entries(header).map(([key, { dtype, data_offsets: [from, to] }]) => {
      const read = NUMBERS[dtype];
      if (!read) throw new Error(`${base}${name}: found numbers of type ${dtype}, expected ${Object.keys(NUMBERS)}`);
      return [key, read(content.slice(start + from, start + to))];
    }),
  );
}

const NUMBERS = {
  I8: (bytes) => new Int8Array(bytes),
  F32: (bytes) => new Float32Array(bytes),
  F16: (bytes) => Float32Array.from(new Uint16Array(bytes), fromHalf),
};

function fromHalf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 0x1f, bits & 0x3ff];
  const size = exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024);
  return bits & 0x8000 ? -size : size;
}

// tags.py and decoding.py: the likeliest valid sequence of tags, and how probable its entities are.

const typeOf = (tag) => (tag === "O" ? "" : tag.slice(2));

/** Which tag may follow which (from the row to the column), and which may come first. */
function validSteps(tags) {
  const free = tags.map((tag) => !(tag.startsWith("I-") && tags.includes(`B${tag.slice(1)}`)));
  const steps = tags.map((before) => tags.map((tag, number) => free[number] || tag.slice(1) === before.slice(1)));
  return { steps, free };
}

const LEAST = 1e-30;

class ValidTags {
  constructor(tags) {
    const { steps, free } = validSteps(tags);
    [this.tags, this.steps, this.free, this.outside] = [tags, steps, free, tags.indexOf("O")];
    // Of each tag that needs a certain one before it, the B that goes with it.
    this.begin = tags.map((tag, number) => (free[number] ? -1 : tags.indexOf(`B${tag.slice(1)}`)));
  }

  /** The entities of a sentence, from the probabilities of its words' tags; `last` is the last word of one. */
  entities(probs) {
    const tags = this.likeliest(probs);
    const spans = [];
    tags.forEach((number, word) => {
      const label = typeOf(this.tags[number]);
      const current = spans.at(-1);
      const continues = this.tags[number].startsWith("I-") && current?.last === word - 1 && current.label === label;
      if (continues) current.last = word;
      else if (label) spans.push({ label, first: word, last: word });
    });
    return spans.length ? this.#scored(probs, spans) : [];
  }

  /** Numbers of the tags of the likeliest valid sequence. */
  likeliest(probs) {
    const best = probs.map(argmax);
    if (best.every((tag, word) => this.steps[word ? best[word - 1] : this.outside][tag])) return best;
    return this.#viterbi(probs);
  }

  #viterbi(probs) {
    const origins = [];
    let score;
    probs.forEach((ofWord, word) => {
      const logs = Array.from(ofWord, (value) => Math.log(value + LEAST));
      if (!word) {
        score = logs.map((value, tag) => (this.free[tag] ? value : -Infinity));
        return;
      }
      const top = argmax(score);
      const from = this.begin.map((begin, tag) => (begin < 0 ? top : score[begin] >= score[tag] ? begin : tag));
      origins[word] = from;
      const before = score;
      score = logs.map((value, tag) => before[from[tag]] + value);
    });
    const path = [argmax(score)];
    for (let word = probs.length - 1; word > 0; word--) path.push(origins[word][path.at(-1)]);
    return path.reverse();
  }

  /** The probability of just this span having just this type, by the forward-backward algorithm. */
  #scored(words, spans) {
    const { begin, free } = this;
    const probs = words.map((ofWord) => Array.from(ofWord, (value) => value + LEAST));
    const [forward, scales] = [[], []];
    probs.forEach((ofWord, word) => {
      const before = forward[word - 1];
      const reached = ofWord.map((value, tag) => {
        if (begin[tag] < 0) return value;
        return before ? value * (before[begin[tag]] + before[tag]) : 0;
      });
      scales.push(sum(reached));
      forward.push(reached.map((value) => value / scales[word]));
    });
    const ends = new Array(probs.length).fill(1);
    let following = new Array(this.tags.length).fill(1);
    for (let word = probs.length - 2; word >= 0; word--) {
      const weighted = probs[word + 1].map((value, tag) => (value * following[tag]) / scales[word + 1]);
      ends[word] = sum(weighted, (value, tag) => (free[tag] ? value : 0));
      following = following.fill(ends[word]);
      begin.forEach((ofTag, tag) => {
        if (ofTag < 0) return;
        following[ofTag] += weighted[tag];
        following[tag] += weighted[tag];
      });
    }
    return spans.map((span) => {
      const tags = [`B-${span.label}`, `I-${span.label}`].map((tag) => this.tags.indexOf(tag));
      const [first, inside] = tags.includes(-1) ? [Math.max(...tags), Math.max(...tags)] : tags;
      let score = forward[span.first][first] * ends[span.last];
      for (let word = span.first + 1; word <= span.last; word++) score *= probs[word][inside] / scales[word];
      return { ...span, score: Math.min(1, score) };
    });
  }
}

const argmax = (values) => values.reduce((best, value, place) => (value > values[best] ? place : best), 0);
