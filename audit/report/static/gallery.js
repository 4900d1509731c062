"use strict";
// The gallery of flagged samples: filters, order, and as many tiles as are asked for.
(() => {
  const { data, el, word, count, known } = audit;
  const AT_ONCE = 48;
  const ORDERS = [
    ["telling", 0], ["background_share", -1], ["transplant_rate", -1], ["far_logit", -1], ["confidence", -1],
    ["p_label", 1], ["mask_confidence", 1], ["index", 1],
  ];

  function build(root) {
    const { all, tile, lists } = audit.samples;
    const flags = data.flags || [];
    const total = all.id.length;
    const state = { text: "", side: "either", flag: "any", reason: "", least: 0, from: 0, to: 100, order: 0 };
    const lower = (data.class_names || []).map((name) => name.toLocaleLowerCase(audit.lang));

    const field = (title, control) => el("label", {}, title, control);
    const select = (key, options) => {
      const made = el("select", { on: { change: () => set({ [key]: made.value }) } }, options.map(([value, text]) => el("option", { value }, text)));
      return made;
    };
    const percentInput = (key) => {
      const made = el("input", { type: "number", min: 0, max: 100, step: 1, value: state[key], inputmode: "numeric", "aria-label": word(`filter_${key}`), on: { input: () => set({ [key]: made.value === "" ? (key === "to" ? 100 : 0) : Number(made.value) }) } });
      return made;
    };
    const options = el("datalist", { id: "class-names" });
    const text = el("input", {
      type: "search", list: "class-names", placeholder: word("any_class"), autocomplete: "off", spellcheck: "false",
      on: {
        focus: () => {
          if (!options.childElementCount) options.append(...(data.class_names || []).map((value) => el("option", { value })));
        },
        input: () => set({ text: text.value.trim().toLocaleLowerCase(audit.lang) }),
      },
    });
    const meaning = el("p", { class: "faint small" });
    const status = el("p", { class: "count", role: "status", "aria-live": "polite" });
    const box = el("div", { class: "tiles" });
    const more = el("button", { type: "button", on: { click: () => grow(true) } });
    const form = el("form", { class: "controls", "aria-label": word("filters_images"), on: { submit: (event) => event.preventDefault() } },
      field(word("filter_class"), text),
      field(word("filter_side"), select("side", [["either", word("side_either")], ["label", word("side_label")], ["predicted", word("side_predicted")]])),
      field(word("filter_flag"), select("flag", [
        ["any", word("flag_any")],
        ...flags.map((flag, bit) => [String(bit), word("flag_option", { name: flag.name, shown: count(flag.shown), total: count(flag.total) })]),
        ["all", word("flag_all")],
      ])),
      field(word("filter_reason"), select("reason", [["", word("reason_any")], ...["object", "background", "both", "neither"].map((key) => [key, word(`reason_short_${key}`)])])),
      field(word("filter_least"), percentInput("least")),
      el("div", { class: "labelled" }, el("span", { "aria-hidden": "true" }, word("filter_share")), el("span", { class: "pair" }, percentInput("from"), "–", percentInput("to"))),
      field(word("filter_order"), select("order", ORDERS.map(([key], place) => [String(place), word(`order_${key}`)]))),
      el("button", { type: "reset", on: { click: reset } }, word("reset")),
      options,
    );
    root.append(form, audit.pictureControls(), meaning, status, box, el("p", { class: "screen" }, more));

    let list = [];
    let shown = 0;
    function set(change) {
      Object.assign(state, change);
      refresh();
    }
    function reset() {
      Object.assign(state, { text: "", side: "either", flag: "any", reason: "", least: 0, from: 0, to: 100, order: 0 });
      refresh();
    }
    function fits(s, named) {
      if (state.flag === "any" ? !all.flags[s] : state.flag !== "all" && !((all.flags[s] >> Number(state.flag)) & 1)) return false;
      if (state.reason && all.reason[s] !== state.reason) return false;
      if (state.least > 0 && !(all.confidence[s] >= state.least / 100)) return false;
      if (state.from > 0 || state.to < 100) {
        const share = all.background_share[s];
        if (!known(share) || share < state.from / 100 || share > state.to / 100) return false;
      }
      if (named) {
        const label = state.side !== "predicted" && named.has(all.label[s]);
        const predicted = state.side !== "label" && named.has(all.predicted[s]);
        if (!label && !predicted) return false;
      }
      return true;
    }
    function refresh() {
      let named = null;
      if (state.text) {
        const exact = lower.flatMap((name, label) => (name === state.text ? [label] : []));
        named = new Set(exact.length ? exact : lower.flatMap((name, label) => (name.includes(state.text) ? [label] : [])));
      }
      list = [];
      for (let s = 0; s < total; s += 1) if (fits(s, named)) list.push(s);
      const [key, sign] = ORDERS[Number(state.order)];
      const values = all[key];
      // Samples come in the order of how telling they are.
      if (sign) list.sort((a, b) => {
        const [x, y] = [values[a], values[b]];
        if (!known(x) || !known(y)) return known(y) - known(x);
        return sign * (x - y) || all.index[a] - all.index[b];
      });
      lists.set(box, list);
      box.replaceChildren();
      shown = 0;
      grow();
      meaning.textContent = /^\d+$/.test(state.flag) ? flags[Number(state.flag)].meaning : "";
    }
    function grow(move = false) {
      const until = Math.min(list.length, shown + AT_ONCE);
      const fresh = list.slice(shown, until).map((s) => tile(s));
      box.append(...fresh);
      shown = until;
      more.hidden = shown >= list.length;
      more.textContent = word("more", { n: count(Math.min(AT_ONCE, list.length - shown)) });
      status.textContent = word(list.length ? "gallery_count" : "gallery_none", { n: count(list.length), of: count(total), all: count(data.meta.samples), file: "samples/*.parquet" });
      if (move && fresh.length) fresh[0].focus();
    }
    refresh();
  }

  audit.gallery = build;
})();
