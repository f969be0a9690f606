"use strict";
// What the page does beyond being read: search, filters, keys, colours of tokens, values under the pointer.
// Text of a model is only ever moved as text (textContent): nothing here makes HTML from a string.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tools = document.getElementById("tools");
  const MOST_HITS = 200, FIRST_OF_ORDER = 50;

  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  // ---- curves: the values at the step under the pointer
  const round = (value) => (value === null ? "none" : Number(value.toPrecision(4)).toString());
  const nearest = (steps, step) => {
    let best = 0;
    for (let i = 1; i < steps.length; i++) if (Math.abs(steps[i] - step) < Math.abs(steps[best] - step)) best = i;
    return best;
  };
  for (const figure of document.querySelectorAll("figure[data-curve]")) {
    const [steps, values, otherSteps, otherValues] = data.curves[Number(figure.dataset.curve)];
    const told = figure.querySelector("figcaption span"), before = told.textContent, svg = figure.querySelector("svg");
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), x = ((event.clientX - box.left) / box.width) * 300;
      const all = steps.concat(otherSteps), low = Math.min(...all), high = Math.max(...all);
      const step = low + ((x - 44) / 250) * (high - low), at = nearest(steps, step);
      let text = `step ${steps[at]}: ${round(values[at])}`;
      if (otherSteps.length) text += `, the other ${round(otherValues[nearest(otherSteps, step)])}`;
      told.textContent = text;
    });
    svg.addEventListener("pointerleave", () => { told.textContent = before; });
  }

  if (!tools) return;
  const articles = [...document.querySelectorAll("#rollouts article")];
  const numbers = (article) => data.samples[Number(article.dataset.i)];
  const textOf = (article) => article.querySelector("pre.text").textContent;

  // ---- tools
  const option = ([value, text]) => make("option", { value }, text);
  const choice = (id, label, options) => {
    const select = make("select", { id }, ...options.map(option));
    tools.append(make("label", {}, label, " ", select));
    return select;
  };
  const search = make("input", { id: "search", type: "search", placeholder: "words of a prompt or completion" });
  tools.append(make("label", {}, "search ", search));
  const filter = choice("filter", "show", [
    ["all", "all samples"], ["wrong", "wrong but well-formed"], ["mixed", "mixed languages"], ["cut", "cut off"],
    ["longest", "longest"], ["high", "highest advantage"], ["low", "lowest advantage"], ["best", "highest reward"],
  ]);
  const colour = choice("colour", "colour tokens by", [
    ["none", "nothing"], ["A", "advantage"], ["e", "entropy"], ["ratio", "ratio trainer / sampler"],
    ["d", "difference trainer - sampler"], ["s", "probability"],
  ]);
  const legend = make("span", { id: "legend", class: "keys" });
  const hits = make("ol", { id: "hits" });
  const count = make("span", { id: "count" });
  tools.append(count, make("br", {}), legend, make("span", { class: "keys" },
    " Keys: j k next and previous sample, n p step, / search, f filter, t colours, c link, Esc all."), hits);

  // ---- search and filters
  const passes = { wrong: (n) => n.w, mixed: (n) => n.m, cut: (n) => n.u };
  const orders = {
    longest: (n) => n.n, high: (n) => n.a, low: (n) => (n.a === null ? null : -n.a), best: (n) => n.r,
  };
  let found = articles, at = -1;
  const chosen = () => {
    const kind = filter.value, words = search.value.toLowerCase();
    let kept = articles;
    if (passes[kind]) kept = kept.filter((article) => passes[kind](numbers(article)));
    if (words) {
      kept = kept.filter((article) => {
        const group = article.closest(".group"), prompt = group ? group.querySelector("pre.text").textContent : "";
        return textOf(article).toLowerCase().includes(words) || prompt.toLowerCase().includes(words);
      });
    }
    if (orders[kind]) {
      const worth = (article) => orders[kind](numbers(article));
      kept = kept.filter((article) => worth(article) !== null).sort((a, b) => worth(b) - worth(a)).slice(0, FIRST_OF_ORDER);
    }
    return kept;
  };
  const summary = (article) => {
    const n = numbers(article), text = textOf(article).slice(0, 160).replace(/\s+/g, " ");
    const advantage = n.a === null ? "" : `, advantage ${round(n.a)}`;
    return make("li", {}, make("a", { href: `#${article.id}` }, article.id), make("bdi", {},
      ` reward ${n.r === null ? "none" : round(n.r)}${advantage}, ${n.n} tokens: ${text}`));
  };
  const apply = () => {
    found = chosen();
    at = -1;
    const all = found === articles, kept = new Set(found);
    for (const article of articles) article.classList.toggle("out", !kept.has(article));
    for (const box of document.querySelectorAll("#rollouts .group, #rollouts .step")) {
      box.classList.toggle("out", !all && !box.querySelector("article:not(.out)"));
    }
    count.textContent = all ? "" : `${found.length} samples`;
    hits.replaceChildren(...(all ? [] : found.slice(0, MOST_HITS).map(summary)));
    if (!all) document.getElementById("rollouts").scrollIntoView();
  };
  filter.addEventListener("change", apply);
  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 150); });

  // ---- colours of tokens
  const LEGENDS = {
    none: "", A: "advantage: blue above 0, orange below; full colour at 2.", e: "entropy in nats: full colour at 2.",
    ratio: "exp(trainer - sampler): blue above 1, orange below; full colour at a factor of 1.2.",
    d: "log-prob of the trainer minus that of the sampler, in nats: blue above 0, orange below; full colour at 0.05.",
    s: "log-prob at sampling: the less likely, the fuller; full colour at -3 nats.",
  };
  const FULL = { A: 2, e: 2, ratio: Math.log(1.2), d: 0.05, s: 3 };
  const SIGNED = ["A", "ratio", "d"];
  const UNIT = { A: 1e-3, e: 1e-3, s: 1e-3, d: 1e-4, ratio: 1e-4 };
  const column = (n, mode) => n[mode === "ratio" ? "d" : mode];
  const value = (n, mode, i) => {
    const values = column(n, mode), one = Array.isArray(values) ? values[i] : values;
    return one === undefined || one === null ? null : one * UNIT[mode];
  };
  const shade = (number_, mode) => {
    const strength = Math.min(1, Math.abs(number_) / FULL[mode]) * 0.75;
    const hue = !SIGNED.includes(mode) ? "125, 70, 190" : number_ >= 0 ? "40, 110, 220" : "235, 130, 20";
    return `rgba(${hue}, ${strength.toFixed(3)})`;
  };
  const hint = (n, i) => {
    const names = [["s", "log-prob at sampling"], ["d", "trainer minus sampler"], ["e", "entropy"], ["A", "advantage"]];
    const told = names.map(([mode, name]) => [name, value(n, mode, i)]).filter(([, number_]) => number_ !== null);
    const ratio = value(n, "ratio", i);
    if (ratio !== null) told.push(["ratio", Math.exp(ratio)]);
    return [`token ${i}`, ...told.map(([name, number_]) => `${name} ${round(number_)}`)].join("\n");
  };
  // Wraps the text of each token in a span, by cutting the text nodes: the marks of unseen characters stay what they are.
  const cut = (pre, n) => {
    const walker = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT), nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    let token = 0, left = n.t[0];
    for (const node of nodes) {
      const text = node.data, pieces = document.createDocumentFragment();
      let from = 0;
      while (from < text.length && token < n.t.length) {
        while (left === 0 && token < n.t.length) left = n.t[++token];
        if (token >= n.t.length) break;
        const piece = make("span", { class: "token", "data-t": token }, text.slice(from, from + left));
        pieces.append(piece);
        from += piece.textContent.length;
        left -= piece.textContent.length;
      }
      if (from < text.length) pieces.append(text.slice(from));
      node.replaceWith(pieces);
    }
  };
  const paint = (article) => {
    const mode = colour.value, n = numbers(article), pieces = article.querySelector("pre.pieces");
    if (!n.t) return;
    if (pieces) pieces.hidden = mode === "none";
    const pre = pieces || article.querySelector("pre.text");
    if (mode !== "none" && !pre.querySelector(".token")) cut(pre, n);
    for (const span of pre.querySelectorAll(".token")) {
      const i = Number(span.dataset.t), number_ = mode === "none" ? null : value(n, mode, i);
      span.style.backgroundColor = number_ === null ? "" : shade(number_, mode);
      span.title = mode === "none" ? "" : hint(n, i);
    }
  };
  const visible = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { visible.add(entry.target); paint(entry.target); } else visible.delete(entry.target);
    }
  });
  const watch = (box) => { for (const article of box.querySelectorAll("article[data-i]")) observer.observe(article); };
  document.addEventListener("toggle", (event) => { if (event.target.open) watch(event.target); }, true);
  colour.addEventListener("change", () => {
    legend.textContent = LEGENDS[colour.value];
    visible.forEach(paint);
  });

  // ---- going to a place, by link or by key
  const show = (node) => {
    for (let box = node.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    for (const old of document.querySelectorAll("article.at")) old.classList.remove("at");
    if (node.matches("article")) { node.classList.add("at"); node.focus({ preventScroll: true }); }
    document.documentElement.style.scrollPaddingTop = `${tools.offsetHeight + 8}px`; // what stays above is no place to be seen
    const scroll = () => node.scrollIntoView({ block: node.offsetHeight > innerHeight / 2 ? "start" : "nearest", inline: "nearest" });
    scroll();
    requestAnimationFrame(scroll); // once more: groups that come into sight take their true height
  };
  const follow = () => {
    const node = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!node) return;
    if (node.classList.contains("out") || node.closest(".out")) { filter.value = "all"; search.value = ""; apply(); }
    show(node);
    at = found.indexOf(node);
  };
  addEventListener("hashchange", follow);
  const go = (by) => {
    if (!found.length) return;
    at = Math.max(0, Math.min(found.length - 1, at + by));
    show(found[at]);
    history.replaceState(null, "", `#${found[at].id}`);
  };
  const goStep = (by) => {
    const steps = [...document.querySelectorAll("#rollouts .step:not(.out)")];
    const here = found[at] ? steps.indexOf(found[at].closest(".step")) : -1;
    const to = steps[Math.max(0, Math.min(steps.length - 1, here + by))];
    if (!to) return;
    at = found.indexOf(to.querySelector("article:not(.out)")) - 1;
    go(1);
  };
  const next = (select) => {
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    select.dispatchEvent(new Event("change"));
  };
  const clear = () => { filter.value = "all"; search.value = ""; search.blur(); apply(); };
  const keys = {
    j: () => go(1), k: () => go(-1), n: () => goStep(1), p: () => goStep(-1), f: () => next(filter), t: () => next(colour),
    "/": () => search.focus(), c: () => navigator.clipboard && navigator.clipboard.writeText(location.href), Escape: clear,
  };
  addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select") && event.key !== "Escape";
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  if (location.hash) follow();
})();
