"use strict";
const SIDE = 512, SHOWN = 5, NEAREST = 3;
const $ = id => document.getElementById(id);
let learner = null, task = null, known = [], busy = false;

function make(tag, text = "", name = "") {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (name) made.className = name;
  return made;
}

async function ask(verb, path, body) {
  const headers = {}, token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {method: verb, headers, body: body ? JSON.stringify(body) : undefined});
  } catch { throw new Error("the server was not reached: check that it runs."); }
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => ({error: `the server answered ${answer.status}.`}));
  if (!answer.ok) throw Object.assign(new Error(said.error), {status: answer.status});
  return said;
}

function tell(text, wrong = false) {
  $("state").textContent = text;
  $("state").className = wrong ? "error" : "";
}

// One thing at a time, with its button put out meanwhile, and what goes wrong said where people look.
async function doing(text, work) {
  if (busy) return;
  busy = true;
  const buttons = [...document.querySelectorAll("button")].filter(b => !b.disabled);
  buttons.forEach(b => b.disabled = true);
  tell(text);
  try { await work(); } catch (error) { tell(sentence(error.message), true); }
  buttons.forEach(b => b.disabled = false);
  busy = false;
}

const sentence = text => text.charAt(0).toUpperCase() + text.slice(1);

// An untrained eye takes 100 % at its word.
const percent = p => p > .999 ? "> 99.9 %" : p < .001 ? "< 0.1 %" : `${(100 * p).toFixed(p > .99 || p < .01 ? 1 : 0)} %`;

const images = () => learner.rows === "images";

// Photographs are made smaller here: less to send, and the learner sees small images anyway.
async function image(file) {
  let bitmap;
  try { bitmap = await createImageBitmap(file, {imageOrientation: "from-image"}); }
  catch { throw new Error(`${file.name} is no image that this browser can read.`); }
  const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return {row: canvas.toDataURL("image/png"), name: file.name};
}

function shown(one, name = "") {
  if (!images()) return make("p", one.name, "quote");
  const made = make("img");
  made.src = one.row;
  made.alt = one.name;
  made.title = one.name;
  if (name) made.className = name;
  return made;
}

function dropping(area, input, take) {
  input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
  for (const event of ["dragenter", "dragover"])
    area.addEventListener(event, e => { e.preventDefault(); area.classList.add("over"); });
  for (const event of ["dragleave", "drop"]) area.addEventListener(event, () => area.classList.remove("over"));
  area.addEventListener("drop", e => { e.preventDefault(); take([...e.dataTransfer.files]); });
}

// Lines as rows: a text each, or cells with commas or tabs between them, under the names of the columns where the
// learner knows them by name.
function rows(text) {
  const lines = text.split(/\r?\n/).filter(line => line.trim());
  if (learner.rows === "texts") return lines.map(line => ({row: line.trim(), name: line.trim()}));
  const cut = lines.map(cells);
  if (learner.rows === "frame") {
    if (cut.length < 2) throw new Error("give a first line with the names of the columns, and a line for each row.");
    const [names, ...rest] = cut;
    return rest.map((row, i) => {
      if (row.length !== names.length) throw new Error(`line ${i + 2} has ${row.length} cells and the first one ${names.length}.`);
      return {row: Object.fromEntries(names.map((name, j) => [name, cell(row[j])])), name: lines[i + 1]};
    });
  }
  return cut.map((row, i) => ({row: shaped(row.map((c, j) => number(c, i, j)), learner.x_shape), name: lines[i]}));
}

function cells(line) {
  const tab = line.includes("\t"), out = [];
  let cell = "", quoted = false;
  for (let i = 0; i < line.length; i++) {
    const c = line[i];
    if (quoted && c === '"' && line[i + 1] === '"') { cell += c; i++; }
    else if (c === '"' && (quoted || !cell.trim())) quoted = !quoted;
    else if (!quoted && c === (tab ? "\t" : ",")) { out.push(cell.trim()); cell = ""; }
    else cell += c;
  }
  return [...out, cell.trim()];
}

const missing = text => ["", "na", "nan", "?"].includes(text.toLowerCase());
const cell = text => missing(text) ? null : text;

function number(text, i, j) {
  if (missing(text) && learner.rows === "cells") return null;
  const found = Number(text);
  if (missing(text) || !Number.isFinite(found)) throw new Error(`line ${i + 1}, cell ${j + 1}: ${text || "nothing"} is no number.`);
  return found;
}

function shaped(flat, shape) {
  if (learner.rows === "cells" || shape.length < 2) return flat;
  const size = shape.slice(1).reduce((a, b) => a * b, 1), out = [];
  for (let i = 0; i < shape[0]; i++) out.push(shaped(flat.slice(i * size, (i + 1) * size), shape.slice(1)));
  return out;
}

function addClass(name = "") {
  const card = make("div", "", "card"), label = make("label"), field = make("input");
  label.append(make("span", "name of the class"), field);
  field.type = "text";
  field.maxLength = 200;
  field.value = name;
  card.append(label);
  card.examples = [];
  if (images()) {
    const drop = make("label", "", "drop"), input = make("input"), thumbs = make("div", "", "thumbs");
    input.type = "file"; input.accept = "image/*"; input.multiple = true;
    drop.append(input, make("span", "Drop images here, or choose them"));
    dropping(drop, input, files => doing("", async () => {
      for (const one of await Promise.all(files.map(image))) { card.examples.push(one); thumbs.append(shown(one)); }
      tell("");
    }));
    card.append(drop, thumbs);
  } else {
    const area = make("textarea"), rowsLabel = make("label");
    area.spellcheck = false;
    rowsLabel.append(make("span", learner.rows === "texts" ? "an example in each line" : "a row in each line"), area);
    card.append(rowsLabel);
    card.text = area;
  }
  card.field = field;
  $("classes").append(card);
  return field;
}

function examples() {
  const found = [], names = [];
  if (learner.kind === "regression") return valued($("given").value);
  for (const card of $("classes").children) {
    const own = card.text ? rows(card.text.value) : card.examples;
    if (!own.length) continue;
    const name = card.field.value.trim();
    if (!name) { card.field.focus(); throw new Error("a class with examples has no name: give it one."); }
    for (const one of own) { found.push({...one, label: name}); names.push(name); }
  }
  if (new Set(names).size < 2) throw new Error("give examples of two classes or more, each with a name of its own.");
  return {found, y: {labels: names}};
}

function value(text, i) {
  const found = Number(text);
  if (text === "" || !Number.isFinite(found)) throw new Error(`line ${i + 1}: ${text || "nothing"} is no value.`);
  return found;
}

function valued(text) {
  const size = learner.y_size, values = [];
  const split = text.split(/\r?\n/).filter(line => line.trim()).map((line, i) => {
    const all = cells(line), head = learner.rows === "frame" && i === 0;
    const own = all.splice(-size);
    if (!head) values.push(own.map(v => value(v, i)));
    return all.map(c => `"${c.replaceAll('"', '""')}"`).join(",");
  });
  const found = rows(split.join("\n"));
  if (!found.length) throw new Error("give a row with its value in each line.");
  return {found: found.map((one, i) => ({...one, name: one.name.replaceAll('"', ""), label: values[i].join(", ")})), y: {values}};
}

const inverted = () => learner.invertible && $("invert").checked ? {invert: true} : {};

function teach() {
  doing("Learning.", async () => {
    const {found, y} = examples(), old = task;
    task = await ask("POST", "/tasks", {rows: found.map(one => one.row), ...y, ...inverted()});
    if (old) await ask("DELETE", `/tasks/${old.id}`).catch(() => null);
    sessionStorage.setItem("task", task.id);
    known = found;
    const of = task.classes.length ? ` of ${task.classes.length} classes` : "";
    tell(`Learnt from ${task.rows} examples${of}. Ask about new ones below; add examples and learn again at any time.`);
    $("asking").hidden = $("forget").hidden = false;
    $("answers").replaceChildren();
  });
}

function answer(found) {
  doing("Asking.", async () => {
    if (!found.length) throw new Error("there is nothing to ask about: give a row in each line.");
    const about = {rows: found.map(one => one.row), nearest: learner.describes ? 0 : NEAREST, ...inverted()};
    const said = await ask("POST", `/tasks/${task.id}/predict`, about);
    $("answers").prepend(...found.map((one, i) => told(one, said, i)));
    tell("");
  });
}

function told(one, said, i) {
  const card = make("div", "", "card"), both = make("div", "", "said");
  const left = make("div", "", images() ? "shown" : "words"), right = make("div");
  left.append(shown(one));
  if (said.labels) {
    right.append(make("h3", said.labels[i]));
    const odds = said.classes.map((name, j) => [name, said.probabilities[i][j]]).sort((a, b) => b[1] - a[1]);
    for (const [name, p] of odds.slice(0, SHOWN)) {
      const bar = make("div", "", "bar" + (name === said.labels[i] ? " best" : "")), meter = make("meter");
      meter.value = p;
      meter.title = name;
      meter.setAttribute("aria-label", name);
      bar.append(make("b", name), meter, make("i", percent(p)));
      right.append(bar);
    }
    if (odds.length > SHOWN) right.append(make("p", `and ${odds.length - SHOWN} more classes`, "soft"));
  } else {
    const sure = said.deviations ? said.deviations[i].map(v => ` ± ${v.toPrecision(3)}`) : said.values[i].map(() => "");
    right.append(make("h3", said.values[i].map((v, j) => v.toPrecision(5) + sure[j]).join(", ")));
  }
  both.append(left, right);
  card.append(both);
  const near = (said.nearest ? said.nearest[i] : []).map(k => known[k]).filter(Boolean);
  if (near.length) {
    card.append(make("p", "most like these examples:", "soft"));
    const list = make("div", "", images() ? "thumbs" : "");
    for (const like of near) {
      if (images()) { const small = shown(like); small.alt = small.title = `${like.label}: ${like.name}`; list.append(small); }
      else list.append(make("p", `${like.label}: ${like.name}`, "quote"));
    }
    card.append(list);
  }
  return card;
}

async function forget() {
  doing("", async () => {
    if (task) await ask("DELETE", `/tasks/${task.id}`).catch(error => { if (error.status !== 404) throw error; });
    sessionStorage.removeItem("task");
    task = null; known = [];
    $("classes").replaceChildren();
    $("answers").replaceChildren();
    $("given").value = $("new").value = "";
    $("asking").hidden = $("forget").hidden = true;
    begin();
    tell("The examples were deleted from the server.");
  });
}

function begin() {
  if (learner.kind !== "regression") { addClass(); addClass(); }
}

const HINTS = {
  texts: "Name two classes or more, and give a few texts of each.",
  images: "Name two classes or more, and give a few images of each.",
  arrays: "Numbers with commas or tabs between them, a row in each line.",
  cells: "Numbers with commas or tabs between them, a row in each line; nothing between two commas where one is missing.",
  frame: "Rows of a table, with the names of its columns in the first line; paste them from a spreadsheet.",
};

async function start() {
  try { learner = await ask("GET", "/card"); }
  catch (error) {
    const asks = error.status === 401;
    $("about").textContent = asks && !sessionStorage.getItem("token") ? "" : sentence(error.message);
    $("key").hidden = !asks;
    return;
  }
  $("key").hidden = true;
  $("work").hidden = false;
  const what = {texts: "texts", images: "images", arrays: "rows of numbers", cells: "rows of tables", frame: "rows of tables"};
  const does = learner.kind === "regression" ? "values to" : "labels to";
  $("about").textContent = `This learner (${learner.learner}) gives ${does} ${what[learner.rows]}, from a handful of examples.`;
  $("hint").textContent = HINTS[learner.rows] + (learner.columns.length ? ` Columns: ${learner.columns.join(", ")}.` : "");
  if (learner.describes) $("hint").textContent += " An example describes a class.";
  $("inverting").hidden = !learner.invertible;
  $("invert").checked = learner.inverted;
  $("values").hidden = $("more").hidden = learner.kind === "regression";
  $("values").hidden = learner.kind !== "regression";
  $("asked").textContent = `a row in each line, with its ${learner.y_size > 1 ? learner.y_size + " values" : "value"} at the end`;
  $("typing").textContent = learner.rows === "texts" ? "a text in each line" : "a row in each line";
  $("dropped").hidden = !images();
  $("typed").hidden = images();
  begin();
  const old = sessionStorage.getItem("task");  // of before a reload: its examples are not here any more
  if (old) { sessionStorage.removeItem("task"); ask("DELETE", `/tasks/${old}`).catch(() => null); }
}

$("key").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  start();
});
$("more").addEventListener("click", () => addClass().focus());
$("teach").addEventListener("click", teach);
$("forget").addEventListener("click", forget);
$("ask").addEventListener("click", () => {
  let found;
  try { found = rows($("new").value); } catch (error) { tell(sentence(error.message), true); return; }
  answer(found);
});
dropping($("dropped"), $("files"), async files => {
  try { answer(await Promise.all(files.map(image))); } catch (error) { tell(sentence(error.message), true); }
});
for (const event of ["dragover", "drop"]) document.addEventListener(event, e => e.preventDefault());
start();
