// The API's description, from the server's own openapi.json: routes, fields, answers, curl lines.

import { KEY, quoted } from "/web/shell.js";

const made = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const cells = (tag, contents) => contents.map((content) => made(tag, {}, ...[content ?? ""].flat()));
// Long names may break after a dot or before a slash.
const breakable = (text) => text.split(/(?<=\.)|(?=\/)/).flatMap((part) => [made("wbr"), part]);
const code = (text) => made("code", {}, ...breakable(text));

function table(head, rows) {
  if (rows.length === 0) return [];
  const body = rows.map((row) => made("tr", {}, ...cells("td", row)));
  return [made("table", {}, made("thead", {}, made("tr", {}, ...cells("th", head))), made("tbody", {}, ...body))];
}

let description;
// The examples ask for this model, or the one that is served in its place.
let model = { name: "digits", version: 1, labels: ["0"] };

const followed = (at) =>
  at?.$ref ? followed(at.$ref.split("/").slice(1).reduce((inner, name) => inner[name], description)) : at ?? {};

// A schema without the null beside it.
function resolved(schema) {
  const at = followed(schema);
  const some = at.anyOf?.filter(({ type }) => type !== "null");
  return some?.length === 1 ? resolved(some[0]) : at;
}

const isNullable = (schema) => followed(schema).anyOf?.some(({ type }) => type === "null");

function typeOf(schema) {
  const at = resolved(schema);
  if (at.enum) return at.enum.filter((value) => value !== null).map((value) => JSON.stringify(value)).join(" | ");
  if (at.anyOf) return at.anyOf.filter(({ type }) => type !== "null").map(typeOf).join(" or ");
  if (at.type === "array") return `list of ${typeOf(at.items)}`;
  const { minimum, maximum, type = "anything" } = at;
  if (maximum !== undefined) return `${type} ${minimum ?? ""} .. ${maximum}`;
  return minimum === undefined ? type : `${type}, ${minimum} and more`;
}

// The fields of an object, and of those within it.
function fields(schema, prefix = "") {
  const at = resolved(schema);
  if (at.type === "array") return fields(at.items, `${prefix}[]`);
  return Object.entries(at.properties ?? {}).flatMap(([name, field]) => {
    const path = prefix ? `${prefix}.${name}` : name;
    const type = typeOf(field) + (isNullable(field) ? " or null" : "");
    const text = field.description ?? followed(field).description ?? resolved(field).description;
    return [[code(path), type, text], ...fields(field, path)];
  });
}

const parametersOf = (operation) => operation.parameters.map(followed);
const jsonOf = (entry) => entry?.content?.["application/json"];

// What of an example goes to the model that is served.
function fitted(name, value) {
  if (name === "model") return model.name;
  if (name === "version") return model.version;
  if (model.labels) return value;
  if (name === "label" || name === "labels") return undefined;
  return name === "inputs" ? value.filter((tensor) => tensor.name !== "LABEL") : value;
}

function addressOf(path, operation) {
  const given = (place) =>
    parametersOf(operation)
      .filter((entry) => entry.in === place && entry.example !== undefined)
      .map(({ name, example }) => [name, fitted(name, example)])
      .filter(([, value]) => value !== undefined);
  const route = given("path").reduce(
    (at, [name, value]) => at.replace(`{${name}}`, encodeURIComponent(value)),
    path,
  );
  const query = String(new URLSearchParams(given("query")));
  return location.origin + route + (query && `?${query}`);
}

// A line for a shell; none where nothing good can come of it.
function example(path, method, operation) {
  const good = operation.responses["200"];
  if (!good) return [];
  const [body] = Object.values(jsonOf(operation.requestBody)?.examples ?? {});
  const [kind, suffix] = (Object.keys(good.content ?? {})[0] ?? "").split("/");
  const words = [`curl -s${method === "head" ? "I" : ""} ${quoted(addressOf(path, operation))}`];
  if (operation.security) words.push(KEY);
  if (body) words.push(`-d ${quoted(JSON.stringify(body.value, fitted))}`);
  else if (method === "post") words.push("-X POST");
  if (kind === "image") words.push(`-o ${operation.operationId}.${suffix}`);
  const line = words.join(" \\\n  ");
  const copy = made("button", { type: "button", title: "Copy this line" }, "Copy");
  copy.addEventListener("click", () => navigator.clipboard.writeText(line));
  return [made("div", { className: "example" }, made("pre", {}, line), copy)];
}

const parameterRow = (entry) => [code(entry.name), `${typeOf(entry.schema)} (${entry.in})`, entry.description];

function answerRow([status, entry], shared) {
  const types = Object.keys(entry.content ?? {}).join(", ");
  const headers = Object.keys(entry.headers).filter((name) => !shared.headers.has(name)).join(", ");
  const notes = [types && `Type: ${types}`, headers && `Headers: ${headers}`].filter(Boolean);
  return [status, [entry.description, ...notes.map((note) => made("small", {}, note))]];
}

const PARAMETERS = ["Parameter", "Type", ""];
const ANSWERS = ["Status", "Answer"];

function section({ path, method, operation }, shared) {
  const verb = made("span", { className: "method" }, method.toUpperCase());
  const parameters = parametersOf(operation).filter(({ name }) => !shared.parameters.has(name));
  const answers = Object.entries(operation.responses).filter(([status]) => !shared.statuses.has(status));
  return made(
    "section",
    {},
    made("h3", { className: "route", id: operation.operationId }, verb, " ", ...breakable(path)),
    made("p", {}, `${operation.summary} ${operation.description ?? ""}`),
    ...example(path, method, operation),
    ...table(PARAMETERS, parameters.map(parameterRow)),
    ...table(["Request field", "Type", ""], fields(jsonOf(operation.requestBody)?.schema)),
    ...table(ANSWERS, answers.map((answer) => answerRow(answer, shared))),
    ...table(["Answer field", "Type", ""], fields(jsonOf(operation.responses["200"])?.schema)),
  );
}

// What every route has is told once.
function sharedBy(routes) {
  const common = (namesOf) =>
    new Set(routes.map(({ operation }) => new Set(namesOf(operation))).reduce((left, right) =>
      new Set([...left].filter((name) => right.has(name))),
    ));
  return {
    parameters: common((operation) => parametersOf(operation).map(({ name }) => name)),
    statuses: common((operation) => Object.keys(operation.responses)),
    headers: common((operation) => Object.values(operation.responses).flatMap(({ headers }) => Object.keys(headers))),
  };
}

function preface([{ operation }], shared) {
  const parameters = parametersOf(operation).filter(({ name }) => shared.parameters.has(name));
  const answers = Object.entries(operation.responses).filter(([status]) => shared.statuses.has(status));
  const key = description.components.securitySchemes
    ? [made("p", {}, "This server needs an API key. The examples take it from the shell's variable ", code("KEY"), ".")]
    : [];
  return [
    made("p", {}, description.info.description),
    ...key,
    made("h2", {}, "Every route"),
    ...table(PARAMETERS, parameters.map(parameterRow)),
    ...table(ANSWERS, answers.map((answer) => answerRow(answer, { headers: new Set() }))),
  ];
}

function link({ path, method, operation }) {
  const verb = made("span", { className: "method" }, method.toUpperCase());
  return made("a", { href: `#${operation.operationId}` }, verb, made("span", {}, ...breakable(path)));
}

async function start() {
  description = await (await fetch("/openapi.json")).json();
  if (!description.paths["/v1/models"].get.security) {
    const { models } = await (await fetch("/v1/models")).json();
    model = models.find(({ name }) => name === model.name) ?? models[0] ?? model;
  }
  const routes = Object.entries(description.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({ path, method, operation })),
  );
  const shared = sharedBy(routes);
  const rooms = description.tags.map(({ name }) => [
    name,
    routes.filter(({ operation }) => operation.tags.includes(name)),
  ]);
  document.getElementById("routes").replaceChildren(
    ...preface(routes, shared),
    ...rooms.flatMap(([name, all]) => [made("h2", {}, name), ...all.map((route) => section(route, shared))]),
  );
  const contents = document.getElementById("contents");
  contents.append(...rooms.flatMap(([name, all]) => [made("p", {}, name), ...all.map(link)]));
  contents.open = matchMedia("(min-width: 64rem)").matches;
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

start().catch((error) => {
  document.getElementById("routes").replaceChildren(made("p", {}, `openapi.json can't be read: ${error}`));
});
