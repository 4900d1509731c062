"use strict";
// The page of two runs: classes by one number at a time, their plot, and the images that changed.
(() => {
  const { data, el, own, word, number, count, percent, known, short, whenNear } = audit;
  const FIELDS = { n: 0, a: 1, b: 2, change: 3, low: 4, high: 5, q: 6, detectable: 7, verdict: 8, unpaired: 9 };
  const MOST_IN_PLOT = 40;
  const AT_ONCE = 24;

  const field = (row, name) => (row ? row[FIELDS[name]] : null);
  const value = (metric, v) => (metric.plain ? number(v) : percent(v, 1));
  /** A change with its sign, in points or in logits. */
  const signed = (metric, v) => {
    if (!known(v)) return "–";
    const shown = metric.plain ? number(v) : number(100 * v, 1);
    return v > 0 && !/^0[.,]?0*$/.test(shown) ? `+${shown}` : shown;
  };
  const interval = (metric, row) =>
    known(field(row, "low"))
      ? word("interval", { low: signed(metric, field(row, "low")), high: signed(metric, field(row, "high")) })
      : "–";
  const judged = (row) => (row ? data.verdicts[field(row, "verdict")] : null);
  const chip = ([key, name]) => el("span", { class: `chip ${key.replace(" ", "-")}` }, name);
  const verdict = ([severity, name]) => el("span", { class: `chip v${severity}` }, name);

  function classes(root) {
    root.replaceChildren();
    if (!data.metrics.length) {
      root.append(el("p", { class: "faint" }, word("no_rows")));
      return;
    }
    let metric = data.metrics.find((one) => one.key === "reliance") || data.metrics[0];
    const of = (line) => line.rows[metric.key];
    const select = el("select", { on: { change: () => choose() } }, data.metrics.map((one) => el("option", { value: one.key }, one.name)));
    select.value = metric.key;
    const judgement = el(
      "select",
      { on: { change: () => show() } },
      el("option", { value: "" }, word("all_judgements")),
      data.verdicts.map(([key, name]) => el("option", { value: key }, name)),
    );
    const search = el("input", { type: "search", autocomplete: "off", on: { input: () => show() } });
    const meaning = el("p", { class: "small faint" });
    const shown = el("p", { class: "count", role: "status" });
    const plot = el("div");
    const holder = el("div");
    root.append(
      el(
        "div",
        { class: "controls" },
        el("label", {}, word("metric"), select),
        el("label", {}, word("judged"), judgement),
        el("label", {}, word("find_class"), search),
      ),
      meaning, plot, shown, holder,
    );
    let table = null;

    function choose() {
      metric = data.metrics.find((one) => one.key === select.value);
      meaning.textContent = metric.meaning;
      const numbers = (name) => (line) => field(of(line), name);
      table = audit.table(
        [
          { title: word("of_class"), value: (line) => line.name, cell: (line) => own(line.name) },
          {
            title: word("b_is"), words: true, value: numbers("verdict"),
            cell: (line) => {
              if (!of(line)) return "–";
              const made = el("span", {}, chip(judged(of(line))));
              if (field(of(line), "unpaired")) made.append(el("span", { class: "small faint" }, ` ${word("unpaired")}`));
              return made;
            },
          },
          { title: word("run_a"), value: numbers("a"), cell: (line) => value(metric, field(of(line), "a")) },
          { title: word("run_b"), value: numbers("b"), cell: (line) => value(metric, field(of(line), "b")) },
          { title: word("change"), value: numbers("change"), cell: (line) => signed(metric, field(of(line), "change")) },
          { title: word("interval_95_of_change"), value: numbers("low"), cell: (line) => interval(metric, of(line)) },
          { title: word("detectable"), value: numbers("detectable"), cell: (line) => signed(metric, field(of(line), "detectable")).replace("+", "±") },
          { title: word("pairs"), value: numbers("n"), cell: (line) => count(field(of(line), "n")) },
          { title: word("verdict_a"), words: true, value: (line) => line.verdicts[0][0], cell: (line) => verdict(line.verdicts[0]) },
          { title: word("verdict_b"), words: true, value: (line) => line.verdicts[1][0], cell: (line) => verdict(line.verdicts[1]) },
        ],
        { caption: word("classes_caption", { metric: metric.name }), sorted: { column: 1, descending: false } },
      );
      holder.replaceChildren(table.element);
      show();
    }
    function show() {
      const text = search.value.trim().toLocaleLowerCase();
      const wanted = judgement.value;
      const rows = data.classes.filter(
        (line) =>
          (!text || line.name.toLocaleLowerCase().includes(text)) &&
          (!wanted || (of(line) && judged(of(line))[0] === wanted)),
      );
      table.show(rows);
      shown.textContent = word("classes_shown", { n: count(rows.length), of: count(data.classes.length) });
      plot.replaceChildren(chart(rows));
    }
    /** The classes that changed most, each with its interval. */
    function chart(rows) {
      const there = rows.filter((line) => known(field(of(line), "change")));
      const size = (line) => Math.abs(field(of(line), "change"));
      const drawn = [...there].sort((one, other) => size(other) - size(one)).slice(0, MOST_IN_PLOT);
      if (!drawn.length) return el("p", { class: "faint" }, word("no_rows"));
      const scale = metric.plain ? 1 : 100;
      const points = drawn
        .sort((one, other) => field(of(other), "change") - field(of(one), "change"))
        .map((line, place) => ({
          place, name: line.name, verdict: judged(of(line))[0],
          change: scale * field(of(line), "change"),
          low: known(field(of(line), "low")) ? scale * field(of(line), "low") : null,
          high: known(field(of(line), "high")) ? scale * field(of(line), "high") : null,
        }));
      const box = el("div", { class: "plot", role: "img", "aria-label": word("plot_label", { metric: metric.name }) });
      const tone = (point) => ({ better: "var(--clear)", worse: "var(--relies)" })[point.verdict] || "var(--few)";
      const draw = () => {
        if (box.childElementCount) return;
        const width = Math.max(240, Math.min(860, box.clientWidth || 860));
        const made = Plot.plot({
          width, height: 72 + 22 * points.length, marginBottom: 44, marginLeft: Math.min(190, width * 0.38), marginRight: 20,
          style: { background: "transparent", fontSize: "12px", fontFamily: "inherit", overflow: "visible" },
          x: { label: metric.plain ? word("plot_plain") : word("plot_points"), labelOffset: 38, grid: true, ticks: 5, nice: true },
          // By place: two classes may have one name.
          y: { domain: points.map((point) => point.place), label: null, tickSize: 0, tickFormat: (place) => short(points[place].name, width < 500 ? 16 : 26) },
          marks: [
            Plot.ruleX([0], { stroke: "currentColor", strokeOpacity: 0.6 }),
            Plot.ruleY(points.filter((point) => point.low !== null), { y: "place", x1: "low", x2: "high", stroke: tone, strokeWidth: 3, strokeOpacity: 0.55 }),
            Plot.dot(points, { x: "change", y: "place", r: 4.5, fill: tone }),
          ],
        });
        made.setAttribute("aria-hidden", "true");
        box.append(made);
      };
      whenNear(box, () => ready(draw));
      const cut = there.length > drawn.length && el("p", { class: "small faint" }, word("plot_cut", { n: count(drawn.length), of: count(there.length) }));
      return el("figure", {}, box, cut);
    }
    choose();
  }
  /** Plot stands at the page's end. */
  function ready(draw) {
    if (typeof Plot === "undefined") document.addEventListener("DOMContentLoaded", draw, { once: true });
    else draw();
  }

  function changes(root) {
    const all = data.changes;
    const labels = [...new Set(all.map((one) => one.label))].filter((label) => label !== null).sort((a, b) => a - b);
    const kinds = [...new Set(all.map((one) => one.kind))];
    const kind = el("select", { on: { change: () => show() } }, el("option", { value: "" }, word("all_kinds")), kinds.map((key) => el("option", { value: key }, word(`kind_${key}`))));
    const label = el("select", { on: { change: () => show() } }, el("option", { value: "" }, word("all_classes")), labels.map((one) => el("option", { value: one }, short(data.class_names[one]))));
    const shown = el("p", { class: "count", role: "status" });
    const cards = el("div", { class: "pairs" });
    const more = el("button", { type: "button", on: { click: () => build() } }, word("more_pictures"));
    root.append(
      el("div", { class: "controls" }, el("label", {}, word("kind"), kind), el("label", {}, word("of_class"), label)),
      audit.pictureControls(), shown, cards, more,
    );
    let chosen = [];
    let built = 0;
    function show() {
      chosen = all.filter((one) => (!kind.value || one.kind === kind.value) && (!label.value || one.label === Number(label.value)));
      built = 0;
      cards.replaceChildren();
      shown.textContent = chosen.length ? word("pictures_shown", { n: count(chosen.length), of: count(all.length) }) : word("nothing_chosen");
      build();
    }
    function build() {
      const until = Math.min(chosen.length, built + AT_ONCE);
      for (; built < until; built += 1) cards.append(card(chosen[built]));
      more.hidden = built >= chosen.length;
    }
    show();
  }

  function card(one) {
    const side = (key, letter, s) => {
      const right = one[`${key}_predicted`] === one.label;
      const reason = one[`${key}_reason`];
      return el(
        "div",
        {},
        audit.picture(s, { alt: word("alt_heat", { id: one.sample_id }) }),
        el("p", { class: one.label === null ? null : right ? "right" : "wrong" }, own(word("answer_of", { run: letter, answer: short(one[`${key}_predicted_name`] ?? "–", 24), confidence: percent(one[`${key}_confidence`]) }))),
        el("p", { class: "faint" }, reason ? word("reason_of", { reason: word(`reason_${reason}`) }) : null, el("br"), known(one[`${key}_background_share`]) ? word("share_of", { share: percent(one[`${key}_background_share`]) }) : null),
      );
    };
    return el(
      "div",
      { class: "card pair-card" },
      el("div", { class: "two" }, side("a", word("run_a"), one.s), side("b", word("run_b"), one.s + 1)),
      el("p", {}, el("span", { class: "chip plain" }, word(`kind_${one.kind}`))),
      el("p", { class: "faint" }, own(word("label_of", { label: short(one.label_name ?? word("no_label"), 40) })), el("br"), own(short(one.sample_id, 60))),
    );
  }

  const places = { "class-view": classes, "change-view": changes };
  for (const [id, build] of Object.entries(places)) {
    const root = document.getElementById(id);
    if (root) build(root);
  }
})();
