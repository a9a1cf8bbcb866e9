// Shows openapi.json in Swagger UI. Its examples ask for the model `digits`, which is conditional:
// here they ask for a model that is served.

/* global SwaggerUIBundle */

let model = { name: "digits", version: 1, labels: ["0"] };

// What an example has under a name, for the model that is served; undefined where it takes no labels.
function fitted(name, value) {
  if (name === "model") return model.name;
  if (name === "version") return typeof value === "string" ? String(model.version) : model.version;
  if (name === "d0" && !model.parts?.includes("directions")) return undefined;
  if (model.labels) return value;
  if (name === "label" || name === "labels") return undefined;
  return name === "inputs" ? value.filter((tensor) => tensor.name !== "LABEL") : value;
}

function fitOperation(operation) {
  for (const parameter of operation.parameters) {
    if ("example" in parameter) parameter.example = fitted(parameter.name, parameter.example);
  }
  for (const { examples = {} } of Object.values(operation.requestBody?.content ?? {})) {
    for (const example of Object.values(examples)) {
      example.value = JSON.parse(JSON.stringify(example.value, fitted));
    }
  }
}

async function start() {
  const spec = await (await fetch("openapi.json")).json();
  spec.servers = [{ url: new URL(".", location.href).pathname.replace(/\/$/, "") || "/" }];
  if (!spec.paths["/v1/models"].get.security) {
    const { models } = await (await fetch("v1/models")).json();
    model = models.find(({ name }) => name === model.name) ?? models[0] ?? model;
  }
  Object.values(spec.paths).flatMap(Object.values).forEach(fitOperation);
  window.ui = SwaggerUIBundle({
    spec,
    dom_id: "#swagger-ui",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    tryItOutEnabled: true,
    validatorUrl: null, // else it sends the document to swagger.io
  });
}

// Swagger UI has dark colours, and leaves the choice to the page.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

start().catch((error) => {
  document.getElementById("swagger-ui").textContent = `openapi.json can't be read: ${error}`;
});
