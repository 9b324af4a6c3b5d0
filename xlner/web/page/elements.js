// What all pages of `xlner serve` use. Whatever comes from a text or a model becomes a text node, never HTML.

const N_COLOURS = 8; // in page.css
const types = []; // the n-th one has the n-th colour

/** The class of a type, which gives it its colour, the same one wherever it is shown. */
export function colourOf(label) {
  if (!types.includes(label)) types.push(label);
  return `type-${types.indexOf(label) % N_COLOURS}`;
}

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is a string becomes text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

export function say(message, isError = false, place = "status") {
  byId(place).textContent = message;
  byId(place).classList.toggle("error", isError);
}

/** The content of a JSON answer; an error with the server's own words and its status otherwise. */
export async function ask(path, content) {
  const options = content && {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(content),
  };
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const detail = Array.isArray(answer.detail) ? answer.detail.map((part) => part.msg).join("; ") : answer.detail;
  throw Object.assign(new Error(detail || `the server answered ${response.status}`), { status: response.status });
}
