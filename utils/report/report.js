"use strict";
// Everything is drawn from the JSON in the page; texts go in as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const METRICS = DATA.metrics;
const TITLES = Object.fromEntries(METRICS.map((m) => [m, m.replace("_f1", " F1").replace("_present", " (registers with texts)").replace("_", " ")]));
const RUNS = new Map(DATA.runs.map((run) => [run.name, run]));
const MODELS = [...new Set(DATA.runs.map((run) => run.model))];
const state = { metric: METRICS.includes("macro_f1") ? "macro_f1" : METRICS[0], model: MODELS[0], run: DATA.runs[0].name, lang: null };
const main = document.getElementById("main");
const tip = document.getElementById("tip");

/* ---- small helpers ---- */

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const lang = (code) => DATA.langs[code] || code;
const named = (codes) => codes.split("-").length < 3 && codes.split("-").every((code) => lang(code) !== code);
const langs = (codes) => (named(codes) ? codes.split("-").map(lang).join(" + ") : codes);
const fixed = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const count = (value) => value.toLocaleString("en");
const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
const trainedOn = (run, code) => run.train.split("-").includes(code);
const place = () => METRICS.indexOf(state.metric);
const interval = (pair) => (pair ? `[${fixed(pair[0])}, ${fixed(pair[1])}]` : "no interval");
// Intervals of averages over registers some of which have few texts.
const RARE_MARK = "†";
const isRare = (result) => Object.keys(result.rare ?? {}).length > 0;
const rareNote = (result) => `${RARE_MARK} The 95 % intervals of averages over registers are too narrow (they cover 85 to 90 %): under 10 texts of ${Object.entries(result.rare).map(([name, number]) => `${name} (${number})`).join(", ")}.`;

function select(id, label, options, value, change) {
  const box = el("select", { id, onchange: (event) => change(event.target.value) });
  for (const [key, text] of options) box.append(el("option", { value: key }, text));
  box.value = value;
  return el("label", {}, `${label} `, box);
}

// From white to dark violet, as the figures' "Purples"; the text is white on the darker ones.
const PURPLES = [[252, 251, 253], [218, 218, 235], [158, 154, 200], [106, 81, 163], [63, 0, 125]];
function paint(cell, share) {
  const at = Math.min(Math.max(share, 0), 1) * (PURPLES.length - 1);
  const low = Math.min(Math.floor(at), PURPLES.length - 2);
  const mixed = PURPLES[low].map((value, i) => Math.round(value + (PURPLES[low + 1][i] - value) * (at - low)));
  cell.style.background = `rgb(${mixed.join(",")})`;
  cell.style.color = share > 0.6 ? "#fff" : "#1f1a2b";
}

/* ---- tables that sort and filter ---- */

// columns: {key, label, number, show}; rows: objects; cells may be nodes through `show`.
function table(id, caption, columns, rows, sorted = null, descending = true) {
  const body = el("tbody");
  const headers = columns.map((column) => {
    const button = el("button", { type: "button", onclick: () => sort(column) }, column.label);
    return el("th", { scope: "col", class: column.number ? "number" : null, "data-key": column.key }, button);
  });
  let order = { key: sorted, descending };
  let wanted = "";
  const shown = (column, row) => (column.show ? column.show(row) : row[column.key]);
  const words = new Map();
  function wordsOf(row) {
    if (!words.has(row)) {
      const text = columns.map((column) => {
        const value = shown(column, row);
        return value instanceof Node ? value.textContent : String(value ?? "");
      });
      words.set(row, text.join(" ").toLowerCase());
    }
    return words.get(row);
  }
  function sort(column) {
    const again = order.key === column.key;
    order = { key: column.key, descending: again ? !order.descending : rows.some((row) => typeof row[column.key] === "number") };
    draw();
  }
  function draw() {
    const parts = wanted.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter((row) => parts.every((part) => wordsOf(row).includes(part)));
    if (order.key !== null) {
      const missing = (value) => value === null || value === undefined;
      kept.sort((one, other) => {
        const [a, b] = [one[order.key], other[order.key]];
        // What has no value is last, whatever the direction.
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        const compared = typeof a === "number" ? a - b : String(a).localeCompare(String(b));
        return order.descending ? -compared : compared;
      });
    }
    headers.forEach((header) => {
      if (header.dataset.key === order.key) header.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
      else header.removeAttribute("aria-sort");
    });
    body.replaceChildren(...kept.map((row) => el("tr", {}, ...columns.map((column) => {
      const value = shown(column, row);
      return el("td", { class: column.number ? "number" : column.text ? "text" : null, dir: column.text ? "auto" : null }, value instanceof Node ? value : String(value ?? "–"));
    }))));
    shownCount.textContent = kept.length === rows.length ? `${count(rows.length)} rows` : `${count(kept.length)} of ${count(rows.length)} rows`;
  }
  const shownCount = el("span", { class: "note", role: "status" });
  const filter = el("input", { type: "search", id: `${id}-filter`, placeholder: "for instance: xlmr french", oninput: (event) => { wanted = event.target.value; draw(); } });
  const controls = rows.length > 8 ? el("div", { class: "controls filter" }, el("label", {}, "Filter ", filter), shownCount) : null;
  draw();
  const drawn = el("table", { class: "list", id, "aria-label": caption }, el("thead", {}, el("tr", {}, ...headers)), body);
  return el("div", {}, controls, el("p", { class: "note" }, caption), el("div", { class: "scroll" }, drawn));
}

/* ---- heat maps with a tip for the pointer, the finger and the keyboard ---- */

// cells[row][column]: null or {share, text, tip, trained, open}
function heatMap(id, caption, rows, columns, cells) {
  const head = el("tr", {}, el("td"), ...columns.map((name) => el("th", { scope: "col" }, el("span", {}, name))));
  const body = rows.map((name, r) => el("tr", {}, el("th", { scope: "row" }, name), ...columns.map((_, c) => {
    const cell = cells[r][c];
    if (!cell) return el("td", { class: "none", "aria-label": "no value", title: "no value" });
    const node = el("td", { class: cell.trained ? "trained" : null, tabindex: "-1", "aria-label": cell.tip.replaceAll("\n", ", ") }, cell.text);
    paint(node, cell.share);
    node.dataset.tip = cell.tip;
    if (cell.open) {
      node.addEventListener("click", cell.open);
      node.addEventListener("keydown", (event) => { if (event.key === "Enter") cell.open(); });
    }
    return node;
  })));
  const grid = el("table", { class: "heat", id, "aria-label": caption }, el("thead", {}, head), el("tbody", {}, ...body));
  const first = grid.querySelector("td[data-tip]");
  if (first) first.tabIndex = 0;
  grid.addEventListener("keydown", moveFocus);
  return el("div", {}, el("p", { class: "note" }, caption), el("div", { class: "scroll" }, grid));
}

function moveFocus(event) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const cell = event.target.closest("td[data-tip]");
  if (!cell || !steps[event.key]) return;
  event.preventDefault();
  const rows = [...cell.closest("tbody").rows];
  let [r, c] = [rows.indexOf(cell.parentNode), cell.cellIndex];
  do {
    r += steps[event.key][0];
    c += steps[event.key][1];
  } while (rows[r]?.cells[c] && !rows[r].cells[c].dataset.tip);
  const next = rows[r]?.cells[c];
  if (!next || !next.dataset.tip) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

let tipCell = null;
function showTip(cell) {
  tipCell = cell;
  tip.textContent = cell.dataset.tip;
  tip.hidden = false;
  const [box, own] = [cell.getBoundingClientRect(), tip.getBoundingClientRect()];
  const above = box.top - own.height - 6;
  tip.style.top = `${above > 0 ? above : box.bottom + 6}px`;
  tip.style.left = `${Math.max(4, Math.min(box.left, window.innerWidth - own.width - 4))}px`;
}
function hideTip() {
  tipCell = null;
  tip.hidden = true;
}

for (const [show, hide] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  document.addEventListener(show, (event) => { const cell = event.target.closest?.("[data-tip]"); if (cell) showTip(cell); });
  document.addEventListener(hide, (event) => { if (event.target.closest?.("[data-tip]")) hideTip(); });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
document.addEventListener("scroll", () => { if (tipCell) showTip(tipCell); }, true);
