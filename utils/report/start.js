/* ---- the page begins ---- */

const metricBox = document.getElementById("metric");
for (const metric of METRICS) metricBox.append(el("option", { value: metric }, TITLES[metric]));
metricBox.value = state.metric;
metricBox.addEventListener("change", () => { state.metric = metricBox.value; draw(); });
document.getElementById("download").addEventListener("click", download);
document.getElementById("print").addEventListener("click", () => window.print());
document.getElementById("counts").textContent += `, ${count(EVALUATIONS.length)} evaluations on ${new Set(EVALUATIONS.map((row) => row.code)).size} languages`;
window.addEventListener("hashchange", () => draw(location.hash.startsWith("#model/") && document.activeElement?.id ? document.activeElement.id : null));
draw();
