// A chat room: a pane for each person. Drawn by patching: what somebody types in or reads is never made anew.
const SVG = "http://www.w3.org/2000/svg";
const BUSY_AFTER = 1500; // ms without an answer, after which it is said that the kernel is busy
const PATHS = { // ticks as drawings: fonts differ in what they have
  pending: ["M8 2.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11", "M8 5v3.2l2.2 1.6"],
  confirmed: ["M4 8.5l3 3l6-7"],
  delivered: ["M1 8.5l3 3l6-7", "M7.5 10.5l1 1l6-7"],
  read: ["M1 8.5l3 3l6-7", "M7.5 10.5l1 1l6-7"],
  failed: ["M4 4l8 8", "M12 4l-8 8"],
  group: ["M5 2.5l-1.4 11", "M12 2.5l-1.4 11", "M2.5 6h11.5", "M2 10.3h11.5"],
  person: ["M8 2.5a2.7 2.7 0 1 0 0 5.4a2.7 2.7 0 1 0 0-5.4", "M2.8 13.8c.6-3 2.6-4.3 5.2-4.3s4.6 1.3 5.2 4.3"],
};
function draw(icon, kind) {
  if (icon.dataset.kind === kind) return;
  icon.dataset.kind = kind;
  icon.replaceChildren(...(PATHS[kind] ?? []).map((d) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    return path;
  }));
}
function icon(parent, kind = "") {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 16 16");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  parent.appendChild(drawing);
  draw(drawing, kind);
  return drawing;
}
function setClass(element, name, on) { if (element.classList.contains(name) !== on) element.classList.toggle(name, on); }
function setHidden(element, hidden) { if (element.hidden !== hidden) element.hidden = hidden; }
const segmenter = Intl.Segmenter ? new Intl.Segmenter() : null;
function initial(name) { return (segmenter ? segmenter.segment(name)[Symbol.iterator]().next().value.segment : [...name][0]).toUpperCase(); }
function clock(at) { return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }); }
// In a notebook Enter does not submit a form by itself; while a word is being composed (Chinese, Japanese) it belongs to the word.
function onEnter(form) {
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || !event.target.matches("input")) return;
    event.preventDefault();
    form.requestSubmit();
  });
}
let clicks = 0;
function clickNumber() { clicks += 1; return `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}-${clicks}`; }

// One line of a conversation.
function makeBubble(parent) {
  const box = el("div", { class: "bubble" });
  const who = el("bdi", { class: "who" }, box);
  const text = el("div", { class: "text", dir: "auto" }, box);
  const meta = el("div", { class: "meta" }, box);
  const when = el("time", {}, meta);
  const mark = icon(meta);
  const words = el("span", { class: "words" }, meta);
  function show(message, own, group) {
    setClass(box, "own", own);
    setText(who, own || !group ? "" : message.from);
    who.style.setProperty("--hue", message.hue);
    setText(text, message.text);
    setText(when, clock(message.at));
    setAttr(when, "title", new Date(message.at).toLocaleString());
    draw(mark, own ? message.kind : "");
    setText(words, own ? message.words : "");
    setAttr(box, "data-kind", own ? message.kind : "");
    setAttr(meta, "title", own ? message.why : "");
  }
  parent.appendChild(box);
  return { box, show };
}

function makePane(root, index, model, id) {
  const box = el("article", { class: "pane" }, root);
  const heading = el("header", {}, box);
  const avatar = el("span", { class: "avatar", "aria-hidden": "true" }, heading);
  const title = el("div", { class: "title" }, heading);
  const name = el("bdi", { class: "name" }, title);
  const status = el("span", { class: "status", "aria-live": "polite" }, title);
  const toggle = el("button", { class: "switch", role: "switch", type: "button" }, heading);
  el("span", { class: "knob", "aria-hidden": "true" }, toggle);
  const toggleWord = el("span", {}, toggle);
  const bar = el("div", { class: "bar" }, box);
  const tabs = el("div", { class: "tabs", role: "tablist" }, bar);
  const plus = el("button", { class: "plus", type: "button", title: "open or join another conversation", "aria-expanded": "false" }, tabs, "+");
  el("span", { class: "for-readers" }, plus, " another conversation");
  const other = el("form", { class: "other" }, bar);
  const otherLabel = el("label", {}, other);
  el("span", {}, otherLabel, "@person or #group");
  const otherInput = el("input", { type: "text", autocomplete: "off", spellcheck: "false" }, otherLabel);
  el("button", { type: "submit" }, other, "Open");
  const otherJoin = el("button", { type: "button" }, other, "Join");
  const about = el("div", { class: "about" }, box);
  const aboutText = el("span", { class: "about-text", dir: "auto" }, about);
  const member = el("button", { type: "button", class: "quiet" }, about);
  const body = el("div", { class: "body" }, box);
  const talk = el("div", { class: "talk", role: "log", tabindex: "0", id: `${id}-talk` }, body);
  const empty = el("div", { class: "empty" }, talk);
  const newest = el("button", { type: "button", class: "newest" }, body, "↓ newest");
  const notice = el("div", { class: "notice", role: "alert" }, body);
  const form = el("form", { class: "say" }, box);
  const input = el("input", { type: "text", autocomplete: "off", dir: "auto" }, form);
  const button = el("button", { type: "submit" }, form, "Send");
  other.hidden = newest.hidden = true;

  const tabOf = new Map();     // by address
  const bubbleOf = new Map();  // by id, of the conversation that is open
  let pane = null, open = "", openThere = null, shown = null, near = true;
  let queue = [];              // typed here, and not answered by the kernel
  let acts = [];               // clicked here, and not answered: {number, what}
  let choice = "";             // the last conversation chosen here, until it is answered: what is said there meanwhile is older
  let complaint = "";          // what was wrong with what was typed here
  let dismissed = "";          // number of the answer that has been read
  let timer = 0;

  function ask(content) { model.send({ pane: index, ...content }); }
  function choose(address) {
    open = address;
    near = true;
    complaint = "";
    choice = clickNumber();
    ask({ do: "open", number: choice, to: address });
    draw_();
  }
  function complain(text) { complaint = text; draw_(); }
  function act(content, what) {
    const number = clickNumber();
    complaint = "";
    acts.push({ number, what });
    ask({ number, ...content });
    draw_();
  }

  for (const each of [form, other]) onEnter(each);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value;
    if (!text.trim() || !open) return;
    const number = clickNumber();
    queue.push({ number, to: open, text, at: Date.now() });
    ask({ do: "send", number, to: open, text });
    input.value = "";
    near = true;
    clearTimeout(timer);
    timer = setTimeout(draw_, BUSY_AFTER + 50);
    draw_();
  });
  toggle.addEventListener("click", () => act({ do: "online", on: !pane.online }, pane.online ? "going away" : "coming online"));
  member.addEventListener("click", () => {
    const here = pane.conversations.find((each) => each.address === open);
    if (here) act({ do: here.member ? "leave" : "join", group: open }, here.member ? "leaving" : "joining");
  });
  function unfold(on) {
    other.hidden = !on;
    setAttr(plus, "aria-expanded", on);
    if (!on) forgive();
    if (on) otherInput.focus(); else plus.focus();
  }
  function elsewhere(event) { // a click beside it folds it, and leaves the focus where the click puts it
    const path = event.composedPath();
    if (other.hidden || path.includes(other) || path.includes(plus)) return;
    other.hidden = true;
    setAttr(plus, "aria-expanded", false);
    forgive();
  }
  document.addEventListener("pointerdown", elsewhere, true);
  plus.addEventListener("click", () => unfold(other.hidden));
  other.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.stopPropagation(); unfold(false); } });
  other.addEventListener("submit", (event) => {
    event.preventDefault();
    const address = otherInput.value.trim();
    if (!/^[@#]./u.test(address)) { complain("an address is @person or #group: say which by its first character"); return; }
    choose(address);
    otherInput.value = "";
    unfold(false);
    input.focus();
  });
  otherJoin.addEventListener("click", () => {
    const address = otherInput.value.trim();
    if (!/^#./u.test(address)) { complain("only groups can be joined: write #group"); return; }
    act({ do: "join", group: address }, "joining");
    otherInput.value = "";
    unfold(false);
  });
  tabs.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = [...tabOf.keys()].indexOf(open);
    if (!step || at < 0 || !event.target.matches("[role=tab]")) return;
    event.preventDefault();
    const next = [...tabOf.keys()][(at + step + tabOf.size) % tabOf.size];
    choose(next);
    tabOf.get(next).tab.focus();
  });
  talk.addEventListener("scroll", () => {
    near = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 30;
    setHidden(newest, near);
  });
  newest.addEventListener("click", () => { near = true; talk.scrollTop = talk.scrollHeight; talk.focus(); });

  function drawTabs() {
    for (const each of pane.conversations) {
      let known = tabOf.get(each.address);
      if (!known) {
        const tab = el("button", { role: "tab", type: "button", "aria-controls": `${id}-talk` });
        icon(tab, each.address[0] === "#" ? "group" : "person");
        el("bdi", {}, tab, each.address.slice(1));
        const badge = el("span", { class: "badge" }, tab);
        tab.addEventListener("click", () => choose(each.address));
        tabs.insertBefore(tab, plus);
        known = { tab, badge };
        tabOf.set(each.address, known);
      }
      const isOpen = each.address === open;
      setAttr(known.tab, "aria-selected", isOpen);
      setAttr(known.tab, "tabindex", isOpen || (!tabOf.has(open) && tabOf.keys().next().value === each.address) ? 0 : -1);
      setText(known.badge, each.unread && !isOpen ? String(each.unread) : "");
      setHidden(known.badge, !each.unread || isOpen);
      setAttr(known.tab, "aria-label", `${each.address[0] === "#" ? "group" : "person"} ${each.address.slice(1)}${each.unread && !isOpen ? `, ${each.unread} unread` : ""}`);
      setAttr(known.tab, "title", each.address);
    }
  }

  function drawTalk(messages, limit) {
    const group = open[0] === "#", key = String(index);
    const here = messages.filter((each) => key in each.places && conversationOf(each, pane.name) === open)
      .sort((one, two) => one.places[key] - two.places[key]).slice(-limit);
    const waiting = queue.filter((each) => each.to === open).map((each) => {
      const late = Date.now() - each.at > BUSY_AFTER;
      return { id: each.number, from: pane.name, text: each.text, at: each.at, hue: pane.hue, kind: "pending",
        words: late ? "waiting for the kernel: a cell is running" : "pending", why: "" };
    });
    const lines = here.concat(waiting);
    if (shown !== open) { // another conversation
      for (const { box: old } of bubbleOf.values()) old.remove();
      bubbleOf.clear();
      shown = open;
    }
    const wanted = new Set(lines.map((each) => each.id));
    for (const [known, { box: old }] of bubbleOf) if (!wanted.has(known)) { old.remove(); bubbleOf.delete(known); }
    let before = empty;
    for (const each of lines) {
      let bubble = bubbleOf.get(each.id);
      if (!bubble) { bubble = makeBubble(talk); bubbleOf.set(each.id, bubble); }
      bubble.show(each, each.from === pane.name, group);
      if (before.nextSibling !== bubble.box) talk.insertBefore(bubble.box, before.nextSibling);
      before = bubble.box;
    }
    setText(empty, lines.length ? "" : open ? "nothing said here yet" : "choose a conversation");
    setHidden(empty, lines.length > 0);
    if (near && talk.scrollTop + talk.clientHeight < talk.scrollHeight) talk.scrollTop = talk.scrollHeight;
    setHidden(newest, near);
  }

  let messagesNow = [], limitNow = 200;
  function draw_() {
    if (!pane) return;
    const here = pane.conversations.find((each) => each.address === open);
    setAttr(box, "aria-label", `${pane.name}, ${pane.online ? "online" : "away"}`);
    setClass(box, "away", !pane.online);
    box.style.setProperty("--hue", pane.hue);
    setText(avatar, initial(pane.name));
    setText(name, pane.name);
    const busy = acts.length ? `${acts[acts.length - 1].what}…` : "";
    setText(status, busy && !pane.busy ? busy : pane.status);
    setAttr(status, "title", pane.status);
    setClass(status, "waits", pane.waiting > 0);
    setAttr(toggle, "aria-checked", pane.online);
    setAttr(toggle, "aria-label", `${pane.name} is online`);
    setAttr(toggle, "title", pane.online ? "online: click to send away" : "away: click to bring back");
    setText(toggleWord, pane.online ? "on" : "off");
    toggle.disabled = pane.busy || acts.length > 0;
    drawTabs();
    setText(aboutText, here ? here.about : open ? open : "");
    setAttr(aboutText, "title", aboutText.textContent);
    setHidden(member, !(here && open[0] === "#"));
    setText(member, here && here.member ? "Leave" : "Join");
    const [last, why] = pane.answers.at(-1) ?? ["", ""];
    setText(notice, complaint || (last === dismissed ? "" : why));
    member.disabled = pane.busy || acts.length > 0;
    setAttr(input, "placeholder", open ? `write to ${open}` : "choose a conversation first");
    setAttr(input, "aria-label", open ? `${pane.name} writes to ${open}` : `${pane.name} has chosen no conversation`);
    input.disabled = button.disabled = !open;
    setAttr(talk, "aria-label", `${pane.name}'s conversation ${open}`);
    drawTalk(messagesNow, limitNow);
  }

  function forgive() { // who goes on has read what was wrong
    dismissed = pane?.answers.at(-1)?.[0] ?? "";
    complaint = "";
    draw_();
  }
  for (const each of [input, otherInput]) each.addEventListener("input", forgive);
  function update(now, messages, limit) {
    pane = now; messagesNow = messages; limitNow = limit;
    const answers = new Map(now.answers);
    if (answers.has(choice)) {
      choice = "";
      open = openThere = now.open;
    } else if (now.open !== openThere) { // a cell or another view has turned the page
      openThere = now.open;
      if (!choice) open = now.open;
    }
    for (const each of queue) {
      if (answers.get(each.number) && !input.value) input.value = each.text; // refused: it is not lost
    }
    queue = queue.filter((each) => !answers.has(each.number));
    acts = acts.filter((each) => !answers.has(each.number));
    draw_();
  }
  return { update, end: () => { clearTimeout(timer); document.removeEventListener("pointerdown", elsewhere, true); } };
}

function conversationOf(message, name) {
  if (message.to[0] === "#") return message.to;
  return message.from === name ? message.to : `@${message.from}`;
}

function render({ model, el: root }) {
  const { box, end } = frame(model, root, "room", "Chat room");
  const heading = el("header", { class: "head" }, box);
  el("strong", {}, heading, "Chat room");
  const lamp = el("span", { class: "lamp" }, heading);
  el("span", { class: "light", "aria-hidden": "true" }, lamp);
  const tells = el("span", { class: "tells", role: "status" }, lamp);
  const note = el("span", { class: "note" }, heading);
  const grid = el("div", { class: "panes" }, box);
  const id = `chatlib-room-${clickNumber()}`;
  const count = model.get("names").length;
  grid.style.setProperty("--columns", count > 4 ? 3 : count);
  const panes = model.get("names").map((_, index) => makePane(grid, index, model, `${id}-${index}`));

  let messages = new Map(), kept = null, frameAsked = 0;
  function show() {
    frameAsked = 0;
    if (model.get("kept") !== kept) {
      kept = model.get("kept");
      messages = new Map(kept.map((each) => [each.id, each]));
    }
    for (const each of model.get("news")) messages.set(each.id, each);
    const { state, text, note: words } = model.get("head");
    setAttr(lamp, "data-state", state ?? "connecting");
    setText(tells, text ?? "");
    setAttr(tells, "title", text ?? "");
    setText(note, words ?? "");
    const all = [...messages.values()], limit = model.get("limit");
    model.get("panes").forEach((now, index) => panes[index]?.update(now, all, limit));
  }
  function soon() { if (!frameAsked) frameAsked = requestAnimationFrame(show); } // the traits of one message come one by one
  const unfollow = follow(model, { head: soon, panes: soon, kept: soon, news: soon });
  show();
  return () => { cancelAnimationFrame(frameAsked); unfollow(); end(); panes.forEach((each) => each.end()); };
}

export default { render };
