// The map: boxes and lines come laid out from Python, here they are drawn, kept up to date piece by piece, and made to answer.
const NS = "http://www.w3.org/2000/svg";
const GLYPHS = { receipt: "✓", retry: "↻", again: "↻", dead: "✕", returned: "✕" };
const GRID = { x: 150, w: 118, h: 24, columns: 7, most: 210 };
let views = 0;

function svgEl(tag, attributes, parent, text) {
  const element = document.createElementNS(NS, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.appendChild(element);
  return element;
}
function whole(n) { return Math.round(n).toLocaleString("en"); }
// As much of a number as fits into a box; the details have all of it.
function rounded(n) { return n >= 10000 ? `${(n / 1000).toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 })}k` : whole(n); }
function depthWords([ready, unacked], { kind, state }, show = rounded) {
  if (kind === "sender") return unacked ? `${show(unacked)} pending` : `${show(ready)} sent`;
  if (state === "history") return `${show(ready)} kept`;
  const words = ready ? [`${show(ready)} ready`] : [];
  if (unacked) words.push(`${show(unacked)} unacked`);
  return words.join(" · ") || "empty";
}
function fullness([ready, unacked]) { return Math.min(1, Math.log10(1 + ready + unacked) / 4); }

// Draw one box; what may change later is kept in `parts`.
function makeBox(box, layer) {
  const group = svgEl("g", { "data-id": box.id }, layer);
  const parts = { group, rect: svgEl("rect", {}, group) };
  if (box.kind === "sender" || box.kind === "consumer") {
    parts.icon = svgEl("g", { class: "icon" }, group);
    svgEl("circle", { cx: 0, cy: -5, r: 3.6 }, parts.icon);
    svgEl("path", { d: "M-6.5,7 a6.5,6.5 0 0 1 13,0 z" }, parts.icon);
  }
  if (box.kind === "queue" || box.kind === "more") parts.bar = svgEl("rect", { class: "bar", height: 3, rx: 1.5 }, group);
  parts.label = svgEl("text", { class: "label" }, group);
  parts.sub = svgEl("text", { class: "sub" }, group);
  return parts;
}
function placeBox(parts, box) {
  const centred = ["exchange", "hub", "pill"].includes(box.kind), person = parts.icon !== undefined;
  const x = centred ? box.w / 2 : person ? 30 : 12, counts = parts.bar || box.kind === "sender", single = !box.sub && !counts;
  setAttr(parts.group, "class", `box ${box.kind} ${box.state} t${box.tint}`);
  setAttr(parts.group, "transform", `translate(${box.x},${box.y})`);
  for (const [name, value] of [["width", box.w], ["height", box.h], ["rx", box.kind === "exchange" || box.kind === "pill" ? box.h / 2 : person ? 10 : 5]])
    setAttr(parts.rect, name, value);
  if (person) setAttr(parts.icon, "transform", `translate(16,${box.h / 2 + 0.5})`);
  if (parts.bar) { setAttr(parts.bar, "x", 3); setAttr(parts.bar, "y", box.h - 5.5); }
  setAttr(parts.label, "x", x); setAttr(parts.label, "y", single ? box.h / 2 + 4 : 15);
  setAttr(parts.sub, "x", x); setAttr(parts.sub, "y", 28);
  setText(parts.label, box.label);
  if (!counts) setText(parts.sub, box.sub);
}

function render({ model, el: root }) {
  const { box: page, end } = frame(model, root, "topology-map", "Map of the broker");
  const uid = `map${++views}`;
  const details = el("div", { class: "details" }, page);
  const title = el("div", { class: "title" }, details), facts = el("dl", {}, details);
  const note = el("div", { class: "note", role: "status" }, page);
  const scroll = el("div", { class: "scroll" }, page);
  const svg = svgEl("svg", { role: "group" }, null); scroll.appendChild(svg);
  const defs = svgEl("defs", {}, svg);
  for (let tint = 0; tint < 7; tint++) {
    const marker = svgEl("marker", { id: `${uid}-${tint}`, viewBox: "0 0 8 8", refX: 7.4, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: "userSpaceOnUse", orient: "auto", class: `head t${tint}` }, defs);
    svgEl("path", { d: "M0,0.6 L8,4 L0,7.4 z" }, marker);
  }
  const layers = Object.fromEntries(["heads", "lines", "keys", "boxes", "grid", "dots"].map((name) => [name, svgEl("g", { class: name }, svg)]));
  const hint = el("div", { class: "legend", "aria-hidden": "true" }, page);
  for (const [glyph, words, kind] of [["●", "message", "message"], ["✓", "receipt", "receipt"], ["↻", "retry", "retry"], ["✕", "dead letter, or returned", "dead"]]) {
    const item = el("span", {}, hint); el("b", { class: kind }, item, glyph); item.append(` ${words}`);
  }
  el("span", {}, hint, "bar: how full, on a logarithmic scale");

  const drawn = new Map(), lines = new Map(), data = new Map(), heads = new Map();
  let unfolded = false, pointed = null, focused = null, stop = 0;
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

  // ---- boxes and lines
  // Whoever is looked at by keyboard may get another place, or go: the keyboard follows, or stays near.
  function keepFocus(draw) {
    const id = focused;
    draw();
    if (id && !svg.contains(svg.getRootNode().activeElement)) focusOn(drawn.has(id) || cells.has(id) ? id : drawn.has("q:more") ? "q:more" : last);
  }
  function redraw() { keepFocus(drawBoxes); } // boxes, folded and frame come together, in any order
  function drawBoxes() {
    const boxes = model.get("boxes"), here = new Set(boxes.map((each) => each.id));
    for (const [id, parts] of drawn) if (!here.has(id)) { parts.group.remove(); drawn.delete(id); data.delete(id); }
    for (const each of boxes) {
      let parts = drawn.get(each.id);
      if (!parts) {
        parts = makeBox(each, layers.boxes); drawn.set(each.id, parts);
        setAttr(parts.group, "role", each.id === "q:more" ? "button" : "img");
      }
      data.set(each.id, each); placeBox(parts, each);
    }
    if (!here.has("q:more")) unfolded = false;
    drawGrid(); drawFigures(); tabStop(); showDetails();
  }
  function drawLines() {
    const now = model.get("lines"), here = new Set(now.map((each) => each.id));
    for (const [id, parts] of lines) if (!here.has(id)) { parts.path.remove(); parts.key.remove(); lines.delete(id); }
    for (const each of now) {
      let parts = lines.get(each.id);
      if (!parts) { parts = { path: svgEl("path", {}, layers.lines), key: svgEl("text", {}, layers.keys) }; lines.set(each.id, parts); }
      parts.ends = each.ends;
      setAttr(parts.path, "d", each.d); setAttr(parts.path, "class", `line ${each.kind} t${each.tint}`);
      setAttr(parts.path, "marker-end", each.arrow ? `url(#${uid}-${each.tint})` : "none");
      setAttr(parts.key, "x", each.lx); setAttr(parts.key, "y", each.ly); setAttr(parts.key, "class", "key");
      setText(parts.key, each.label);
    }
    light();
  }
  function drawFrame() {
    const { left = 0, width = 1000, height = 100, heads: columns = [], summary = "" } = model.get("frame");
    const extra = unfolded ? gridHeight() : 0;
    setAttr(svg, "viewBox", `${left} 0 ${width - left} ${height + extra}`);
    setAttr(svg, "aria-label", summary);
    const here = new Set(columns.map(([kind]) => kind));
    for (const [kind, text] of heads) if (!here.has(kind)) { text.remove(); heads.delete(kind); }
    for (const [kind, x, words] of columns) {
      if (!heads.has(kind)) heads.set(kind, svgEl("text", { class: "head", y: 16 }, layers.heads));
      setAttr(heads.get(kind), "x", x); setText(heads.get(kind), words);
    }
  }
  function drawFigures() {
    const figures = model.get("figures");
    for (const [id, parts] of drawn) {
      const each = data.get(id), found = figures[id] ?? [0, 0];
      if (each.kind === "sender") {
        setText(parts.sub, depthWords(found, each)); parts.group.classList.toggle("pending", found[1] > 0);
      } else if (parts.bar) {
        setText(parts.sub, each.kind === "more" ? `${unfolded ? "▾" : "▸"} ${depthWords(found, each)}` : depthWords(found, each));
        setAttr(parts.bar, "width", Math.round((each.w - 6) * fullness(found)));
        parts.group.classList.toggle("full", found[0] + found[1] > 0);
        parts.group.classList.toggle("alert", each.state === "dead" && found[0] > 0);
      }
      setAttr(parts.group, "aria-label", spoken(each, found));
    }
    for (const [id, parts] of cells) {
      const found = figures[id] ?? [0, 0], count = found[0] + found[1];
      setText(parts.count, count ? whole(count) : "");
      parts.group.classList.toggle("full", count > 0);
      setAttr(parts.group, "aria-label", spoken(data.get(id), found));
    }
    if (current()) showDetails();
  }
  function spoken(each, found) {
    const kind = { queue: each.state === "inbox" ? "inbox" : "queue", member: "inbox", more: "folded queues", pill: "exchange", hub: "key", consumer: "receives:", sender: "sends:" }[each.kind] ?? each.kind;
    const words = ["queue", "more", "member", "sender"].includes(each.kind) ? depthWords(found, each) : each.sub;
    return `${kind} ${each.label}${words ? `, ${words}` : ""}`;
  }

  // ---- what is folded
  const cells = new Map();
  function gridHeight() { return Math.ceil(Math.min(model.get("folded").length, GRID.most + 1) / GRID.columns) * (GRID.h + 4) + 10; }
  function drawGrid() {
    const members = unfolded ? model.get("folded").slice(0, GRID.most) : [], here = new Set(members.map((each) => each.id));
    for (const [id, parts] of cells) if (!here.has(id)) { parts.group.remove(); cells.delete(id); if (!drawn.has(id)) data.delete(id); }
    const top = model.get("frame").height ?? 0;
    members.forEach((each, number) => {
      let parts = cells.get(each.id);
      if (!parts) {
        const group = svgEl("g", { "data-id": each.id, role: "img" }, layers.grid);
        parts = { group, rect: svgEl("rect", { width: GRID.w - 4, height: GRID.h, rx: 4 }, group), mark: svgEl("circle", { cx: 11, cy: 12, r: 3.6 }, group), label: svgEl("text", { class: "label", x: 20, y: 16 }, group), count: svgEl("text", { class: "count", x: GRID.w - 11, y: 16 }, group) };
        cells.set(each.id, parts);
      }
      const x = GRID.x + (number % GRID.columns) * GRID.w, y = top + Math.floor(number / GRID.columns) * (GRID.h + 4);
      data.set(each.id, { ...each, kind: "member", x, y, w: GRID.w - 4, h: GRID.h });
      setAttr(parts.group, "class", `box member ${each.state}`); setAttr(parts.group, "transform", `translate(${x},${y})`);
      setText(parts.label, each.label);
    });
    const more = drawn.get("q:more");
    if (more) setAttr(more.group, "aria-expanded", unfolded);
    drawFrame();
  }
  function unfold() { unfolded = !unfolded; drawGrid(); drawFigures(); tabStop(); }

  // ---- details: in a place of their own, which never moves
  function current() { return pointed ?? focused; }
  function showDetails() {
    const each = data.get(current());
    const pairs = each ? [...each.about] : [];
    const counted = each && ["queue", "more", "member", "sender"].includes(each.kind);
    if (counted) {
      const rates = model.get("rates")[each.id];
      const flow = rates ? `; ${rates[0].toFixed(1)} in and ${rates[1].toFixed(1)} out a second` : "";
      const found = model.get("figures")[each.id] ?? [0, 0];
      pairs.splice(1, 0, ["now", each.kind === "sender" ? `${whole(found[0])} sent, ${whole(found[1])} not confirmed` : depthWords(found, each, whole) + flow]);
    }
    details.classList.toggle("empty", !each);
    setText(title, each ? (pairs[0] ?? ["", each.label]).join(": ") : "Point at anything, or come by Tab and the arrow keys, to see what it is.");
    const rest = pairs.slice(1);
    while (facts.children.length > rest.length) facts.lastChild.remove();
    rest.forEach(([word, text], number) => {
      const item = facts.children[number] ?? el("div", {}, facts);
      if (!item.children.length) { el("dt", {}, item); el("dd", {}, item); }
      setText(item.children[0], word); setText(item.children[1], text);
    });
  }
  function light() {
    const id = current();
    svg.classList.toggle("lit", Boolean(id && data.get(id)?.kind !== "member"));
    for (const parts of lines.values()) {
      const hot = Boolean(id && parts.ends.includes(id));
      parts.path.classList.toggle("hot", hot); parts.key.classList.toggle("hot", hot);
    }
  }
  function show() { showDetails(); light(); }
  const idOf = (event) => event.target.closest?.("[data-id]")?.dataset.id ?? null;
  svg.addEventListener("pointerover", (event) => { const id = idOf(event); if (id !== pointed) { pointed = id; show(); } });
  svg.addEventListener("pointerleave", () => { pointed = null; show(); });
  svg.addEventListener("click", (event) => { const id = idOf(event); if (id) { focusOn(id); if (id === "q:more") unfold(); } });
  svg.addEventListener("focusin", (event) => { focused = idOf(event); pointed = null; show(); });
  svg.addEventListener("focusout", () => { focused = null; show(); });

  // ---- keyboard: one stop for Tab, from there the arrow keys
  function groups() { return [...drawn.entries(), ...cells.entries()]; }
  let last = null;
  function tabStop() {
    if (!data.has(last)) last = model.get("boxes")[0]?.id ?? null;
    for (const [id, parts] of groups()) setAttr(parts.group, "tabindex", id === last ? 0 : -1);
  }
  function focusOn(id) {
    const parts = drawn.get(id) ?? cells.get(id);
    if (parts) { last = id; tabStop(); parts.group.focus({ preventScroll: true }); }
  }
  const STEPS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  svg.addEventListener("keydown", (event) => {
    const from = data.get(focused);
    if (!from) return;
    if ((event.key === "Enter" || event.key === " ") && from.id === "q:more") unfold();
    else if (event.key === "Escape" && unfolded) { unfold(); focusOn("q:more"); }
    else if (event.key in STEPS) step(from, ...STEPS[event.key]);
    else return;
    event.preventDefault(); event.stopPropagation();
  });
  function step(from, dx, dy) {
    let best = null, least = Infinity;
    for (const [id] of groups()) {
      const to = data.get(id);
      const x = to.x + to.w / 2 - from.x - from.w / 2, y = to.y + to.h / 2 - from.y - from.h / 2;
      const ahead = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (to.id === from.id || ahead < 6 || (dy && aside > ahead * 4)) continue;
      const cost = ahead + aside * (dx ? 2 : 3);
      if (cost < least) { least = cost; best = id; }
    }
    if (best) focusOn(best);
  }

  // ---- messages on their way
  let dots = [];
  function onMessage(message) {
    if (message.type !== "fly" || calm.matches || document.hidden) return;
    const now = performance.now();
    for (const { d, kind, delay, ms } of message.flights) dots.push({ d, kind, from: now + delay, ms });
    if (dots.length > 400) dots = dots.slice(-400);
    page.dataset.flown = Number(page.dataset.flown ?? 0) + message.flights.length;
    if (!stop) stop = requestAnimationFrame(move);
  }
  function move(now) {
    dots = dots.filter((dot) => {
      if (now < dot.from) return true;
      if (!dot.shape) {
        dot.path = svgEl("path", { d: dot.d }, null); dot.length = dot.path.getTotalLength();
        dot.shape = GLYPHS[dot.kind] ? svgEl("text", { class: `dot ${dot.kind}` }, layers.dots, GLYPHS[dot.kind]) : svgEl("circle", { class: `dot ${dot.kind}`, r: 4 }, layers.dots);
      }
      const part = Math.min(1, (now - dot.from) / dot.ms), eased = part * part * (3 - 2 * part);
      if (part >= 1) { dot.shape.remove(); return false; }
      const { x, y } = dot.path.getPointAtLength(dot.length * eased);
      dot.shape.setAttribute("transform", `translate(${x.toFixed(1)},${y.toFixed(1)})`);
      return true;
    });
    stop = dots.length ? requestAnimationFrame(move) : 0;
  }

  function drawNote() {
    const text = model.get("note");
    setText(note, text); page.classList.toggle("gone", text !== "");
  }
  model.on("msg:custom", onMessage);
  const unfollow = follow(model, { boxes: redraw, lines: drawLines, folded: redraw, frame: redraw, figures: drawFigures, rates: showDetails, note: drawNote });
  return () => { unfollow(); end(); model.off("msg:custom", onMessage); if (stop) cancelAnimationFrame(stop); };
}
export default { render };
