// Elements from values: all text is text, never markup.

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) found.addEventListener(name.slice(2), value);
    else found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
}

// Replaces what an element holds, unless it is the same as before: focus and selection stay.
const shown = new Map();
export function fill(id, key, make) {
  const text = JSON.stringify(key);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  const box = byId(id), focused = box.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const top = box.scrollTop;
  box.replaceChildren(...[make()].flat().filter(Boolean));
  box.scrollTop = top;
  if (focused) box.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// A table: heads as texts, or [text, "n"] for numbers; rows of cells as texts, nodes, or [text, class].
export function table(heads, rows, caption) {
  const parts = heads.map((head) => Array.isArray(head) ? head : [head, ""]);
  const head = el("tr", {}, ...parts.map(([text, kind]) => el("th", { class: kind || null, scope: "col" }, text)));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell, index) => {
    const [content, kind] = Array.isArray(cell) ? cell : [cell, ""];
    return el("td", { class: [parts[index][1], kind].filter(Boolean).join(" ") || null }, content ?? "");
  })));
  return el("table", { "aria-label": caption }, el("thead", {}, head), el("tbody", {}, ...body));
}

export const none = (text) => el("p", { class: "none" }, text);

// A bar of parts, each [share of the whole, class]; drawn, so that no style is needed in markup.
export function bar(parts, mark) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 1000 8");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  let x = 0;
  const rect = (at, width, kind) => {
    const part = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    for (const [name, value] of [["x", at], ["y", 0], ["width", Math.max(0, width)], ["height", 8], ["class", kind]]) part.setAttribute(name, value);
    svg.append(part);
  };
  for (const [share, kind] of parts) {
    const width = Math.min(1000 - x, 1000 * share);
    rect(x, width, kind);
    x += width;
  }
  if (mark !== undefined) rect(Math.min(996, 1000 * mark), 4, "paint-ink");
  return el("div", { class: "bar" }, svg);
}

export const facts = (rows) => el("dl", { class: "facts" }, ...rows.filter(Boolean).flatMap(([name, value, kind]) => [el("dt", {}, name), el("dd", { class: kind || null }, value)]));
