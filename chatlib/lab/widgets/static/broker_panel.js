// Rows with a lamp and buttons, and a log: made once, then only what differs is set, so that the focus stays where it is.
function render({ model, el: root }) {
  const { box, end } = frame(model, root, "broker-panel", model.get("title"));
  const title = el("h4", {}, box);
  const rows = el("div", { class: "rows" }, box);
  const hint = el("p", { class: "hint" }, box);
  const waits = el("p", { class: "hint", role: "status" }, box);
  const log = el("ul", { class: "log", tabindex: "0", role: "log", "aria-label": "What happened, newest first" }, box);
  const nothing = el("li", { class: "nothing" }, log, "Nothing happened yet.");
  const made = new Map();  // key -> the elements of its row
  let number = model.get("heard");
  let asked = null;  // the click that the kernel has not heard yet: {key, action, number}
  let patience = 0;

  function click(key, action, button) {
    if (asked || button.getAttribute("aria-disabled") === "true") return;
    number = Math.max(number, model.get("heard")) + 1; // another view of this panel counts, too
    asked = { key, action, number };
    model.send({ key, action, number });
    button.setAttribute("aria-busy", "true");
    clearTimeout(patience);
    patience = setTimeout(() => setText(waits, "The kernel is busy with a cell: what you clicked is done as soon as it is free."), 1500);
  }
  function heard() {
    if (!asked || model.get("heard") < asked.number) return;
    asked = null;
    clearTimeout(patience);
    setText(waits, "");
    showRows();
  }
  function makeRow(key) {
    const row = el("div", { class: "row", role: "group" }, rows);
    const how = el("div", { class: "how" }, row);
    const lamp = el("span", { class: "lamp", "aria-hidden": "true" }, how);
    const word = el("span", { class: "word", role: "status" }, how);
    const name = el("span", { class: "name" }, how);
    const buttons = el("div", { class: "buttons" }, row);
    return { row, lamp, word, name, buttons, all: [] };
  }
  function showRows() {
    for (const each of model.get("rows")) {
      if (!made.has(each.key)) made.set(each.key, makeRow(each.key));
      const parts = made.get(each.key);
      setAttr(parts.row, "aria-label", each.name);
      setAttr(parts.row, "data-key", each.key);
      setAttr(parts.row, "data-state", each.state);
      setAttr(parts.lamp, "class", `lamp ${each.state}`);
      setText(parts.lamp, each.sign);
      setText(parts.word, each.word);
      setText(parts.name, [each.name, each.busy ? `${each.busy} is under way` : each.since].filter(Boolean).join(", "));
      each.buttons.forEach((button, index) => {
        if (!parts.all[index]) {
          const one = el("button", { type: "button" }, parts.buttons);
          one.addEventListener("click", () => click(each.key, one.dataset.action, one));
          parts.all[index] = one;
        }
        const one = parts.all[index];
        const waiting = asked && asked.key === each.key && asked.action === button.action;
        setAttr(one, "data-action", button.action);
        setAttr(one, "title", button.hint);
        setAttr(one, "aria-disabled", String(!button.enabled));
        setAttr(one, "aria-busy", String(Boolean(button.busy || waiting)));
        setText(one, button.label);
      });
    }
  }
  function showLines() {
    const lines = model.get("lines");
    nothing.hidden = lines.length > 0;
    const there = new Set(lines.map((line) => String(line.number)));
    for (const item of [...log.children]) if (item !== nothing && !there.has(item.dataset.number)) item.remove();
    const newest = Number(log.querySelector("li[data-number]")?.dataset.number ?? 0);
    for (const line of lines.filter((each) => each.number > newest).reverse()) {
      const item = el("li", { class: line.kind, "data-number": line.number });
      el("time", {}, item, line.at);
      el("span", { class: "mark", "aria-hidden": "true" }, item, line.mark);
      el("span", { class: "text" }, item, line.text);
      log.prepend(item);
    }
  }
  const stop = follow(model, {
    title: () => setText(title, model.get("title")),
    hint: () => setText(hint, model.get("hint")),
    rows: showRows,
    lines: showLines,
    heard,
  });
  return () => { clearTimeout(patience); stop(); end(); };
}
export default { render };
