"use strict";
// Tiles of samples, and the sheet on which one sample is shown with all its numbers.
(() => {
  const { data, el, append, own, word, percent, number, known, short } = audit;
  const all = data.samples || { id: [] };
  const names = data.class_names || [];
  const flags = data.flags || [];
  // The list that a tile stands in: for going to its neighbours.
  const lists = new WeakMap();
  let around = [];
  let places = null;

  const name = (label) => (known(label) ? own(names[label] ?? String(label)) : word("no_label"));
  const plain = (label) => (known(label) ? (names[label] ?? String(label)) : word("no_label"));
  const hash = (s) => `#sample-${encodeURIComponent(all.id[s])}`;
  const find = (id) => {
    if (!places) places = new Map(all.id.map((entry, s) => [entry, s]));
    return places.has(id) ? places.get(id) : null;
  };
  const flagsOf = (s) => flags.filter((_, bit) => (all.flags[s] >> bit) & 1);
  const wrong = (s) => known(all.label[s]) && all.label[s] !== all.predicted[s];

  function tile(s, note = null) {
    const caption = el("span", { class: "caption" });
    append(caption, [
      line(word("tile_label"), all.label[s], wrong(s) ? all.p_label[s] : null),
      line(word("tile_predicted"), all.predicted[s], all.confidence[s], wrong(s)),
      el("span", { class: "line faint" }, note ?? word("tile_share", { share: percent(all.background_share[s]) })),
    ]);
    return el(
      "a",
      { class: "tile", href: hash(s), title: all.id[s] },
      audit.picture(s, { alt: word("alt_sample", { id: short(all.id[s], 40) }) }),
      caption,
    );
  }

  const line = (key, label, share, isWrong = false) =>
    el("span", { class: isWrong ? "line wrong" : "line" }, el("span", { class: "key" }, key), " ",
      el("span", { class: "name" }, name(label)), known(share) ? [" ", el("span", { class: "digits" }, percent(share))] : null);

  function tiles(list, note = null) {
    const box = el("div", { class: "tiles" }, list.map((s) => tile(s, note && note(s))));
    lists.set(box, list);
    return box;
  }
  const remember = (tileElement) => {
    const box = tileElement.closest(".tiles");
    if (box && lists.has(box)) around = lists.get(box);
  };

  const literal = (text) => `'${String(text).replace(/\\/g, "\\\\").replace(/'/g, "\\'")}'`;
  /** The line of Python that finds this sample's row. */
  function query(s) {
    const id = String(all.id[s]);
    // A name that could end the text of the query is looked for by its place instead.
    const condition = /^[\w ./:+@=-]+$/.test(id) ? `sample_id == ${literal(id)}` : `index == ${all.index[s]}`;
    return `run.samples.query("${condition}")`;
  }

  function copy(text) {
    const said = el("span", { class: "faint small", role: "status" });
    const button = el("button", {
      type: "button",
      on: {
        click: async () => {
          try {
            await navigator.clipboard.writeText(text);
            said.textContent = word("copied");
          } catch {
            said.textContent = word("copy_failed");
          }
        },
      },
    }, word("copy"));
    return el("p", { class: "copy" }, button, " ", said);
  }

  function numbers(s) {
    const rows = [
      ["confidence", percent(all.confidence[s], 1)],
      ["p_label", percent(all.p_label[s], 1)],
      ["background_share", percent(all.background_share[s], 1)],
      ["transplant_rate", percent(all.transplant_rate[s], 1)],
      ["object_logit", number(all.object_logit[s])],
      ["near_logit", number(all.near_logit[s])],
      ["far_logit", number(all.far_logit[s])],
      ["object_area", percent(all.object_area[s], 1)],
      ["mask_confidence", percent(all.mask_confidence[s], 1)],
    ];
    return audit.scroll(
      word("all_numbers"),
      el(
        "table",
        { class: "numbers" },
        el("caption", { class: "hidden-text" }, word("all_numbers")),
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, word("number")), el("th", { scope: "col" }, word("value")), el("th", { scope: "col" }, word("column")))),
        el("tbody", {}, rows.map(([key, text]) =>
          el("tr", {}, el("th", { scope: "row" }, el("span", {}, word(`sample_${key}`)), el("span", { class: "note" }, word(`sample_${key}_note`))), el("td", {}, text), el("td", {}, el("code", {}, key === "p_label" ? "label_probability" : key))))),
      ),
    );
  }

  function sheet(s) {
    const found = flagsOf(s);
    const said = wrong(s) ? "said_wrong" : known(all.label[s]) ? "said_right" : "said_unlabelled";
    const toClass = (label) => (known(label) ? el("a", { href: `#class-${label}` }, name(label)) : name(label));
    const values = { label: toClass(all.label[s]), predicted: toClass(all.predicted[s]), confidence: percent(all.confidence[s], 1) };
    return [
      el("div", { class: "pair" },
        el("figure", {}, audit.picture(s, { heat: false, alt: word("alt_sample", { id: short(all.id[s], 40) }) }), el("figcaption", {}, word("as_shown"))),
        el("figure", {}, audit.picture(s, { alt: word("alt_heat", { id: short(all.id[s], 40) }) }), el("figcaption", {}, word(data.meta.target === "label" ? "heat_label" : "heat_predicted")))),
      audit.pictureControls(),
      el("p", { class: "said" }, audit.filled(said, values)),
      all.reason[s] ? el("p", {}, word(`reason_${all.reason[s]}`)) : el("p", { class: "faint" }, word("reason_unknown", { status: all.status[s] ?? "–" })),
      found.length ? el("ul", { class: "flags" }, found.map((flag) => el("li", {}, el("strong", {}, flag.name), " ", el("span", { class: "faint" }, flag.meaning)))) : null,
      numbers(s),
      el("h3", {}, word("get_row")),
      el("p", { class: "faint small" }, word("get_row_note")),
      el("pre", { tabindex: "0" }, el("code", {}, query(s))),
      copy(query(s)),
      el("dl", { class: "facts small" }, el("dt", {}, word("sample_id")), el("dd", {}, own(all.id[s])), el("dt", {}, word("sample_index")), el("dd", {}, audit.count(all.index[s]))),
    ];
  }

  let box = null;
  function opened() {
    if (!box) {
      box = audit.dialog("sample", audit.leave);
      const step = (by) => el("button", { type: "button", "aria-label": word(by < 0 ? "previous" : "next"), on: { click: () => go(by) } }, by < 0 ? "←" : "→");
      box.place = el("span", { class: "faint small", role: "status" });
      box.bar.append(step(-1), step(1), box.place);
      box.box.addEventListener("keydown", (event) => {
        if (event.target.closest("input, select")) return;
        if (event.key === "ArrowLeft") go(-1);
        else if (event.key === "ArrowRight") go(1);
        else return;
        event.preventDefault();
      });
    }
    return box;
  }
  /** An address of an image that the page does not hold. */
  function missing(id) {
    const line = `run.show(${JSON.stringify(id)})`;
    around = [];
    opened().bar.hidden = true;
    box.show(own(short(id, 80)), [
      el("p", {}, word("not_here", { shown: audit.count(all.id.length), n: audit.count(data.meta.samples) })),
      el("pre", { tabindex: "0" }, el("code", {}, line)),
      copy(line),
    ]);
  }
  function show(s) {
    opened();
    if (!around.includes(s)) around = [s];
    box.current = s;
    box.bar.hidden = around.length < 2;
    box.show(own(short(all.id[s], 80)), sheet(s));
    box.place.textContent = around.length < 2 ? "" : word("place", { at: audit.count(around.indexOf(s) + 1), of: audit.count(around.length) });
  }
  function go(by) {
    const at = around.indexOf(box.current);
    const next = around[(at + by + around.length) % around.length];
    if (next !== undefined && next !== box.current) audit.go(hash(next), { replace: true });
  }

  audit.samples = {
    all, name, plain, hash, find, flagsOf, wrong, tile, tiles, remember, show, missing, lists,
    hide: () => box && box.hide(),
    get isOpen() {
      return Boolean(box && box.isOpen);
    },
  };
})();
