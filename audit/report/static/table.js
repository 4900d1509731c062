"use strict";
// A table that sorts by its headings and shows the rows that are asked for, some at a time.
(() => {
  const { el, append, known } = audit;
  const AT_ONCE = 100;

  /**
   * Make a table.
   *
   * columns: [{title, value: row => number|string|null, cell: row => node|text, note?, words?, plain?}];
   * the first is the row's heading. Options: caption (for readers of screens), open (row => hash of
   * what the row opens), sorted ({column, descending}), tall.
   * Returns {element, show(rows), rows(), sortBy(column, descending)}.
   */
  audit.table = (columns, { caption, open = null, sorted = null, tall = true } = {}) => {
    let shown = [];
    let order = sorted;
    let built = 0;
    const body = el("tbody");
    const heads = columns.map((column, place) => head(column, place));
    const table = el(
      "table",
      { class: "pinned" },
      el("caption", { class: "hidden-text" }, caption),
      el("thead", {}, el("tr", {}, heads)),
      body,
    );
    const element = el(
      "div",
      { class: tall ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": caption },
      table,
    );
    element.addEventListener("scroll", () => {
      if (element.scrollTop + element.clientHeight > element.scrollHeight - 600) more();
    });

    function head(column, place) {
      const made = el("th", { scope: "col", class: column.words ? "words" : null, title: column.note || null });
      if (column.plain) return append(made, [column.title]);
      made.append(
        el("button", { type: "button", class: "sort", on: { click: () => sortBy(place) } }, column.title),
      );
      return made;
    }
    function sortBy(place, descending = null) {
      const again = order && order.column === place;
      const numeric = shown.some((row) => typeof columns[place].value(row) === "number");
      order = { column: place, descending: descending ?? (again ? !order.descending : numeric) };
      draw();
    }
    function compare(one, other) {
      const a = columns[order.column].value(one);
      const b = columns[order.column].value(other);
      // What is not defined comes last whichever way.
      const blank = (value) => value === null || value === undefined || (typeof value === "number" && !known(value));
      if (blank(a) || blank(b)) return blank(a) - blank(b);
      const found = typeof a === "string" ? a.localeCompare(b, audit.lang, { numeric: true }) : a - b;
      return order.descending ? -found : found;
    }
    function draw() {
      heads.forEach((made, place) => {
        const is = order && order.column === place;
        if (columns[place].plain) return;
        if (is) made.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
        else made.removeAttribute("aria-sort");
      });
      if (order) shown.sort(compare);
      body.replaceChildren();
      built = 0;
      element.scrollTop = 0;
      more();
    }
    function more(all = false) {
      const until = all || !tall ? shown.length : Math.min(shown.length, built + AT_ONCE);
      const rows = document.createDocumentFragment();
      for (; built < until; built += 1) rows.append(line(shown[built]));
      body.append(rows);
    }
    function line(row) {
      const made = el("tr", { class: open ? "opens" : null });
      columns.forEach((column, place) => {
        const cell = el(place === 0 ? "th" : "td", {
          scope: place === 0 ? "row" : null,
          class: column.words ? "words" : null,
        });
        made.append(append(cell, [column.cell(row)]));
      });
      if (open) {
        made.addEventListener("click", (event) => {
          if (!event.target.closest("a, button")) audit.go(open(row));
        });
      }
      return made;
    }
    return {
      element,
      sortBy,
      rows: () => shown,
      show(rows) {
        shown = [...rows];
        if (order) draw();
        else {
          body.replaceChildren();
          built = 0;
          more();
        }
      },
      buildAll: () => more(true),
    };
  };

  /** A value and its interval as a picture on a track from `from` to `to`. */
  audit.span = (value, low, high, { from = 0, to = 1, tone = 3 } = {}) => {
    if (!known(value)) return null;
    const place = (number) => `${(100 * (Math.min(to, Math.max(from, number)) - from)) / (to - from)}%`;
    const made = el("span", { class: `span v${tone}`, "aria-hidden": "true" });
    made.append(el("u", { style: { left: place(0) } }));
    if (known(low) && known(high)) {
      made.append(el("i", { style: { left: place(low), right: `calc(100% - ${place(high)})` } }));
    }
    made.append(el("b", { style: { left: place(value) } }));
    return made;
  };
  audit.chip = (verdict, severity) => el("span", { class: `chip v${severity}` }, verdict);
})();
