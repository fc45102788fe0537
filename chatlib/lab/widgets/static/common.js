// Shared by all widgets: make elements, and follow traits with a clean end.
function el(tag, attributes = {}, parent = null, text = undefined) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  if (parent) parent.appendChild(element);
  return element;
}
// Set only what differs: the browser lays out nothing anew, and a reader's cursor stays where it is.
function setText(element, text) { if (element.textContent !== text) element.textContent = text; }
function setAttr(element, name, value) { if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value); }
// follow(model, {trait: handler}) calls each handler now and at every change; returns what ends it.
function follow(model, handlers) {
  const pairs = Object.entries(handlers).map(([name, handler]) => [`change:${name}`, handler]);
  for (const [event, handler] of pairs) { model.on(event, handler); handler(); }
  return () => { for (const [event, handler] of pairs) model.off(event, handler); };
}
// The frame of a widget: a root with the shared looks and a line for errors (trait `error`).
// A kernel that is started again has forgotten the widget, and JupyterLab leaves the view: it says so, and clicks do no harm.
function frame(model, root, name, label) {
  const box = el("section", { class: `chatlib ${name}`, "aria-label": label }, root);
  const error = el("div", { class: "chatlib-error", role: "alert" }, box);
  const unfollow = follow(model, { error: () => setText(error, model.get("error")) });
  const gone = () => setText(error, "The kernel that made this is gone: run its cell again."), send = model.send;
  model.on("comm_live_update", gone);
  model.send = (...given) => { try { send(...given); } catch { gone(); } };
  keepKeys(box);
  return { box, end: () => { unfollow(); model.off("comm_live_update", gone); } };
}
// JupyterLab takes the keys of whatever has the focus inside a notebook (b: a new cell, Enter: edit), unless it bears this mark.
// With Ctrl or Cmd the keys remain JupyterLab's: save, undo, run.
function keepKeys(box) {
  const mark = "data-lm-suppress-shortcuts", ofLab = (event) => event.key === "Control" || event.key === "Meta";
  box.addEventListener("focusin", (event) => event.target.setAttribute(mark, "true"));
  box.addEventListener("keydown", (event) => { if (ofLab(event)) event.target.removeAttribute(mark); });
  box.addEventListener("keyup", (event) => { if (ofLab(event)) event.target.setAttribute(mark, "true"); });
}
