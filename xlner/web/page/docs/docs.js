// Shows openapi.json. FastAPI's own page would load its scripts from another server.

import { make } from "../elements.js";

const api = await (await fetch("../openapi.json")).json();
const resolve = (schema) => (schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

/** A type in a few words: `string or null`, `list of MarkedEntity`. */
function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  const bounds = [schema.minimum, schema.maximum].filter((bound) => bound !== undefined).join(" to ");
  return [schema.type, bounds].filter(Boolean).join(" ");
}

/** A table of the fields of a schema, then those of the schemas in it. */
function fields(schema, title, seen = new Set()) {
  const found = resolve(schema);
  if (!found?.properties || seen.has(title)) return [];
  seen.add(title);
  const rows = Object.entries(found.properties).map(([name, field]) => {
    const fallback = field.default === undefined ? "" : JSON.stringify(field.default);
    const needed = found.required?.includes(name) ? "required" : fallback;
    const cells = [typeOf(field), needed, field.description ?? ""];
    return make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((cell) => make("td", {}, cell)));
  });
  const heads = ["field", "type", "default", "meaning"].map((head) => make("th", { scope: "col" }, head));
  const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
  const inner = Object.values(found.properties)
    .flatMap((field) => [field, field.items, ...(field.anyOf ?? [])])
    .filter((field) => field?.$ref);
  const about = found.description ? [make("p", { class: "note" }, found.description)] : [];
  return [
    make("h3", {}, title), ...about, make("div", { class: "wide", tabindex: "0" }, table),
    ...inner.flatMap((field) => fields(field, field.$ref.split("/").pop(), seen)),
  ];
}

for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, what] of Object.entries(methods)) {
    const asked = what.requestBody?.content["application/json"]?.schema;
    const answered = what.responses["200"]?.content?.["application/json"]?.schema ?? {};
    const example = `curl ${location.origin}${path}` +
      (asked ? ` -H 'content-type: application/json' -d '{"text": "Angela Merkel besuchte Kiel."}'` : "");
    document.getElementById("paths").append(
      make("section", {}, make("h2", {}, make("code", {}, `${method.toUpperCase()} ${path}`)),
        make("p", {}, what.description ?? ""), make("pre", { tabindex: "0" }, example),
        ...(asked ? fields(asked, "Request") : []), ...fields(answered, "Answer")),
    );
  }
}
