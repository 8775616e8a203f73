/* ---- what the pages show ---- */

const EVALUATIONS = DATA.runs.flatMap((run) => Object.entries(run.evals).map(([code, result]) => ({
  run, code, result, name: run.name, model: run.model, train: langs(run.train), eval: lang(code), texts: result.texts,
  kind: trainedOn(run, code) ? "in-language" : "zero-shot",
  ...Object.fromEntries(METRICS.map((metric, i) => [metric, result.values[i]])),
})));
const METRIC_COLUMNS = METRICS.map((key) => ({ key, label: TITLES[key], number: true, show: (row) => fixed(row[key]) }));

const runLink = (run, code = null, text = null) => el("a", { href: `#model/${encodeURIComponent(run.name)}${code ? `/${encodeURIComponent(code)}` : ""}` }, text ?? run.name);
const score = (row) => `${fixed(row.result.values[place()])} ${interval(row.result.intervals[place()])}${isRare(row.result) ? RARE_MARK : ""}`;
const rareCaption = () => (EVALUATIONS.some((row) => isRare(row.result)) ? ` ${RARE_MARK} some registers have under 10 texts: the interval is too narrow.` : "");
const warningsOf = (rows) => rows.filter((row) => row.result.warning).map((row) => el("p", { class: "warning" }, `${row.name}, ${row.eval}: ${row.result.warning}.`));
const valueOf = (row) => row.result.values[place()];
const best = (rows) => rows.reduce((top, row) => (top === null || valueOf(row) > valueOf(top) ? row : top), null);
const cellTip = (row) => `${row.model}, trained on ${row.train}, evaluated on ${row.eval}\n${TITLES[state.metric]} ${score(row)}\n${count(row.texts)} texts, ${row.kind}`;

function overview() {
  const title = TITLES[state.metric];
  const averages = DATA.runs.map((run) => {
    const own = EVALUATIONS.filter((row) => row.run === run);
    const part = (kind) => own.filter((row) => row.kind === kind);
    return {
      run, name: run.name, model: run.model, train: langs(run.train), evaluated: own.length,
      inside: mean(part("in-language").map(valueOf)), zero: mean(part("zero-shot").map(valueOf)), all: mean(own.map(valueOf)),
    };
  });
  const codes = [...new Set(EVALUATIONS.map((row) => row.code))];
  const byLanguage = codes.map((code) => {
    const rows = EVALUATIONS.filter((row) => row.code === code);
    const [inside, zero] = ["in-language", "zero-shot"].map((kind) => best(rows.filter((row) => row.kind === kind)));
    const top = best(rows);
    const named = (row) => (row ? { row, value: valueOf(row) } : { row: null, value: null });
    return { eval: lang(code), texts: top.texts, top: valueOf(top), topRow: top, inside: named(inside).value, insideRow: inside, zero: named(zero).value, zeroRow: zero };
  });
  const linked = (key) => (row) => (row[key] ? el("span", {}, runLink(row[key].run, row[key].code), ` ${score(row[key])}`) : "–");
  const number = (key, label) => ({ key, label, number: true, show: (row) => fixed(row[key]) });
  return [
    el("h2", {}, "Best model per language"),
    table("best", `${title} with its 95 % interval.${rareCaption()} In-language: the model was trained on that language, alone or with others.`, [
      { key: "eval", label: "evaluated on" },
      { key: "texts", label: "texts", number: true, show: (row) => count(row.texts) },
      { key: "top", label: "best model", show: linked("topRow") },
      { key: "inside", label: "best in-language", show: linked("insideRow") },
      { key: "zero", label: "best zero-shot", show: linked("zeroRow") },
    ], byLanguage, "eval", false),
    el("h2", {}, "In-language and zero-shot averages"),
    table("averages", `Mean ${title} over the languages that a model was evaluated on.`, [
      { key: "name", label: "model", show: (row) => runLink(row.run) },
      { key: "train", label: "trained on" },
      { key: "evaluated", label: "languages", number: true },
      number("inside", "in-language"), number("zero", "zero-shot"), number("all", "all"),
    ], averages, "all"),
  ];
}

function matrices() {
  const runs = DATA.runs.filter((run) => run.model === state.model);
  const shared = (code) => runs.some((run) => run.train === code);
  const codes = [...new Set(runs.flatMap((run) => Object.keys(run.evals)))].sort();
  const columns = [...codes.filter(shared), ...codes.filter((code) => !shared(code))];
  const rank = (run) => [columns.indexOf(run.train) < 0, run.train.split("-").length, run.train];
  const rows = [...runs].sort((a, b) => Number(rank(a)[0]) - Number(rank(b)[0]) || rank(a)[1] - rank(b)[1] || a.train.localeCompare(b.train));
  const cells = rows.map((run) => columns.map((code) => {
    const row = EVALUATIONS.find((one) => one.run === run && one.code === code);
    if (!row) return null;
    const value = valueOf(row);
    return { share: value, text: value.toFixed(2), tip: cellTip(row), trained: row.kind === "in-language", open: () => { location.hash = runLink(run, code).getAttribute("href"); } };
  }));
  return [
    el("h2", {}, "Trained on (rows) against evaluated on (columns)"),
    el("div", { class: "controls" }, select("matrix-model", "Model", MODELS.map((model) => [model, model]), state.model, (model) => { state.model = model; draw("matrix-model"); })),
    heatMap("matrix", `${state.model}: ${TITLES[state.metric]}. Frames: the model was trained on that language. Arrow keys move, Enter opens the model.`, rows.map((run) => langs(run.train)), columns.map(lang), cells),
  ];
}

function everything() {
  return [
    el("h2", {}, "All evaluations"),
    ...warningsOf(EVALUATIONS),
    table("evaluations", "Click a heading to sort. The filter wants all its words.", [
      { key: "name", label: "model", show: (row) => runLink(row.run, row.code) },
      { key: "train", label: "trained on" },
      { key: "eval", label: "evaluated on" },
      { key: "kind", label: "kind" },
      { key: "texts", label: "texts", number: true, show: (row) => count(row.texts) },
      ...METRIC_COLUMNS,
    ], EVALUATIONS, state.metric),
  ];
}

function modelPage() {
  const run = RUNS.get(state.run);
  const codes = Object.keys(run.evals);
  const code = codes.includes(state.lang) ? state.lang : codes[0];
  const result = run.evals[code];
  const row = EVALUATIONS.find((one) => one.run === run && one.code === code);
  const go = (name, to) => { location.hash = runLink(RUNS.get(name), to).getAttribute("href"); };
  const scores = result.registers.map((register, i) => {
    const [precision, recall, f1, support] = result.scores[i];
    // A register that is neither true nor predicted has no scores.
    if (!support && !result.matrix.some((line) => line[i])) return { register, name: DATA.registers[register], precision: null, recall: null, f1: null, support };
    return { register, name: DATA.registers[register], precision, recall, f1, support };
  });
  const numbers = ["precision", "recall", "f1"].map((key) => ({ key, label: key === "f1" ? "F1" : key, number: true, show: (one) => fixed(one[key]) }));
  return [
    el("h2", {}, `${run.model} trained on ${langs(run.train)}`),
    el("div", { class: "controls" },
      select("run", "Model", DATA.runs.map((one) => [one.name, one.name]), run.name, (name) => go(name, state.lang)),
      select("lang", "Evaluated on", codes.map((one) => [one, lang(one)]), code, (to) => go(run.name, to))),
    el("p", {}, `${lang(code)}: ${count(row.texts)} texts, ${row.kind}; ` + METRICS.map((metric, i) => `${TITLES[metric]} ${fixed(result.values[i])} ${interval(result.intervals[i])}`).join(", ")),
    ...(isRare(result) ? [el("p", { class: "note" }, rareNote(result))] : []),
    ...(run.warning ? [el("p", { class: "warning" }, `${run.warning}.`)] : []),
    ...warningsOf([row]),
    el("h3", {}, "Confusion matrix"),
    result.hybrids ? labelSets(result) : confusion(result),
    el("h3", {}, "Scores per register"),
    hierarchy(result, scores, (shown) => table("scores", "Support: number of texts.", [{ key: "register", label: "register" }, { key: "name", label: "name" }, ...numbers, { key: "support", label: "support", number: true, show: (one) => count(one.support) }], shown)),
    ...(result.reliability ? [el("h3", {}, "Calibration"), el("p", {}, `Expected calibration error ${fixed(result.reliability.expected_calibration_error)} (a perfectly calibrated model would have ${fixed(result.reliability.error_if_calibrated)} on so many texts, in 19 of 20 cases at most ${fixed(result.reliability.error_if_calibrated_95)}); mean confidence ${fixed(result.reliability.mean_confidence)}.`), reliability(result.reliability), ...calibrationOfLabels(result.reliability)] : []),
    ...(result.examples ? [el("h3", {}, "Misclassified texts"), table("examples", "The mistakes that the model was surest of.", [
      { key: "index", label: "row", number: true }, { key: "true", label: "true" }, { key: "predicted", label: "predicted" },
      { key: "confidence", label: "confidence", number: true, show: (one) => fixed(one.confidence) }, { key: "text", label: "text", text: true },
    ], result.examples)] : []),
    el("h3", {}, "Training"),
    el("div", { class: "two" }, el("div", {}, learningCurves(run)), details(run)),
  ];
}

function confusion(result) {
  const totals = result.matrix.map((line) => line.reduce((a, b) => a + b, 0));
  const cells = result.matrix.map((line, r) => line.map((number, c) => (totals[r] ? {
    share: number / totals[r], text: String(number), trained: r === c,
    tip: `true ${DATA.registers[result.registers[r]]}, predicted ${DATA.registers[result.registers[c]]}\n${count(number)} of ${count(totals[r])} texts (${(100 * number / totals[r]).toFixed(1)} %)`,
  } : null)));
  return heatMap("confusion", "Rows: true; columns: predicted; color: share of the row's texts. Hatched: no texts.",
    result.registers.map((register, r) => `${register} (${totals[r]})`), result.registers, cells);
}

// Of texts with any number of labels: a row per label that texts have, and per combination of registers.
function labelSets(result) {
  const support = result.scores.map((line) => line[3]);
  const name = (register) => DATA.registers[register];
  const below = belowOf(result);
  const draw = (opened) => {
    const visible = (register) => !below.has(register) || below.get(register).some((above) => opened.has(above));
    const columns = result.registers.map((register, c) => c).filter((c) => visible(result.registers[c]) && (support[c] || result.matrix.some((line) => line[c])));
    const labels = result.registers.map((register, r) => ({ label: register, names: name(register), texts: support[r], predicted: result.matrix[r], complete: result.matrix[r][r], own: [register] }))
      .filter((row) => row.texts && visible(row.label));
    const hybrids = result.hybrids.map((row) => ({ label: row.registers.join("+"), names: row.registers.map(name).join(" + "), texts: row.texts, predicted: row.predicted, complete: row.complete, own: row.registers }));
    const rows = [...labels, ...hybrids];
    const cells = rows.map((row) => [
      ...columns.map((c) => ({
        share: row.predicted[c] / row.texts, text: row.predicted[c] ? (100 * row.predicted[c] / row.texts).toFixed(0) : "", trained: row.own.includes(result.registers[c]),
        tip: `true ${row.names}, got ${name(result.registers[c])}\n${count(row.predicted[c])} of ${count(row.texts)} texts (${(100 * row.predicted[c] / row.texts).toFixed(1)} %)`,
      })),
      {
        share: 1 - row.complete / row.texts, text: (100 * (1 - row.complete / row.texts)).toFixed(0),
        tip: `true ${row.names}, missed\n${count(row.texts - row.complete)} of ${count(row.texts)} texts (${(100 * (1 - row.complete / row.texts)).toFixed(1)} %)`,
      },
    ]);
    return heatMap("confusion", "Rows: the labels that texts have, and combinations of registers that ten texts have; columns: the labels that they got, in % of the row's texts. A text with several labels is in several rows. Last column: texts that did not get the row's labels.",
      rows.map((row) => `${row.label} (${row.texts})`), [...columns.map((c) => result.registers[c]), "missed"], cells);
  };
  return opening(result, draw);
}

// The registers that each subregister stands under.
function belowOf(result) {
  const below = new Map();
  for (const [register, labels] of Object.entries(result.subregisters ?? {})) for (const label of labels) below.set(label, [...(below.get(label) ?? []), register]);
  return below;
}

// What `draw` makes of the registers that are open, with a button for each that has subregisters.
function opening(result, draw) {
  const registers = result.registers.filter((register) => (result.subregisters ?? {})[register]);
  const opened = new Set();
  const box = el("div", {}, draw(opened));
  if (!registers.length) return box;
  const buttons = registers.map((register) => {
    const button = el("button", { type: "button", class: "open", "data-register": register, "aria-expanded": "false", title: DATA.registers[register], onclick: () => toggle(register, !opened.has(register)) }, register);
    return button;
  });
  function toggle(register, open) {
    if (open) opened.add(register);
    else opened.delete(register);
    buttons.find((button) => button.dataset.register === register).setAttribute("aria-expanded", String(open));
    box.replaceChildren(draw(opened));
  }
  const all = el("button", { type: "button", onclick: () => { const open = opened.size < registers.length; for (const register of registers) toggle(register, open); } }, "all");
  return el("div", {}, el("div", { class: "controls" }, el("span", {}, "Subregisters of "), ...buttons, all), box);
}

function hierarchy(result, scores, draw) {
  const below = belowOf(result);
  return opening(result, (opened) => draw(scores.filter((row) => !below.has(row.register) || below.get(row.register).some((above) => opened.has(above)))));
}

function details(run) {
  const list = el("dl");
  const shown = (value) => (typeof value === "number" ? (Number.isInteger(value) ? count(value) : String(Number(value.toPrecision(4)))) : String(value));
  for (const [label, value] of run.details) list.append(el("dt", {}, label), el("dd", {}, label === "seed" ? String(value) : shown(value)));
  const counts = Object.entries(run.counts).map(([register, [train, validation]]) => `${register} ${count(train)} + ${count(validation)}`);
  if (counts.length) list.append(el("dt", {}, "texts (training + validation)"), el("dd", {}, counts.join(", ")));
  return list;
}

/* ---- drawings ---- */

function plot(label, width, height, domain, lines, axisLabel) {
  const [left, bottom, top, right] = [42, 34, 12, 10];
  const [x0, x1, y0, y1] = domain;
  const x = (value) => left + (width - left - right) * (x1 > x0 ? (value - x0) / (x1 - x0) : 0.5);
  const y = (value) => height - bottom - (height - bottom - top) * (y1 > y0 ? (value - y0) / (y1 - y0) : 0.5);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  for (const at of [0, 0.5, 1]) {
    const value = y0 + at * (y1 - y0);
    node.append(svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: "#ddd" }));
    const tick = svg("text", { x: left - 5, y: y(value) + 4, "text-anchor": "end" });
    tick.textContent = String(Number(value.toPrecision(3)));
    node.append(tick);
  }
  for (const value of new Set([x0, x1])) {
    const tick = svg("text", { x: x(value), y: height - bottom + 14, "text-anchor": "middle" });
    tick.textContent = String(Number(value.toPrecision(3)));
    node.append(tick);
  }
  const name = svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" });
  name.textContent = axisLabel;
  node.append(name);
  lines.forEach(({ points, color, dash, title }, index) => {
    const path = points.map(([px, py]) => `${x(px)},${y(py)}`).join(" ");
    node.append(svg("polyline", { points: path, fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dash || "none" }));
    if (!dash) for (const [px, py] of points) node.append(svg("circle", { cx: x(px), cy: y(py), r: 2.8, fill: color }));
    if (title) {
      const text = svg("text", { x: left + 8, y: top + 10 + 14 * index, fill: color, style: `fill: ${color}` });
      text.textContent = title;
      node.append(text);
    }
  });
  return node;
}

function learningCurves(run) {
  if (!run.epochs.length) return el("p", { class: "note" }, "train.json is missing: no learning curves.");
  const series = (key) => run.epochs.filter((epoch) => typeof epoch[key] === "number").map((epoch) => [epoch.epoch, epoch[key]]);
  const panels = [
    ["loss", [["loss", "#0072b2", "training loss"], ["validation_loss", "#d55e00", "validation loss"]]],
    ["validation score", [["validation_accuracy", "#d55e00", "accuracy"], ["validation_micro_f1", "#d55e00", "micro F1"], ["validation_macro_f1", "#009e73", "macro F1"]]],
  ];
  return el("div", {}, ...panels.map(([name, wanted]) => {
    const lines = wanted.map(([key, color, title]) => ({ points: series(key), color, title })).filter((line) => line.points.length);
    const all = lines.flatMap((line) => line.points);
    if (!all.length) return el("span");
    const [xs, ys] = [all.map((point) => point[0]), all.map((point) => point[1])];
    // Room above the lines for their names.
    const top = Math.max(...ys) + 0.35 * (Math.max(...ys) - Math.min(...ys) || 0.1);
    return plot(`${name} by epoch`, 380, 190, [Math.min(...xs), Math.max(...xs), Math.min(...ys), top], lines, `${name} by epoch`);
  }));
}

function reliability(result) {
  const points = result.bins.map((bin) => [bin.confidence, bin.accuracy]);
  const what = result.labels ? "share of texts with a label, by its probability" : "accuracy by confidence";
  return plot(what, 300, 260, [0, 1, 0, 1], [
    { points: [[0, 0], [1, 1]], color: "#999", dash: "4 4" }, { points, color: "#d55e00" },
  ], what);
}

function calibrationOfLabels(result) {
  const rows = Object.entries(result.labels ?? {}).map(([register, own]) => ({ register, error: own.expected_calibration_error, calibrated: own.error_if_calibrated, confidence: own.mean_confidence, share: own.accuracy }));
  const number = (key, label) => ({ key, label, number: true, show: (row) => fixed(row[key]) });
  return rows.length ? [table("calibration", "Of each label by itself.", [{ key: "register", label: "register" }, number("error", "expected calibration error"), number("calibrated", "of a calibrated model"), number("confidence", "mean probability"), number("share", "texts that have it")], rows)] : [];
}

/* ---- statistics ---- */

function comparisons() {
  const p = (key) => ({ key, number: true, show: (row) => (row[key] === null ? "–" : row[key] < 0.001 ? "< 0.001" : fixed(row[key])) });
  const rows = DATA.comparisons.filter((row) => row.metric === state.metric).map((row) => ({ ...row, eval: lang(row.eval_lang) }));
  return [
    el("h2", {}, "Comparisons on the same texts"),
    table("tests", `${TITLES[state.metric]}, second minus first, with its 95 % interval (paired bootstrap); p-values after Holm's correction. To cite: approximate randomization for F1, McNemar's test for accuracy; the bootstrap for the interval. Bootstrap and randomization may differ: the one asks how the difference varies over other texts, the other how often exchanging the two models' predictions makes one as large. Could show: the smallest difference that so many texts show at 5 % with a power of 80 %.`, [
      { key: "first", label: "first" }, { key: "second", label: "second" }, { key: "eval", label: "evaluated on" },
      { key: "num_texts", label: "texts", number: true, show: (row) => count(row.num_texts) },
      { key: "first_value", label: "first", number: true, show: (row) => fixed(row.first_value) },
      { key: "second_value", label: "second", number: true, show: (row) => fixed(row.second_value) },
      { key: "difference", label: "difference", number: true, show: (row) => `${fixed(row.difference)} ${interval([row.low, row.high])}` },
      { key: "detectable", label: "could show", number: true, show: (row) => fixed(row.detectable) },
      { ...p("p_bootstrap_holm"), label: "p, bootstrap" }, { ...p("p_randomisation_holm"), label: "p, randomization" }, { ...p("p_mcnemar_holm"), label: "p, McNemar" },
    ], rows),
  ];
}

function seeds() {
  const rows = DATA.seeds.filter((row) => row.metric === state.metric).map((row) => ({ ...row, train: langs(row.train_langs), eval: lang(row.eval_lang) }));
  const number = (key) => ({ key, label: key, number: true, show: (row) => fixed(row[key]) });
  return [
    el("h2", {}, "Over seeds"),
    table("over-seeds", `${TITLES[state.metric]}: mean and sample standard deviation of runs that differ by their seed alone.`, [
      { key: "model", label: "model" }, { key: "variant", label: "variant" }, { key: "train", label: "trained on" }, { key: "eval", label: "evaluated on" },
      { key: "num_seeds", label: "seeds", number: true }, number("mean"), number("std"), number("min"), number("max"),
    ], rows, "mean"),
  ];
}

/* ---- moving between pages ---- */

const PAGES = { overview, matrices, table: everything, model: modelPage, comparisons, seeds };

function draw(focused = null) {
  hideTip();
  const [page, name, code] = location.hash.slice(1).split("/").map(decodeURIComponent);
  if (RUNS.has(name)) [state.run, state.lang] = [name, code ?? state.lang];
  const current = page in PAGES ? page : "overview";
  main.replaceChildren(...PAGES[current]());
  document.querySelectorAll("#pages a").forEach((link) => {
    if (link.getAttribute("href") === `#${current}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  if (focused) document.getElementById(focused)?.focus();
}

// The columns of summary.csv.
function tidyCsv() {
  const quoted = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const lines = ["model,train_langs,eval_lang,metric,value,low,high,rare_registers"];
  for (const row of EVALUATIONS) {
    METRICS.forEach((metric, i) => {
      const [low, high] = row.result.intervals[i] ?? ["", ""];
      lines.push([row.model, row.run.train, row.code, metric, row.result.values[i], low, high, Object.keys(row.result.rare ?? {}).length].map((value) => quoted(String(value))).join(","));
    });
  }
  return `${lines.join("\n")}\n`;
}

function download() {
  const link = el("a", { href: URL.createObjectURL(new Blob([tidyCsv()], { type: "text/csv" })), download: "summary.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}
