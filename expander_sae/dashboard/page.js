
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const kinds = { Uint16Array, Uint32Array, Int16Array, Float32Array };
  const STEPS = 32767, PAGE = 100, CONTEXTS = 12, BEFORE = 18, AFTER = 8;

  function unpack(stored) {
    const text = atob(stored.data), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return new kinds[stored.type](bytes.buffer);
  }
  const features = unpack(data.features), document_of = unpack(data.document);
  const words = data.text.unique, word_at = unpack(data.text.place), flatness = unpack(data.flatness);
  const codes = {};
  for (const name of ["encoder", "omp"]) {
    if (!data[name]) continue;
    codes[name] = Object.fromEntries(Object.entries(data[name]).map(([key, value]) => [key, unpack(value)]));
  }
  const rows_of = unpack(data.columns.rows), values_of = unpack(data.columns.values);
  const logits = data.logits && { place: unpack(data.logits.place), value: unpack(data.logits.value) };

  // Text is only ever set as text: nothing that a corpus holds becomes markup.
  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") node.className = value; else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  function draw(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const figure = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en")
    : String(+value.toPrecision(3))).replace("-", "−");
  // Spread into Math.max a feature's firings would exceed the number of arguments that a call may have.
  const largest_of = (values, least) => { for (const value of values) if (value > least) least = value; return least; };
  const smallest_of = (values, most) => { for (const value of values) if (value < most) most = value; return most; };
  const percent = (value) => `${+(100 * value).toPrecision(2)} %`;
  const visible = (text) => text.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍").replace(/ {3,}/g, "  ");

  function firings(name, i) {
    const code = codes[name], found = [];
    if (!code) return found;
    for (let e = code.starts[i]; e < code.starts[i + 1]; e++) {
      found.push([code.token[e], code.value[e] * code.largest[i] / STEPS]);
    }
    return found;
  }
  const count_of = (i) => codes.encoder.starts[i + 1] - codes.encoder.starts[i];

  // What the list needs of every feature: its largest activations' tokens, and what to search in.
  const summary = Array.from(features, (number, i) => {
    const top = firings("encoder", i).sort((a, b) => b[1] - a[1]).slice(0, 5);
    const tokens = top.map(([token]) => words[word_at[token]]);
    let promoted = [];
    if (logits) {
      const start = 2 * data.logits.count * i;
      promoted = Array.from(logits.place.slice(start, start + data.logits.count), (p) => data.logits.unique[p]);
    }
    return {
      i, number, count: count_of(i), peak: top.length ? top[0][1] : 0, flatness: flatness[i],
      shown: [...new Set(tokens.map((text) => visible(text).trim()).filter(Boolean))].join(" · "),
      // A separator that no query holds, so that nothing matches across two tokens.
      haystack: [...tokens, ...promoted].join("\u0000").toLowerCase(),
    };
  });

  const element = (id) => document.getElementById(id);
  const orders = {
    density: (a, b) => b.count - a.count, rare: (a, b) => a.count - b.count, peak: (a, b) => b.peak - a.peak,
    flatness: (a, b) => a.flatness - b.flatness, peaked: (a, b) => b.flatness - a.flatness, number: () => 0,
  };
  let matches = [], shown = 0;

  function filter() {
    const query = element("search").value.trim().toLowerCase(), kind = element("show").value;
    const digits = /^\d+$/.test(query);
    matches = summary.filter((feature) => {
      if (kind === "live" && !feature.count || kind === "dead" && feature.count) return false;
      return !query || digits && String(feature.number).startsWith(query) || feature.haystack.includes(query);
    });
    matches.sort((a, b) => orders[element("sort").value](a, b) || a.number - b.number);
    shown = 0;
    element("rows").replaceChildren();
    const of = matches.length === summary.length ? "" : ` of ${summary.length.toLocaleString("en")}`;
    element("count").textContent = `${matches.length.toLocaleString("en")}${of} features; share of tokens on which each fires`;
    more();
  }

  function more() {
    for (const feature of matches.slice(shown, shown + PAGE)) {
      const state = feature.count ? make("span", { class: "share" }, percent(feature.count / data.encoded))
        : make("span", { class: "share dead" }, "dead");
      element("rows").append(make("li", {}, make("a", { href: `#${feature.number}` },
        make("span", { class: "number" }, String(feature.number)), state,
        make("span", { class: "token clip" }, feature.shown))));
    }
    shown = Math.min(shown + PAGE, matches.length);
    element("more").hidden = shown === matches.length;
    mark();
  }

  function mark() {
    for (const link of element("rows").querySelectorAll("a")) {
      if (link.getAttribute("href") === location.hash) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  function facts(pairs) {
    return make("div", { class: "facts" }, ...pairs.map(([name, value]) =>
      make("span", {}, `${name} `, make("b", {}, value))));
  }

  function contexts(i) {
    const fired = firings("encoder", i), strength = new Map(fired);
    const peak = largest_of(fired.map(([, value]) => Math.abs(value)), 0);
    const items = [...fired].sort((a, b) => b[1] - a[1]).slice(0, CONTEXTS).map(([token, value]) => {
      const line = make("span", { class: "context" });
      for (let t = Math.max(0, token - BEFORE); t <= Math.min(data.tokens - 1, token + AFTER); t++) {
        if (document_of[t] !== document_of[token]) continue;
        const piece = make("span", t === token ? { class: "hit" } : {}, visible(words[word_at[t]]));
        const here = strength.get(t);
        if (here > 0) {
          piece.style.background = `rgba(var(--mark), ${(0.12 + 0.5 * here / peak).toFixed(2)})`;
          piece.title = figure(here);
        }
        line.append(piece);
      }
      return make("li", {}, make("span", { class: "number" }, figure(value)), line);
    });
    return make("ol", { class: "contexts" }, ...items);
  }

  function bars(entries) {
    const largest = largest_of(entries.map(([, value]) => Math.abs(value)), 1e-30);
    const grid = make("div", { class: "bars" });
    for (const [label, value, kind] of entries) {
      const bar = make("span", { class: value < 0 ? "bar minus" : "bar" });
      bar.style.width = `${100 * Math.abs(value) / largest}%`;
      grid.append(make("span", { class: kind || "" }, label), make("span", { class: "value" }, figure(value)), bar);
    }
    return grid;
  }

  function support(i) {
    const { shown: width, scale } = data.columns, entries = [];
    for (let s = i * width; s < (i + 1) * width; s++) {
      if (values_of[s]) entries.push([`row ${rows_of[s]}`, values_of[s] * scale]);
    }
    const blocks = [];
    for (let s = 0; s < entries.length; s += 16) blocks.push(bars(entries.slice(s, s + 16)));
    // Every block has the scale of the first, which holds the largest.
    return make("div", { class: "columns" }, ...scaled(blocks, entries));
  }
  function scaled(blocks, entries) {
    const largest = Math.abs(entries.length ? entries[0][1] : 1);
    let s = 0;
    for (const block of blocks) for (const bar of block.querySelectorAll(".bar")) {
      bar.style.width = `${100 * Math.abs(entries[s++][1]) / largest}%`;
    }
    return blocks;
  }

  function effects(i) {
    const count = data.logits.count, start = 2 * count * i;
    const side = (from) => Array.from({ length: count }, (_, s) =>
      [visible(data.logits.unique[logits.place[from + s]]), logits.value[from + s], "token clip"]);
    return make("div", { class: "pair" },
      make("div", {}, make("h4", {}, "promotes"), bars(side(start))),
      make("div", {}, make("h4", {}, "suppresses"), bars(side(start + count))));
  }

  function comparison(i) {
    const limit = data.omp_limit, own = new Map(firings("encoder", i).filter(([token]) => token < limit));
    const pursued = new Map(firings("omp", i));
    const tokens = [...new Set([...own.keys(), ...pursued.keys()])];
    const points = tokens.map((token) => [own.get(token) || 0, pursued.get(token) || 0]);
    const both = points.filter(([x, y]) => x && y).length;
    const box = make("div", {}, facts([
      ["both", String(both)], ["encoder only", String(own.size - both)], ["OMP only", String(pursued.size - both)],
    ]));
    if (!points.length) return box;
    const size = 260, pad = 36, low = smallest_of(points.flat(), 0), high = largest_of(points.flat(), 0);
    const span = high - low || 1, at = (value) => (value - low) / span * size;
    const plot = draw("svg", { viewBox: `0 0 ${size + 2 * pad} ${size + 2 * pad}`, width: size + 2 * pad, role: "img",
      "aria-label": "activation by OMP against activation by the encoder, one dot a token" });
    plot.append(
      draw("line", { class: "axis", x1: pad, y1: pad + size - at(0), x2: pad + size, y2: pad + size - at(0) }),
      draw("line", { class: "axis", x1: pad + at(0), y1: pad, x2: pad + at(0), y2: pad + size }),
      draw("line", { class: "axis", x1: pad, y1: pad + size, x2: pad + size, y2: pad, "stroke-dasharray": "3 4" }),
      draw("text", { x: pad + size, y: pad + size + 26, "text-anchor": "end" }, `encoder, to ${figure(high)}`),
      draw("text", { x: 2, y: pad - 12 }, `OMP, to ${figure(high)}`),
      draw("text", { x: pad, y: pad + size + 26 }, figure(low)));
    for (const [x, y] of points.slice(0, 500)) {
      plot.append(draw("circle", { class: "dot", r: 3.2, cx: (pad + at(x)).toFixed(1), cy: (pad + size - at(y)).toFixed(1) }));
    }
    box.append(plot);
    if (points.length > 500) box.append(make("p", { class: "soft" }, `The first 500 of ${points.length} tokens are drawn.`));
    return box;
  }

  function feature(i) {
    const { number, count, peak } = summary[i], parts = [];
    parts.push(make("a", { class: "back", href: "#" }, "← all features"), make("h2", {}, `Feature ${number}`));
    const known = [["fires on", count ? `${percent(count / data.encoded)} (${count.toLocaleString("en")} tokens)` : "no token"],
      ["largest activation", figure(peak)], ["flatness β", figure(flatness[i])]];
    parts.push(facts(known));
    if (!count) parts.push(make("p", { class: "note" },
      make("span", { class: "dead" }, "Dead: "), `it never fires on the ${data.encoded.toLocaleString("en")} encoded tokens.`));
    else parts.push(make("h3", {}, "Top activating contexts"), contexts(i));
    const { width, shown: listed } = data.columns;
    parts.push(make("h3", {}, "Decoder column"), make("p", { class: "soft" }, width > listed
      ? `The ${listed} largest of its ${width} neurons, unit norm.` : "All neurons of its support, unit norm."), support(i));
    if (logits) parts.push(make("h3", {}, "Logit effects"), make("p", { class: "soft" },
      "The column through the unembedding, less the mean over the vocabulary: the direct path only, " +
      "without the layers above and without the final norm."), effects(i));
    if (codes.omp) parts.push(make("h3", {}, "Encoder against OMP"), make("p", { class: "soft" },
      `Activations on the first ${data.omp_tokens.toLocaleString("en")} encoded tokens; 0 where only the other found it.`),
      comparison(i));
    return parts;
  }

  function histogram() {
    const live = summary.filter(({ count }) => count), bins = new Array(24).fill(0);
    const lowest = Math.log10(1 / data.encoded);
    for (const { count } of live) {
      const place = 1 - Math.log10(count / data.encoded) / lowest;
      bins[Math.min(bins.length - 1, Math.floor(place * bins.length))]++;
    }
    const width = 480, height = 120, most = largest_of(bins, 1), step = width / bins.length;
    const plot = draw("svg", { viewBox: `0 0 ${width} ${height + 22}`, width, role: "img",
      "aria-label": "number of features by how often they fire" });
    bins.forEach((bin, b) => plot.append(draw("rect", { class: "column", x: (b * step + 1).toFixed(1), width: (step - 2).toFixed(1),
      y: (height - bin / most * height).toFixed(1), height: (bin / most * height).toFixed(1) })));
    plot.append(draw("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }),
      draw("text", { x: 0, y: height + 16 }, percent(1 / data.encoded)),
      draw("text", { x: width, y: height + 16, "text-anchor": "end" }, "100 % of tokens"));
    return plot;
  }

  function overview() {
    const dead = summary.filter(({ count }) => !count).length;
    const parts = [make("h2", {}, "This run"), facts([
      ["live features", (summary.length - dead).toLocaleString("en")], ["dead", dead.toLocaleString("en")]]),
      make("p", { class: "soft" }, "Choose a feature to see what it fires on, what it writes, and what OMP makes of it."),
      make("h3", {}, "How often features fire"), histogram()];
    if (data.metrics.length) {
      const body = make("tbody", {}, ...data.metrics.map((row) => make("tr", {}, make("td", {}, row.metric),
        make("td", {}, row.inference), make("td", {}, row.split), make("td", { class: "figure" }, figure(row.value)))));
      const head = make("thead", {}, make("tr", {}, ...["metric", "inference", "split", "value"].map((name) => make("th", {}, name))));
      parts.push(make("h3", {}, "Measurements"), make("div", { class: "scroll" }, make("table", {}, head, body)));
    }
    const settings = Object.entries(data.spec).map(([name, value]) => [name, String(value)]);
    if (settings.length) parts.push(make("h3", {}, "Settings"), facts(settings));
    return parts;
  }

  const place_of = new Map(Array.from(features, (number, i) => [number, i]));
  function route() {
    const i = place_of.get(Number(location.hash.slice(1) || NaN));
    element("detail").replaceChildren(...(i === undefined ? overview() : feature(i)));
    document.body.dataset.view = i === undefined ? "list" : "feature";
    if (i !== undefined) { window.scrollTo(0, 0); element("detail").focus({ preventScroll: true }); }
    mark();
  }

  const kept = data.shape.n === features.length ? "" : ` ${features.length.toLocaleString("en")} of ${data.shape.n.toLocaleString("en")} features, evenly spaced.`;
  element("about").textContent = `m = ${data.shape.m}; ${data.encoded.toLocaleString("en")} of ${data.tokens.toLocaleString("en")} tokens encoded.${kept}`;
  document.documentElement.style.setProperty("--top", `${document.querySelector("header").offsetHeight}px`);
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["search", "sort", "show"]) element(id).addEventListener("input", filter);
  element("more").addEventListener("click", more);
  window.addEventListener("hashchange", route);
  filter();
  route();
})();
