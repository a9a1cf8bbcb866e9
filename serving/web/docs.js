// The API's description, from the server's own openapi.json: routes, fields, answers, curl lines.

const made = (tag, ...children) => {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
};
const row = (tag, ...cells) => made("tr", ...cells.map((cell) => made(tag, cell ?? "")));

let description;
const resolved = (schema) =>
  schema?.$ref ? resolved(schema.$ref.split("/").slice(1).reduce((at, name) => at[name], description)) : schema ?? {};

function typeOf(schema) {
  const at = resolved(schema);
  if (at.enum) return at.enum.filter((value) => value !== null).map((value) => JSON.stringify(value)).join(" | ");
  if (at.anyOf) return at.anyOf.map(typeOf).filter((name) => name !== "null").join(" or ");
  if (at.type === "array") return `list of ${typeOf(at.items)}`;
  const bounds = [at.minimum, at.maximum].some((bound) => bound !== undefined)
    ? ` ${at.minimum ?? ""} .. ${at.maximum ?? ""}`
    : "";
  return `${at.type ?? "anything"}${bounds}`;
}

function fields(schema) {
  const rows = Object.entries(resolved(schema).properties ?? {}).map(([name, field]) =>
    row("td", made("code", name), typeOf(field), resolved(field).description ?? field.description),
  );
  return made("table", made("thead", row("th", "Field", "Type", "")), made("tbody", ...rows));
}

function example(path, method, operation) {
  const content = operation.requestBody?.content["application/json"];
  const [first] = Object.values(content?.examples ?? {});
  const url = `${location.origin}${path}`;
  if (method === "get") return `curl -s '${url}'`;
  return `curl -s '${url}'${first ? ` -d '${JSON.stringify(first.value)}'` : " -X POST"} -o answer`;
}

function section(path, method, operation) {
  const title = made("h2");
  const verb = made("span", method.toUpperCase());
  verb.className = "method";
  title.append(verb, ` ${path}`);
  title.className = "route";
  title.id = operation.operationId;
  const parts = [title, made("p", operation.summary, " ", operation.description ?? "")];
  const parameters = (operation.parameters ?? []).map((entry) =>
    row("td", made("code", entry.name), `${typeOf(entry.schema)} (${entry.in})`, entry.description),
  );
  if (parameters.length) {
    parts.push(made("table", made("thead", row("th", "Parameter", "Type", "")), made("tbody", ...parameters)));
  }
  const content = operation.requestBody?.content["application/json"];
  if (content) parts.push(fields(content.schema));
  const answers = Object.entries(operation.responses).map(([status, entry]) =>
    row("td", status, entry.description, Object.keys(entry.content ?? {}).join(", ")),
  );
  parts.push(made("table", made("thead", row("th", "Status", "Answer", "Type")), made("tbody", ...answers)));
  parts.push(made("pre", example(path, method, operation)));
  return made("section", ...parts);
}

try {
  description = await (await fetch("/openapi.json")).json();
  const sections = Object.entries(description.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => section(path, method, operation)),
  );
  document.getElementById("routes").replaceChildren(made("p", description.info.description), ...sections);
} catch (error) {
  document.getElementById("routes").replaceChildren(made("p", `openapi.json can't be read: ${error}`));
}
