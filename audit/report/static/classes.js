"use strict";
// The table of classes, and the sheet on which one class is shown with its evidence.
(() => {
  const { data, el, append, own, word, percent, number, count, interval, known, short } = audit;
  const classes = data.classes || [];
  const byLabel = new Map(classes.map((entry) => [entry.label, entry]));
  const hash = (label) => `#class-${label}`;
  const link = (entry) => el("a", { href: hash(entry.label) }, own(entry.name));
  // Objects shown of those that a class's background turns into it.
  const OBJECTS = 12;

  function columns() {
    // A quarter more or less: every dot's place on its track can be compared.
    const lowest = Math.min(0, Math.floor(4 * Math.min(0, ...classes.map((entry) => entry.reliance_low ?? 0))) / 4);
    const highest = Math.max(0.25, Math.ceil(4 * Math.max(0, ...classes.map((entry) => entry.reliance_high ?? 0))) / 4);
    return [
      { title: word("class"), value: (c) => c.name, cell: link },
      { title: word("verdict"), words: true, value: (c) => c.severity, cell: (c) => audit.chip(c.verdict_name, c.severity) },
      {
        title: word("moves"), note: word("moves_note"), value: (c) => c.reliance,
        cell: (c) => (known(c.reliance)
          ? el("span", { class: "with-span" }, el("span", { class: "digits" }, percent(c.reliance)), audit.span(c.reliance, c.reliance_low, c.reliance_high, { from: lowest, to: highest, tone: c.severity }))
          : "–"),
      },
      { title: word("interval_head"), plain: true, cell: (c) => interval(c.reliance_low, c.reliance_high) },
      { title: word("tested"), note: word("tested_note"), value: (c) => c.n_edited, cell: (c) => count(c.n_edited) },
      { title: word("images"), value: (c) => c.n, cell: (c) => count(c.n) },
      { title: word("accuracy"), note: word("accuracy_note"), value: (c) => c.accuracy, cell: (c) => el("span", { title: interval(c.accuracy_low, c.accuracy_high, (v) => percent(v, 1)) }, percent(c.accuracy, 1)) },
      { title: word("decides"), note: word("decides_note"), value: (c) => c.decided_share, cell: (c) => percent(c.decided_share) },
      { title: word("background_alone"), note: word("background_alone_note"), value: (c) => c.acc_background_only, cell: (c) => percent(c.acc_background_only) },
      { title: word("gap"), note: word("gap_note"), value: (c) => c.bg_gap, cell: (c) => percent(c.bg_gap) },
      { title: word("transplants"), note: word("transplants_note"), value: (c) => c.transplant_highest ?? c.transplant_rate, cell: (c) => percent(c.transplant_highest ?? c.transplant_rate) },
      { title: word("share"), note: word("share_note"), value: (c) => c.background_share, cell: (c) => percent(c.background_share) },
    ];
  }

  let table = null;
  function build(root) {
    // As ranked by the run: gravest verdict first, then by how far the background moves answers.
    const ranked = classes;
    table = audit.table(columns(), { caption: word("classes_caption"), open: (c) => hash(c.label) });
    const status = el("p", { class: "count", role: "status", "aria-live": "polite" });
    const text = el("input", { type: "search", placeholder: word("class_name"), autocomplete: "off", spellcheck: "false", on: { input: refresh } });
    const verdicts = [...new Map(ranked.map((c) => [c.verdict, c.verdict_name]))];
    const verdict = el("select", { on: { change: refresh } }, el("option", { value: "" }, word("verdict_any")),
      verdicts.map(([key, name]) => el("option", { value: key }, word("option_count", { name, n: count(ranked.filter((c) => c.verdict === key).length) }))));
    function refresh() {
      const wanted = text.value.trim().toLocaleLowerCase(audit.lang);
      const rows = ranked.filter((c) => (!verdict.value || c.verdict === verdict.value) && (!wanted || c.name.toLocaleLowerCase(audit.lang).includes(wanted)));
      table.show(rows);
      status.textContent = word("classes_count", { n: count(rows.length), of: count(ranked.length) });
    }
    root.replaceChildren(
      el("form", { class: "controls", "aria-label": word("filters_classes"), on: { submit: (event) => event.preventDefault() } },
        el("label", {}, word("class_filter"), text), el("label", {}, word("verdict"), verdict)),
      status,
      table.element,
    );
    refresh();
  }

  // One class.

  function accuracies(c) {
    const rows = [
      ["acc_unedited"], ["acc_object_only"], ["acc_background_only"], ["acc_mixed_same"], ["acc_mixed_rand"], ["acc_fg"], ["acc_bg"],
    ].filter(([key]) => known(c[key]));
    if (!rows.length) return null;
    return audit.scroll(word("edits_accuracy"), el("table", { class: "bars" },
      el("caption", { class: "hidden-text" }, word("edits_accuracy")),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, word("edit")), el("th", { scope: "col", class: "words" }, word("right_answers", { n: count(c.n_edited) })))),
      el("tbody", {}, rows.map(([key]) => el("tr", {}, el("th", { scope: "row" }, word(key)), el("td", { class: "words" }, bar(c[key])))))));
  }
  const bar = (value) => el("span", { class: "bar" }, el("span", { class: "digits" }, percent(value)), known(value) ? el("span", { class: "track", "aria-hidden": "true" }, el("i", { style: { width: `${100 * Math.min(1, Math.max(0, value))}%` } })) : null);

  function edited(edit, c) {
    const { name } = audit.samples;
    const figure = (picture) => {
      const swapped = picture.edit === "transplant";
      const right = picture.predicted === (swapped ? picture.object : c.label);
      const taken = swapped && picture.predicted === c.label && picture.object !== c.label;
      const shown = el("img", { alt: word("alt_edit", { edit: picture.name, answer: audit.samples.plain(picture.predicted) }), decoding: "async" });
      audit.whenNear(shown, () => {
        shown.src = picture.image;
      });
      return el("figure", { class: "edit" },
        el("span", { class: "pic" }, shown),
        el("figcaption", {},
          el("span", { class: "line" }, own(picture.name)),
          el("span", { class: `answer ${taken ? "taken" : right ? "right" : "other"}` }, audit.filled("answer", { name: name(picture.predicted) })),
          taken ? el("span", { class: "line" }, word("follows_background")) : null,
          known(picture.p_label) ? el("span", { class: "line faint" }, audit.filled("p_class", { share: percent(picture.p_label), name: own(c.name) })) : null));
    };
    const title = el("p", { class: "small faint" }, known(edit.s) ? el("a", { href: audit.samples.hash(edit.s) }, own(short(edit.id, 50))) : own(short(edit.id, 50)), edit.family ? `, ${word("masks_of", { family: audit.plots.family(edit.family) })}` : null, "; ", edit.background_decides ? word("edit_decides", { share: percent(c.decided_share) }) : word("edit_other"));
    return el("div", { class: "edit-row" }, title, el("div", { class: "edits" }, (edit.pictures || []).filter((picture) => picture.image).map(figure)));
  }

  function transplanted(c) {
    const rows = [...(c.transplants || [])].filter((row) => row.object !== c.label).sort((a, b) => (b.to_class ?? -1) - (a.to_class ?? -1));
    if (!rows.length) return null;
    const table = audit.table([
      { title: word("object_class"), value: (row) => audit.samples.plain(row.object), cell: (row) => audit.samples.name(row.object) },
      { title: word("to_class"), words: true, value: (row) => row.to_class, cell: (row) => bar(row.to_class) },
      { title: word("kept"), words: true, value: (row) => row.kept, cell: (row) => bar(row.kept) },
      { title: word("images"), value: (row) => row.n, cell: (row) => count(row.n) },
    ], { caption: word("transplanted_caption"), tall: rows.length > OBJECTS });
    table.show(rows);
    return part(word("transplanted"), el("p", { class: "faint" }, word("transplanted_note")), table.element);
  }

  function kinds(c) {
    const rows = c.backgrounds || [];
    if (!rows.length) return null;
    const gap = c.spuriosity;
    return part(
      word("kinds"),
      el("p", { class: "faint" }, word(rows.length > 1 ? "kinds_note" : "kinds_one")),
      rows.map((row) => el("div", { class: "kind card" },
        el("h4", {}, word("kind", { n: row.cluster + 1 }), row.description ? el("span", { class: "faint" }, ` ${row.description}`) : null),
        el("p", { class: "small" }, word(known(row.accuracy_outside) ? "kind_numbers" : "kind_only", { n: count(row.n), share: percent(row.share), logit: number(row.far_logit), rate: percent(row.transplant_rate), accuracy: percent(row.accuracy), low: percent(row.accuracy_low), high: percent(row.accuracy_high), outside: percent(row.accuracy_outside) })),
        row.samples && row.samples.length ? audit.samples.tiles(row.samples) : null)),
      gap && known(gap.gap) ? el("p", { class: "small" }, spuriosity(gap)) : null,
    );
  }
  function spuriosity(found) {
    const points = (value) => number(100 * value, 0);
    return [
      word(found.gap < 0 ? "spuriosity_fewer" : "spuriosity_more", { n: count(found.n), gap: points(Math.abs(found.gap)), low: points(found.low), high: points(found.high) }),
      known(found.q) && found.q > 0.05 ? ` ${word("spuriosity_unsure", { q: number(found.q) })}` : "",
    ];
  }

  function strips(c) {
    const found = c.sections || {};
    const rows = ["worst", "median", "best", "random"].filter((key) => (found[key] || []).length);
    if (!rows.length) return part(word("examples"), el("p", { class: "faint" }, word(c.n ? "no_examples" : "no_images")));
    return part(
      word("examples"),
      el("p", { class: "faint" }, word(data.meta.estimated ? "examples_note_estimated" : "examples_note")),
      audit.pictureControls(),
      rows.map((key) => [el("h4", {}, word(`section_${key}`)), audit.samples.tiles(found[key])]),
    );
  }
  function more(c) {
    const found = c.sections || {};
    const rows = ["background", "background_channel"].filter((key) => (found[key] || []).length && !(key === "background" && (c.backgrounds || []).some((row) => (row.samples || []).length)));
    if (!rows.length) return null;
    return part(word("more_backgrounds"), rows.map((key) => [el("h4", {}, word(`section_${key}`)), audit.samples.tiles(found[key])]));
  }

  function sheets(c) {
    const found = Object.entries(c.sheets || {}).filter(([, file]) => file);
    if (!found.length) return null;
    return part(word("sheets"), el("p", { class: "faint" }, word("sheets_note")), el("ul", {}, found.map(([key, file]) => el("li", {}, el("a", { href: file, target: "_blank", rel: "noopener" }, word(`sheet_${key}`))))));
  }

  const part = (title, ...content) => el("section", { class: "part" }, el("h3", {}, title), content);

  function facts(c) {
    const rows = [
      [word("accuracy"), percent(c.accuracy, 1), interval(c.accuracy_low, c.accuracy_high, (v) => percent(v, 1))],
      [word("moves"), percent(c.reliance), interval(c.reliance_low, c.reliance_high)],
      [word("gap"), percent(c.bg_gap), interval(c.bg_gap_low, c.bg_gap_high)],
      [word("share"), percent(c.background_share), interval(c.background_share_low, c.background_share_high)],
      [word("transplants"), percent(c.transplant_rate), interval(c.transplant_low, c.transplant_high)],
    ];
    return el("dl", { class: "kpis" }, rows.map(([title, value, range]) => el("div", {}, el("dt", {}, title), el("dd", {}, value), el("dd", { class: "faint small" }, range === "–" ? "" : word("interval_95", { interval: range })))));
  }

  function content(c) {
    const edits = (c.edits || []).filter((edit) => (edit.pictures || []).some((picture) => picture.image));
    const evidence = (c.evidence || []).filter((row) => known(row.effect));
    return [
      el("p", { class: "verdict-line" }, audit.chip(c.verdict_name, c.severity), " ", el("span", { class: "faint" }, word("class_counts", { n: count(c.n), edited: count(c.n_edited) }))),
      el("p", { class: "said" }, audit.isolated(c.text, c.name)),
      c.limits ? el("p", { class: "faint" }, c.limits) : null,
      facts(c),
      edits.length || known(c.acc_unedited)
        ? part(word("edits"), el("p", { class: "faint" }, word("edits_note")), edits.map((edit) => edited(edit, c)), accuracies(c))
        : null,
      strips(c),
      evidence.length ? part(word("families"), el("p", { class: "faint" }, word("families_note")), audit.plots.evidence(c.evidence), familyTable(evidence)) : null,
      transplanted(c),
      part(word("histogram"), el("p", { class: "faint" }, word("histogram_note")), audit.plots.histogram(c.histogram, c.background_share)),
      kinds(c),
      more(c),
      strata(c),
      sheets(c),
    ];
  }
  function familyTable(rows) {
    return audit.scroll(word("families"), el("table", {},
      el("caption", { class: "hidden-text" }, word("families")),
      el("thead", {}, el("tr", {}, [word("masks"), word("moves"), word("interval_head"), word("decides"), word("images")].map((text) => el("th", { scope: "col" }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, audit.plots.family(row.family)), el("td", {}, percent(row.effect)), el("td", {}, interval(row.low, row.high)), el("td", {}, percent(row.decided_share)), el("td", {}, count(row.n)))))));
  }
  function strata(c) {
    const rows = (c.strata || []).filter((row) => known(row.accuracy));
    if (!rows.length) return null;
    return part(word("strata"), el("p", { class: "faint" }, word("strata_note")), // That the right answers are right says nothing.
      audit.plots.strata(rows.filter((row) => row.stratum !== "correct")),
      audit.scroll(word("strata"), el("table", {},
        el("caption", { class: "hidden-text" }, word("strata")),
        el("thead", {}, el("tr", {}, [word("stratum"), word("images"), word("accuracy"), word("interval_head"), word("transplants"), word("share")].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.name), el("td", {}, count(row.n)), el("td", {}, percent(row.accuracy)), el("td", {}, interval(row.accuracy_low, row.accuracy_high)), el("td", {}, percent(row.transplant_rate)), el("td", {}, percent(row.background_share))))))));
  }

  let box = null;
  function show(label) {
    const c = byLabel.get(label);
    if (!c) return false;
    box ??= audit.dialog("class", audit.leave);
    if (box.isOpen && box.label === label) return true;
    box.label = label;
    box.show(own(c.name), content(c));
    return true;
  }
  /** The evidence of the gravest classes, for paper. */
  function printed(most) {
    return classes.filter((c) => c.severity <= 1).slice(0, most)
      .map((c) => append(el("section", { class: "printed" }, el("h2", {}, own(c.name))), content(c)));
  }

  audit.classes = {
    build, show, printed, byLabel, link, hash, bar,
    buildAll: () => table && table.buildAll(),
    hide: () => box && box.hide(),
    get isOpen() {
      return Boolean(box && box.isOpen);
    },
  };
})();
