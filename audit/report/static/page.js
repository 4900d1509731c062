"use strict";
// Puts the page together: routes (#class-3, #sample-id), sections filled one after the other.
(() => {
  const { data, el, word, percent, count, own, known, whenNear } = audit;
  // Classes whose evidence is printed.
  const PRINTED = 5;

  // Where the reader is. Back and forward of the browser work on it.
  function decoded(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }
  let origin = null;
  function route() {
    const hash = window.location.hash;
    const { samples, classes } = audit;
    if (hash.startsWith("#sample-")) {
      const s = samples.find(decoded(hash.slice("#sample-".length)));
      if (s !== null) samples.show(s);
      else samples.missing(decoded(hash.slice("#sample-".length)));
      return;
    }
    samples.hide();
    const label = /^#class-(\d+)$/.exec(hash);
    if (label && classes.show(Number(label[1]))) return;
    classes.hide();
    if (origin && origin.isConnected) origin.focus({ preventScroll: true });
    origin = null;
  }
  audit.go = (hash, { replace = false } = {}) => {
    if (hash === window.location.hash) {
      route();
      return;
    }
    if (!audit.samples.isOpen && !audit.classes.isOpen) origin = document.activeElement;
    if (replace) window.history.replaceState(window.history.state, "", hash);
    else window.history.pushState({ ours: true }, "", hash);
    route();
  };
  /** Closes what is open: one step back where the reader came from this page. */
  audit.leave = () => {
    if (window.history.state && window.history.state.ours) window.history.back();
    else {
      window.history.replaceState(null, "", window.location.pathname + window.location.search);
      route();
    }
  };
  window.addEventListener("popstate", route);
  document.addEventListener("click", (event) => {
    const target = event.target.closest("a[href^='#class-'], a[href^='#sample-']");
    if (!target || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    if (target.matches(".tile")) audit.samples.remember(target);
    audit.go(target.getAttribute("href"));
  });

  function suspects(root) {
    const rows = data.labels || [];
    if (!rows.length) return;
    const { name, plain, hash } = audit.samples;
    const table = audit.table([
      { title: word("image"), value: (row) => row.id, cell: (row) => (known(row.s) ? el("a", { href: hash(row.s), class: "thumb" }, audit.picture(row.s, { heat: false }), el("span", {}, own(audit.short(row.id, 32)))) : own(audit.short(row.id, 32))) },
      { title: word("label"), words: true, value: (row) => plain(row.label), cell: (row) => name(row.label) },
      { title: word("suggested"), words: true, value: (row) => plain(row.suggested), cell: (row) => name(row.suggested) },
      { title: word("p_of_label"), value: (row) => row.label_score, cell: (row) => percent(row.label_score, 1) },
      { title: word("p_of_suggested"), value: (row) => row.suggested_probability, cell: (row) => percent(row.suggested_probability, 1) },
      { title: word("object_says"), words: true, value: (row) => plain(row.object_pred), cell: (row) => [known(row.object_pred) ? name(row.object_pred) : "–", row.object_is_label ? [" ", el("span", { class: "faint" }, audit.filled("in_pixels", { name: name(row.label) }))] : null] },
      { title: word("background_says"), words: true, value: (row) => plain(row.background_pred), cell: (row) => (known(row.background_pred) ? name(row.background_pred) : "–") },
      { title: word("by"), value: (row) => row.evidence, cell: (row) => (row.evidence && `by_${row.evidence}` in audit.words ? word(`by_${row.evidence}`) : (row.evidence ?? "–")) },
      { title: word("kind_head"), words: true, value: (row) => row.kind_name, cell: (row) => [row.kind_name, row.reason ? el("span", { class: "note" }, row.reason) : null] },
    ], { caption: word("labels_caption") });
    table.show(rows);
    root.append(table.element);
  }

  function confusions(root) {
    const rows = data.confusions || [];
    if (!rows.length) return;
    const { name, plain, tiles } = audit.samples;
    const regions = ["object", "background", "both", "neither"];
    const parts = (row) => {
      const found = row.regions || {};
      const text = regions.filter((key) => known(found[key])).map((key) => word("region_share", { region: word(`reason_short_${key}`), share: percent(found[key]) })).join(" · ");
      return text ? el("span", { class: "regions", role: "img", "aria-label": text, title: text }, regions.map((key) => el("i", { class: key, style: { width: `${100 * (found[key] || 0)}%` } }))) : "–";
    };
    const table = audit.table([
      { title: word("label"), value: (row) => plain(row.label), cell: (row) => name(row.label) },
      { title: word("predicted"), words: true, value: (row) => plain(row.predicted), cell: (row) => name(row.predicted) },
      { title: word("images"), value: (row) => row.n, cell: (row) => count(row.n) },
      { title: word("share_of_label"), value: (row) => row.share_of_label, cell: (row) => percent(row.share_of_label, 1) },
      { title: word("share"), value: (row) => row.background_share, cell: (row) => percent(row.background_share) },
      { title: word("looked_at"), words: true, plain: true, cell: parts },
      { title: word("examples"), words: true, plain: true, cell: (row) => ((row.samples || []).length ? tiles(row.samples.slice(0, 3)) : "–") },
    ], { caption: word("confusions_caption") });
    table.show(rows);
    root.append(el("p", { class: "key-line small" }, regions.map((key) => el("span", {}, el("i", { class: key }), " ", word(`reason_short_${key}`)))), table.element);
  }

  function strip(key) {
    return (root) => {
      const found = (data.sections || {})[key] || [];
      if (found.length) root.append(audit.samples.tiles(found));
    };
  }

  const SECTIONS = {
    chosen: strip("chosen"),
    classes: (root) => audit.classes.build(root),
    gallery: (root) => audit.gallery(root),
    labels: suspects,
    confusions,
    matrix: (root) => audit.plots.matrix(root),
    right_for_the_wrong_reason: strip("right_for_the_wrong_reason"),
    wrong_but_confident: strip("wrong_but_confident"),
    least_trusted_masks: strip("least_trusted_masks"),
    most_trusted_masks: strip("most_trusted_masks"),
  };
  const fillers = new Map();
  function prepare() {
    for (const root of document.querySelectorAll("[data-fill]")) {
      const fill = () => {
        if (!fillers.has(root)) return;
        fillers.delete(root);
        SECTIONS[root.dataset.fill](root);
      };
      fillers.set(root, fill);
      whenNear(root, fill);
    }
    // One after the other when the page is shown, so that links to sections lead where they say.
    const next = () => {
      const [fill] = fillers.values();
      if (!fill) return;
      fill();
      setTimeout(next, 0);
    };
    document.addEventListener("DOMContentLoaded", () => setTimeout(next, 0));
  }

  // Which section is being read.
  function follow() {
    const links = [...document.querySelectorAll("nav.sections a")];
    const seen = new Set();
    const watch = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
        const current = links.find((link) => seen.has(link.hash.slice(1)));
        for (const link of links) {
          if (link === current) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
        if (current) {
          const list = current.closest("ul");
          list.scrollLeft = current.offsetLeft - list.clientWidth / 2 + current.offsetWidth / 2;
        }
      },
      { rootMargin: "-20% 0px -70% 0px" },
    );
    for (const link of links) {
      const section = document.getElementById(link.hash.slice(1));
      if (section) watch.observe(section);
    }
  }

  function printing() {
    const place = document.getElementById("printed");
    let closed = [];
    window.addEventListener("beforeprint", () => {
      for (const fill of [...fillers.values()]) fill();
      closed = [...document.querySelectorAll("main details:not([open], .screen)")];
      for (const details of closed) details.open = true;
      audit.classes.buildAll();
      if (place) place.replaceChildren(...audit.classes.printed(PRINTED));
      audit.buildAll(document.body);
    });
    window.addEventListener("afterprint", () => {
      if (place) place.replaceChildren();
      for (const details of closed) details.open = false;
    });
  }

  document.documentElement.classList.add("scripted");
  prepare();
  follow();
  printing();
  route();
})();
