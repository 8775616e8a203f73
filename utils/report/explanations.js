/* ---- what explain.py has found ---- */

const explained = { run: Object.keys(DATA.explanations)[0], lang: null };
// Orange speaks for the label, blue against it.
const FOR = [230, 97, 1];
const AGAINST = [43, 108, 176];

function explanations() {
  const runs = Object.keys(DATA.explanations);
  const codes = Object.keys(DATA.explanations[explained.run]);
  const code = codes.includes(explained.lang) ? explained.lang : codes[0];
  const found = DATA.explanations[explained.run][code];
  const test = found.faithfulness;
  const go = (change) => { Object.assign(explained, change); draw(); };
  return [
    el("h2", {}, "What predictions are made of"),
    el("div", { class: "controls" },
      select("explained-run", "Model", runs.map((name) => [name, name]), explained.run, (run) => go({ run })),
      select("explained-lang", "Language", codes.map((one) => [one, lang(one)]), code, (to) => go({ lang: to }))),
    el("p", {}, `${found.method.replace("_", " ")}, ${count(found.num_texts)} test texts.`),
    el("p", { class: test.faithful ? null : "warning" }, `${test.faithful ? "Faithful" : "Not faithful, do not interpret"}: deleting the highest 10 % of the words lowers the probability of the predicted label by ${fixed(test.comprehensiveness)}, deleting random ones by ${fixed(test.random_comprehensiveness)} (difference ${interval(test.interval)}). With these words alone it is ${fixed(test.sufficiency)} lower, with random ones ${fixed(test.random_sufficiency)}.`),
    el("h3", {}, "Keywords"),
    ...(found.keywords.length ? [table("keywords", `Words with the highest mean scores in texts of a register that were classified rightly. Stability: share of ${found.keywords[0].num_runs === 1 ? "the one model" : `${found.keywords[0].num_runs} models of other seeds`} that has them among its highest.`, [
      { key: "register", label: "register" }, { key: "word", label: "word" },
      { key: "score", label: "score", number: true, show: (row) => fixed(row.score) },
      { key: "document_frequency", label: "texts with it", number: true, show: (row) => `${row.document_frequency} of ${row.num_texts}` },
      { key: "stability", label: "stability", number: true, show: (row) => fixed(row.stability, 2) },
      { key: "example", label: "example", text: true },
    ], found.keywords)] : [el("p", { class: "note" }, "None: too few texts were classified rightly.")]),
    ...(found.texts ? [el("h3", {}, "Texts"), el("p", { class: "note" }, "Orange speaks for the predicted label, blue against it; those that are classified wrongly come first."), ...found.texts.map(coloredText)] : []),
  ];
}

function coloredText(text) {
  const most = Math.max(...text.words.map((word) => Math.abs(word[2])), 1e-9);
  const wrong = !text.true.split(" ").includes(text.predicted);
  const parts = text.words.flatMap(([gap, word, score]) => {
    const strength = Math.abs(score) / most;
    const color = (score > 0 ? FOR : AGAINST).join(",");
    // Words of no account stay as they are.
    const node = el("span", { style: strength < 0.05 ? null : `background:rgba(${color},${(0.75 * strength).toFixed(2)})` }, word);
    node.dataset.tip = `${score > 0 ? "+" : ""}${score}`;
    return [gap, node];
  });
  return el("div", { class: "explained", dir: "auto" },
    el("p", { class: wrong ? "warning" : "note" }, `Row ${text.row}: ${text.true || "no label"}, predicted ${text.predicted} (${fixed(text.probability, 2)})`),
    el("p", { class: "words" }, ...parts));
}

PAGES.explanations = explanations;
