"use strict";
// The one namespace of the report's scripts: data, words, numbers, building of elements.
const audit = (() => {
  const holder = document.getElementById("audit-data");
  const data = holder ? JSON.parse(holder.textContent) : {};
  // Millions of characters that nobody needs twice.
  if (holder) holder.remove();
  const words = data.words || {};
  const lang = (data.meta && data.meta.lang) || document.documentElement.lang || "en";

  /** The page's words for a key, with its {placeholders} filled in. */
  function word(key, values = {}) {
    if (!(key in words)) throw new Error(`no words for ${key}`);
    return words[key].replace(/\{(\w+)\}/g, (all, name) => (name in values ? String(values[name]) : all));
  }

  /** The same with elements in the places: a list of text and elements. */
  function filled(key, nodes) {
    return word(key).split(/\{(\w+)\}/).map((part, i) => (i % 2 ? nodes[part] : part));
  }

  const formats = new Map();
  function fixed(value, digits) {
    if (!formats.has(digits)) {
      formats.set(
        digits,
        new Intl.NumberFormat(lang, { minimumFractionDigits: digits, maximumFractionDigits: digits }),
      );
    }
    // Without the minus of a rounded −0.
    const rounded = Number(value.toFixed(digits)) + 0;
    return formats.get(digits).format(rounded === 0 ? 0 : rounded);
  }
  const known = (value) => typeof value === "number" && Number.isFinite(value);
  const missing = "–";
  const number = (value, digits = 2) => (known(value) ? fixed(value, digits) : missing);
  const count = (value) => (known(value) ? fixed(value, 0) : missing);
  const percent = (value, digits = 0) =>
    known(value) ? word("percent", { number: fixed(100 * value, digits) }) : missing;
  const interval = (low, high, show = percent) =>
    known(low) && known(high) ? word("interval", { low: show(low), high: show(high) }) : missing;

  /** An element: attributes as given, children as elements or text; nothing is read as HTML. */
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") for (const [event, run] of Object.entries(value)) made.addEventListener(event, run);
      else if (name === "style") for (const [key, text] of Object.entries(value)) made.style.setProperty(key, text);
      else made.setAttribute(name, value === true ? "" : value);
    }
    append(made, children);
    return made;
  }
  function append(parent, children) {
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === false) continue;
      parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
    }
    return parent;
  }
  /** A box that scrolls what is wider than the window; reached by keyboard, named for readers. */
  const scroll = (label, ...content) =>
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, content);
  const DIRECTED = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;
  /** A sentence in which a name of another direction keeps to itself. */
  const isolated = (text, name) =>
    name && DIRECTED.test(name) ? text.split(name).join(`\u2068${name}\u2069`) : text;
  /** Text of data's own: its direction is its own too. */
  const own = (text) => el("bdi", {}, text);
  const short = (text, most = 60) => {
    const all = [...String(text)];
    return all.length > most ? `${all.slice(0, most - 1).join("")}…` : String(text);
  };

  const SVG = "http://www.w3.org/2000/svg";
  function svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
    return append(made, children);
  }

  // Calls made when an element comes near the window, and when it leaves.
  const watched = new WeakMap();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const calls = watched.get(entry.target);
        if (!calls) continue;
        if (entry.isIntersecting) {
          if (!calls.leave) observer.unobserve(entry.target);
          calls.enter(entry.target);
        } else if (calls.leave) calls.leave(entry.target);
      }
    },
    { rootMargin: "300px 300px" },
  );
  function whenNear(element, enter, leave = null) {
    watched.set(element, { enter, leave });
    observer.observe(element);
    return element;
  }
  /** Everything that waits inside an element is built now: for print. */
  function buildAll(root) {
    for (const element of [root, ...root.querySelectorAll("*")]) {
      const calls = watched.get(element);
      if (calls) calls.enter(element);
    }
  }

  /** A modal dialog with a title and a way out; `open(node)` fills it. */
  function dialog(id, onClose) {
    const title = el("h2", { id: `${id}-title`, tabindex: "-1" });
    const body = el("div", { class: "dialog-body" });
    const bar = el("div", { class: "dialog-tools" });
    const close = el("button", { type: "button", class: "close", on: { click: onClose } }, word("close"));
    const box = el(
      "dialog",
      { id, class: "sheet", "aria-labelledby": title.id },
      el("div", { class: "dialog-top" }, title, bar, close),
      body,
    );
    box.addEventListener("cancel", (event) => {
      event.preventDefault();
      onClose();
    });
    // A click beside the sheet.
    box.addEventListener("click", (event) => {
      if (event.target === box) onClose();
    });
    document.body.append(box);
    return {
      box,
      bar,
      body,
      get isOpen() {
        return box.open;
      },
      show(heading, ...content) {
        title.replaceChildren();
        append(title, [heading]);
        body.replaceChildren();
        append(body, content);
        if (!box.open) {
          box.showModal();
          title.focus();
        }
        body.scrollTop = 0;
        box.scrollTop = 0;
      },
      hide() {
        if (box.open) box.close();
        body.replaceChildren();
      },
    };
  }

  return {
    data, lang, word, filled, words, number, count, percent, interval, known, el, svg, append, own, isolated, scroll, short,
    whenNear, buildAll, dialog,
  };
})();
