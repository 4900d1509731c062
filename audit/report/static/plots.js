"use strict";
// Charts, by Observable Plot; each has its numbers beside it or in a table as well.
(() => {
  const { data, el, word, percent, count, known, short, whenNear } = audit;

  /** A place where a chart is drawn when it comes near the window, as wide as the place is. */
  function chart(make, { label, least = 220, most = 720 }) {
    const box = el("div", { class: "plot", role: "img", "aria-label": label });
    const draw = () => {
      if (box.childElementCount) return;
      const width = Math.max(least, Math.min(most, box.clientWidth || most));
      const drawn = make(width);
      drawn.setAttribute("aria-hidden", "true");
      box.append(drawn);
    };
    whenNear(box, () => ready(draw));
    return box;
  }
  /** Plot stands at the page's end, so that the page shows before it is read. */
  function ready(draw) {
    if (typeof Plot === "undefined") document.addEventListener("DOMContentLoaded", draw, { once: true });
    else draw();
  }
  const share = (value) => percent(value);
  const base = { style: { background: "transparent", fontSize: "12px", fontFamily: "inherit", overflow: "visible" } };

  /** Effect of the background under each family of masks, with its interval. */
  function evidence(rows) {
    const shown = rows.filter((row) => known(row.effect)).map((row) => ({ ...row, title: family(row.family) }));
    if (!shown.length) return el("p", { class: "faint" }, word("nothing_tested"));
    const quarter = (round, ends) => round(4 * ends) / 4;
    const from = quarter(Math.floor, Math.min(0, ...shown.map((row) => row.low ?? row.effect)));
    const to = quarter(Math.ceil, Math.max(0.25, ...shown.map((row) => row.high ?? row.effect)));
    return chart(
      (width) =>
        Plot.plot({
          ...base, width, height: 66 + 32 * shown.length, marginLeft: 130, marginRight: 24, marginBottom: 42,
          x: { domain: [from, to], tickFormat: share, ticks: 5, label: word("axis_effect"), labelAnchor: "center", labelArrow: "none", labelOffset: 38, grid: true },
          y: { domain: shown.map((row) => row.title), label: null },
          marks: [
            Plot.ruleX([0], { stroke: "currentColor", strokeOpacity: 0.6 }),
            Plot.ruleY(shown.filter((row) => known(row.low)), { x1: "low", x2: "high", y: "title", stroke: "var(--mark)", strokeWidth: 3, strokeOpacity: 0.55 }),
            Plot.dot(shown, { x: "effect", y: "title", r: 5, fill: "var(--mark)" }),
          ],
        }),
      { label: shown.map((row) => word("evidence_alt", { family: row.title, effect: percent(row.effect), low: percent(row.low), high: percent(row.high) })).join(" ") },
    );
  }
  const family = (name) => (`family_${name}` in audit.words ? word(`family_${name}`) : name);

  /** How much of the heatmap lies on background, image by image. */
  function histogram(counts, mean) {
    const bins = (counts || []).map((n, i, all) => ({ n, from: i / all.length, to: (i + 1) / all.length }));
    const total = bins.reduce((sum, bin) => sum + bin.n, 0);
    if (!total) return el("p", { class: "faint" }, word("nothing_scored"));
    return chart(
      (width) =>
        Plot.plot({
          ...base, width, height: 210, marginLeft: 50, marginBottom: 42,
          x: { domain: [0, 1], tickFormat: share, ticks: 5, label: word("axis_share"), labelAnchor: "center", labelArrow: "none", labelOffset: 38 },
          y: { label: word("axis_images"), labelArrow: "none", ticks: 4, grid: true },
          marks: [
            Plot.rectY(bins, { x1: "from", x2: "to", y: "n", fill: "var(--mark)", fillOpacity: 0.75, insetLeft: 0.5, insetRight: 0.5 }),
            Plot.ruleY([0]),
            known(mean) ? Plot.ruleX([mean], { stroke: "var(--relies)", strokeWidth: 2 }) : null,
          ],
        }),
      { label: word("histogram_alt", { n: count(total), mean: percent(mean) }), most: 560 },
    );
  }

  /** Accuracy of the kinds of images of a class, with intervals. */
  function strata(rows) {
    const shown = rows.filter((row) => known(row.accuracy));
    return chart(
      (width) =>
        Plot.plot({
          ...base, width, height: 62 + 26 * shown.length, marginBottom: 42, marginLeft: Math.min(210, width * 0.42), marginRight: 24,
          x: { domain: [0, 1], tickFormat: share, ticks: 5, label: word("axis_accuracy"), labelAnchor: "center", labelArrow: "none", labelOffset: 38, grid: true },
          y: { domain: shown.map((row) => row.name), label: null, tickFormat: (text) => short(text, 30) },
          marks: [
            Plot.ruleY(shown.filter((row) => known(row.accuracy_low)), { x1: "accuracy_low", x2: "accuracy_high", y: "name", stroke: "var(--mark)", strokeWidth: 3, strokeOpacity: 0.55 }),
            Plot.dot(shown, { x: "accuracy", y: "name", r: 4.5, fill: "var(--mark)" }),
          ],
        }),
      { label: word("strata_alt") },
    );
  }

  /** What each background (row) turns each object (column) into it. */
  function matrix(root) {
    const found = data.transplant_matrix;
    if (!found || !found.labels || !found.labels.length) return;
    const { labels, cells } = found;
    const title = (label) => short((data.class_names || [])[label] ?? label, 18);
    const points = [];
    cells.forEach((row, i) => row.forEach((value, j) => points.push({ row: labels[i], column: labels[j], value })));
    const few = labels.length <= 14;
    const side = Math.max(20, Math.min(58, Math.floor(880 / labels.length)));
    const margin = 20 + 7 * Math.max(...labels.map((label) => Math.min(18, title(label).length)));
    const alt = word("matrix_alt", { family: family(found.family) });
    const make = () =>
      Plot.plot({
        ...base, width: margin + side * labels.length + 20, height: margin + 0.72 * side * labels.length + 30, marginLeft: margin, marginTop: margin, marginBottom: 10, marginRight: 20, padding: 0.04,
        x: { domain: labels, axis: "top", tickRotate: -60, tickFormat: title, label: null },
        y: { domain: labels, tickFormat: title, label: null },
        color: { type: "linear", domain: [0, 1], scheme: "Blues", unknown: "transparent" },
        marks: [
          Plot.cell(points.filter((point) => known(point.value)), { x: "column", y: "row", fill: "value", title: (point) => word("matrix_cell", { object: title(point.column), background: title(point.row), share: percent(point.value) }) }),
          few ? Plot.text(points.filter((point) => known(point.value)), { x: "column", y: "row", text: (point) => String(Math.round(100 * point.value)), fill: (point) => (point.value > 0.62 ? "white" : "#111"), fontSize: 11, pointerEvents: "none" }) : null,
        ],
      });
    const holder = el("div", { class: "plot", tabindex: "0", role: "region", "aria-label": alt });
    const draw = () => {
      if (holder.childElementCount) return;
      const drawn = make();
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", alt);
      drawn.style.maxWidth = "none";
      holder.append(drawn);
    };
    whenNear(holder, () => ready(draw));
    root.append(holder);
    const fallback = el("details", { class: "screen" }, el("summary", {}, word("matrix_table")));
    fallback.addEventListener("toggle", () => {
      if (fallback.childElementCount > 1) return;
      const table = el("table", { class: "pinned" },
        el("caption", { class: "hidden-text" }, alt),
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, word("matrix_corner")), labels.map((label) => el("th", { scope: "col" }, audit.samples.name(label))))),
        el("tbody", {}, labels.map((label, i) => el("tr", {}, el("th", { scope: "row" }, audit.samples.name(label)), cells[i].map((value) => el("td", {}, percent(value)))))));
      fallback.append(el("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": alt }, table));
    });
    root.append(fallback);
  }

  audit.plots = { evidence, histogram, strata, matrix, family };
})();
