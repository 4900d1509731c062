"use strict";
// The page of a line of runs: one curve at a time, its band, and its numbers.
(() => {
  const { data, el, own, word, number, percent, known, short, whenNear } = audit;
  const FIELDS = { place: 0, value: 1, low: 2, high: 3, change: 4, changeLow: 5, changeHigh: 6, verdict: 7 };
  const field = (row, name) => row[FIELDS[name]];

  function curves(root) {
    root.replaceChildren();
    const select = el("select", { on: { change: () => show() } }, data.metrics.map((one) => el("option", { value: one.key }, one.name)));
    const scope = el(
      "select",
      { on: { change: () => show() } },
      el("option", { value: "-1" }, word("whole_split")),
      data.classes.map(([label, name]) => el("option", { value: label }, short(name))),
    );
    const meaning = el("p", { class: "small faint" });
    const holder = el("div");
    root.append(
      el("div", { class: "controls" }, el("label", {}, word("metric"), select), el("label", {}, word("of_class"), scope)),
      meaning, holder,
    );
    function show() {
      const metric = data.metrics.find((one) => one.key === select.value);
      const name = scope.value === "-1" ? word("whole_split") : data.classes.find(([label]) => label === Number(scope.value))[1];
      const rows = (data.series[metric.key] || {})[scope.value] || [];
      meaning.textContent = metric.meaning;
      if (!rows.length) {
        holder.replaceChildren(el("p", { class: "faint" }, word("no_rows")));
        return;
      }
      holder.replaceChildren(chart(metric, name, rows), table(metric, name, rows));
    }
    show();
  }

  const shown = (metric, value) => (metric.plain ? number(value) : percent(value, 1));
  const signed = (metric, value) => {
    if (!known(value)) return "–";
    const text = metric.plain ? number(value) : number(100 * value, 1);
    return value > 0 && !/^0[.,]?0*$/.test(text) ? `+${text}` : text;
  };
  const between = (low, high, write) => (known(low) && known(high) ? word("interval", { low: write(low), high: write(high) }) : "–");

  function chart(metric, name, rows) {
    const box = el("div", { class: "plot", role: "img", "aria-label": word("plot_label", { metric: metric.name, scope: short(name) }) });
    const points = rows.map((row) => ({
      place: field(row, "place") + 1, value: field(row, "value"), low: field(row, "low"), high: field(row, "high"),
      verdict: field(row, "verdict") === null ? "" : data.verdicts[field(row, "verdict")][0],
    }));
    const tone = (point) => ({ better: "var(--clear)", worse: "var(--relies)" })[point.verdict] || "var(--few)";
    const banded = points.filter((point) => known(point.low));
    const draw = () => {
      if (box.childElementCount) return;
      const width = Math.max(260, Math.min(900, box.clientWidth || 900));
      const made = Plot.plot({
        width, height: 300, marginLeft: 60, marginRight: 24, marginBottom: 44,
        style: { background: "transparent", fontSize: "12px", fontFamily: "inherit", overflow: "visible" },
        x: { label: word("run"), labelOffset: 38, ticks: points.map((point) => point.place), tickFormat: "d", inset: 12 },
        y: { label: null, grid: true, nice: true, ticks: 6, tickFormat: (value) => shown(metric, value) },
        marks: [
          Plot.areaY(banded, { x: "place", y1: "low", y2: "high", fill: "var(--mark)", fillOpacity: 0.16 }),
          Plot.lineY(points, { x: "place", y: "value", stroke: "var(--mark)", strokeWidth: 2 }),
          Plot.ruleX(banded, { x: "place", y1: "low", y2: "high", stroke: "var(--mark)", strokeOpacity: 0.5 }),
          Plot.dot(points, { x: "place", y: "value", r: 5.5, fill: tone, stroke: "var(--paper)" }),
        ],
      });
      made.setAttribute("aria-hidden", "true");
      box.append(made);
    };
    whenNear(box, () => (typeof Plot === "undefined" ? document.addEventListener("DOMContentLoaded", draw, { once: true }) : draw()));
    return box;
  }

  function table(metric, name, rows) {
    const made = audit.table(
      [
        { title: word("run"), plain: true, value: (row) => field(row, "place"), cell: (row) => {
          const run = data.runs[field(row, "place")];
          return own(`${field(row, "place") + 1}. ${short(run.model, 30)} ${run.id}`);
        } },
        { title: word("value"), plain: true, value: (row) => field(row, "value"), cell: (row) => shown(metric, field(row, "value")) },
        { title: word("interval_95"), plain: true, value: (row) => field(row, "low"), cell: (row) => between(field(row, "low"), field(row, "high"), (value) => shown(metric, value)) },
        { title: word("change"), plain: true, value: (row) => field(row, "change"), cell: (row) => signed(metric, field(row, "change")) },
        { title: word("interval_of_change"), plain: true, value: (row) => field(row, "changeLow"), cell: (row) => between(field(row, "changeLow"), field(row, "changeHigh"), (value) => signed(metric, value)) },
        { title: word("judged"), plain: true, words: true, value: (row) => field(row, "verdict"), cell: (row) => {
          const place = field(row, "verdict");
          if (place === null) return "–";
          const [key, text] = data.verdicts[place];
          return el("span", { class: `chip ${key.replace(" ", "-")}` }, text);
        } },
      ],
      { caption: word("caption", { metric: metric.name, scope: short(name) }), tall: false },
    );
    made.show(rows);
    return made.element;
  }

  const root = document.getElementById("curve-view");
  if (root) curves(root);
})();
