"use strict";
// Heatmaps, drawn from the stored cells as the tables' own code draws them.
(() => {
  const { data, el, svg, whenNear, word } = audit;
  const meta = data.meta || {};
  const [height, width] = meta.image_size || [1, 1];
  const [rows, columns] = meta.grid || [1, 1];
  // What the reader has chosen for all pictures of the page.
  const view = { heat: true, outline: true, opacity: 0.5, colours: meta.colours || "jet" };
  // Pictures are drawn with at least so many pixels a side.
  const FINE = 128;
  const drawn = new Set();
  const tables = new Map();

  /** 256 colours as bytes r, g, b. */
  function colours(name) {
    if (!tables.has(name)) {
      const text = (data.colourmaps && data.colourmaps[name]) || "";
      const bytes = new Uint8Array(768);
      for (let i = 0; i < 768; i += 1) bytes[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16) || 0;
      tables.set(name, bytes);
    }
    return tables.get(name);
  }

  function cells(text) {
    const raw = atob(text);
    const values = new Float32Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) values[i] = raw.charCodeAt(i);
    return values;
  }

  /** Where each of `to` pixels falls between the centres of `from` cells, borders repeated. */
  function places(from, to) {
    const low = new Int32Array(to);
    const high = new Int32Array(to);
    const part = new Float32Array(to);
    for (let i = 0; i < to; i += 1) {
      const at = ((i + 0.5) * from) / to - 0.5;
      const floor = Math.floor(at);
      low[i] = Math.min(from - 1, Math.max(0, floor));
      high[i] = Math.min(from - 1, Math.max(0, floor + 1));
      part[i] = at - floor;
    }
    return { low, high, part };
  }

  /** h·w cells enlarged bilinearly (align_corners=False) to H·W, positive part over its maximum. */
  function enlarge(values, [h, w], [H, W]) {
    const x = places(w, W);
    const y = places(h, H);
    const large = new Float32Array(H * W);
    let peak = 0;
    for (let i = 0; i < H; i += 1) {
      const above = y.low[i] * w;
      const below = y.high[i] * w;
      for (let j = 0; j < W; j += 1) {
        const top = Math.max(0, values[above + x.low[j]]) * (1 - x.part[j]) + Math.max(0, values[above + x.high[j]]) * x.part[j];
        const bottom = Math.max(0, values[below + x.low[j]]) * (1 - x.part[j]) + Math.max(0, values[below + x.high[j]]) * x.part[j];
        const value = top * (1 - y.part[i]) + bottom * y.part[i];
        large[i * W + j] = value;
        if (value > peak) peak = value;
      }
    }
    if (peak > 0) for (let i = 0; i < large.length; i += 1) large[i] /= peak;
    return large;
  }

  function paint(canvas, map) {
    const times = Math.max(1, Math.ceil(FINE / Math.min(height, width)));
    const [H, W] = [height * times, width * times];
    const values = enlarge(cells(map), [rows, columns], [H, W]);
    const table = colours(view.colours);
    canvas.width = W;
    canvas.height = H;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(W, H);
    for (let i = 0; i < values.length; i += 1) {
      const from = 3 * Math.round(255 * values[i]);
      picture.data[4 * i] = table[from];
      picture.data[4 * i + 1] = table[from + 1];
      picture.data[4 * i + 2] = table[from + 2];
      picture.data[4 * i + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
  }

  /** The picture of a sample: image, heatmap and outline, made when it comes near the window. */
  function picture(s, { heat = true, alt = "" } = {}) {
    const { image, map, outline, unknown } = data.samples;
    const box = el("span", { class: "pic", style: { "aspect-ratio": `${width} / ${height}` } });
    if (!image[s]) return el("span", { class: "pic none", style: { "aspect-ratio": `${width} / ${height}` } }, word("no_picture"));
    const shown = el("img", { alt, width, height, decoding: "async" });
    box.append(shown);
    let canvas = null;
    if (heat && map[s]) {
      canvas = el("canvas", { class: "heat", "aria-hidden": "true", width: 1, height: 1 });
      box.append(canvas);
    }
    if (heat && (outline[s] || unknown[s])) {
      const layer = svg("svg", { class: "outline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
      if (unknown[s]) layer.append(svg("path", { class: "unknown", d: unknown[s], fill: "url(#stripes)" }));
      if (outline[s]) layer.append(svg("path", { class: "under", d: outline[s] }), svg("path", { class: "over", d: outline[s] }));
      box.append(layer);
    }
    const redraw = () => paint(canvas, map[s]);
    return whenNear(
      box,
      () => {
        if (!shown.src) shown.src = image[s];
        if (canvas && !drawn.has(redraw)) {
          drawn.add(redraw);
          redraw();
        }
      },
      // Canvases far away would hold memory for nothing.
      canvas &&
        (() => {
          drawn.delete(redraw);
          canvas.width = 1;
          canvas.height = 1;
        }),
    );
  }

  /** The scale of colours, from none to most evidence. */
  function legend() {
    const canvas = el("canvas", { width: 256, height: 1, class: "ramp", role: "img", "aria-label": word("legend_alt") });
    const redraw = () => {
      const context = canvas.getContext("2d");
      const line = context.createImageData(256, 1);
      const table = colours(view.colours);
      for (let i = 0; i < 256; i += 1) {
        for (let c = 0; c < 3; c += 1) line.data[4 * i + c] = table[3 * i + c];
        line.data[4 * i + 3] = 255;
      }
      context.putImageData(line, 0, 0);
    };
    redraw();
    ramps.push(redraw);
    return el("span", { class: "legend" }, word("legend_low"), canvas, word("legend_high"));
  }
  const ramps = [];

  function apply() {
    const root = document.documentElement;
    root.dataset.heat = view.heat ? "on" : "off";
    root.dataset.outline = view.outline ? "on" : "off";
    root.style.setProperty("--heat", view.opacity);
  }
  function choose(change) {
    const before = view.colours;
    Object.assign(view, change);
    apply();
    if (view.colours !== before) for (const redraw of [...drawn, ...ramps]) redraw();
    document.dispatchEvent(new CustomEvent("audit:view"));
  }

  /** Controls of all pictures: heatmap, strength, colours, outline. They follow one another. */
  function controls() {
    const toggle = (key, text) => {
      const box = el("input", { type: "checkbox", on: { change: () => choose({ [key]: box.checked }) } });
      follow.push(() => {
        box.checked = view[key];
      });
      return el("label", { class: "line" }, box, text);
    };
    const follow = [];
    const range = el("input", {
      type: "range", min: 0, max: 100, step: 5,
      on: { input: () => choose({ opacity: Number(range.value) / 100 }) },
    });
    const select = el(
      "select",
      { on: { change: () => choose({ colours: select.value }) } },
      Object.keys(data.colourmaps || {}).map((name) => el("option", { value: name }, word(`colours_${name}`))),
    );
    follow.push(() => {
      range.value = Math.round(100 * view.opacity);
      select.value = view.colours;
    });
    const made = el(
      "fieldset",
      { class: "controls pictures" },
      el("legend", { class: "hidden-text" }, word("picture_controls")),
      toggle("heat", word("heatmap")),
      toggle("outline", meta.estimated ? word("outline_estimated") : word("outline")),
      el("label", {}, word("opacity"), range),
      el("label", {}, word("colours"), select),
      legend(),
    );
    const update = () => follow.forEach((run) => run());
    update();
    document.addEventListener("audit:view", update);
    return made;
  }

  apply();
  Object.assign(audit, { picture, pictureControls: controls, enlarge });
})();
