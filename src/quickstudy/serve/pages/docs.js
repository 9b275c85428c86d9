"use strict";
const $ = id => document.getElementById(id);
let all = {};

function make(tag, text = "", name = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (name) made.className = name;
  return made;
}

const whole = schema => schema && schema.$ref ? all.components.schemas[schema.$ref.split("/").pop()] : schema || {};

// What a schema takes, in words.
function said(schema) {
  schema = whole(schema);
  if (schema.anyOf) return schema.anyOf.map(said).join(" or ");
  if (schema.type === "array") {
    const most = schema.maxItems === schema.minItems && schema.maxItems ? `${schema.maxItems} ` : "";
    return `list of ${most}${said(schema.items)}` + (schema.description ? ` (${schema.description})` : "");
  }
  if (schema.type === "object" && schema.properties) return `object with ${Object.keys(schema.properties).join(", ")}`;
  const kind = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type || "anything";
  return kind + (schema.description ? ` (${schema.description})` : "");
}

function fields(schema) {
  const table = make("table"), known = whole(schema);
  for (const [name, one] of Object.entries(known.properties || {})) {
    const line = make("tr"), needed = (known.required || []).includes(name);
    const about = one.description && !said(one).includes(one.description) ? `: ${one.description}` : "";
    line.append(make("th", name + (needed ? "" : " (may be left out)")), make("td", said(one) + about));
    table.append(line);
  }
  return table;
}

const json = part => ((part || {}).content || {})["application/json"];

function entry(path, verb, about) {
  const card = make("section", "", "card");
  card.append(make("h2", `${verb.toUpperCase()} ${path}`), make("p", about.description || about.summary));
  const body = json(about.requestBody);
  if (body) card.append(make("h3", "Takes"), fields(body.schema));
  const answers = make("table");
  for (const [status, one] of Object.entries(about.responses)) {
    const line = make("tr");
    line.append(make("th", status), make("td", one.description));
    answers.append(line);
    if (status[0] === "2" && json(one)) card.append(make("h3", "Gives"), fields(json(one).schema));
  }
  card.append(make("h3", "Answers"), answers);
  return card;
}

async function start() {
  const token = sessionStorage.getItem("token");
  const answer = await fetch("/openapi.json", {headers: token ? {Authorization: `Bearer ${token}`} : {}}).catch(() => null);
  $("key").hidden = !answer || answer.status !== 401;
  if (!answer || !answer.ok) {
    $("about").textContent = !answer ? "The server was not reached." : answer.status === 401 && !token ? "" : (await answer.json()).error;
    return;
  }
  all = await answer.json();
  $("about").textContent = `${all.info.description} Errors are JSON: {"error": "one sentence"}.`;
  $("list").replaceChildren();
  for (const [path, verbs] of Object.entries(all.paths))
    for (const [verb, about] of Object.entries(verbs)) $("list").append(entry(path, verb, about));
}

$("key").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  start();
});
start();
