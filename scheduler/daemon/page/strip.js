// The strip: each batch of the last minute as a bar in the row of its place.

import { byId, el } from "./dom.js";
import { clock, count, milliseconds, money, place } from "./format.js";
import { filter, state } from "./store.js";
import { LEFT, worded } from "./words.js";

const [NUMBER, BATCH, PLACE, MODEL, ITEMS, SENT, WAIT, SERVICE, ELAPSED, LEFT_BY, REASON, COST, START, ERROR, REQUEST] = Array.from({ length: 15 }, (_, index) => index);
const ROW = 46, LEFT_SPACE = 108, SPAN_S = 60, BOTTOM = 18, LANES = 4, SLACK_S = 0.02, FEW = 0.04;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
let canvas = null, drawn = [], chosen = null, explain = () => {};

export function prepare(open) {
  explain = open;
  canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": "Batches of the last minute: choose with the left and right arrow keys, explain with Enter", "aria-describedby": "strip-told" });
  canvas.addEventListener("click", (event) => { const found = hit(event); if (found) { chosen = found[NUMBER]; draw(); ask(found); } });
  canvas.addEventListener("mousemove", (event) => { const found = hit(event); canvas.style.cursor = found ? "pointer" : ""; if (found) tell(found); });
  canvas.addEventListener("mouseleave", () => tell(current()));
  canvas.addEventListener("keydown", (event) => {
    const rows = shown(), at = rows.findIndex((row) => row[NUMBER] === chosen);
    const to = { ArrowLeft: at < 0 ? rows.length - 1 : at - 1, ArrowRight: at < 0 ? rows.length - 1 : at + 1, Home: 0, End: rows.length - 1 }[event.key];
    if (event.key === "Enter" && current()) {
      event.preventDefault();  // else it also presses the button that gets the focus
      ask(current());
    }
    if (to === undefined || !rows.length) return;
    event.preventDefault();
    chosen = rows[Math.max(0, Math.min(rows.length - 1, to))][NUMBER];
    draw();
    tell(current());
  });
  byId("strip").replaceChildren(canvas);
}

const shown = () => state.batches.filter((row) => row[SENT] + row[ELAPSED] / 1000 > state.at - SPAN_S && (!filter.model || row[MODEL] === filter.model) && (!filter.place || row[PLACE] === filter.place));
const current = () => shown().find((row) => row[NUMBER] === chosen);
const ask = (row) => { if (row[REQUEST] !== null) explain(row[REQUEST]); else tell(row); };

function hit(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  let best = null, near = 7;
  for (const [row, left, top, width, height] of drawn) {
    const away = Math.max(left - x, x - left - width, 0) + Math.max(top - y, y - top - height, 0);
    if (away < near) { near = away; best = row; }
  }
  return best;
}

export function words(row) {
  const on = row[PLACE].startsWith("edge");
  const parts = [
    "Batch " + row[BATCH] + ", " + place(row[PLACE]) + ", " + row[MODEL] + ": " + count(row[ITEMS]) + (row[ITEMS] === 1 ? " item" : " items"),
    "sent " + clock(row[SENT], state.at), "longest wait " + milliseconds(row[WAIT]),
    row[SERVICE] === null ? "back after " + milliseconds(row[ELAPSED]) : "service " + milliseconds(row[SERVICE]) + " of " + milliseconds(row[ELAPSED]),
    row[LEFT_BY] ? "left as " + worded(LEFT, row[LEFT_BY]) : "", on ? "" : money(row[COST]) + " " + ((state.now.money || {}).currency || ""),
    row[START] ? row[START] + " start" : "", row[ERROR] ? "failed: " + row[ERROR] : "",
  ];
  return parts.filter(Boolean).join(" · ");
}

function tell(row) {
  const box = byId("strip-told"), key = row ? row[NUMBER] : "";
  if (box.dataset.of === String(key) && row) return;
  box.dataset.of = String(key);
  if (!row) {
    const left = state.left_out;
    box.replaceChildren(shown().length ? (left ? count(left) + " more batches of the last second are not drawn." : "") : "No batch ended in the last minute.");
    return;
  }
  box.replaceChildren(words(row) + " ");
  if (row[REQUEST] !== null) box.append(el("button", { type: "button", class: "link", onclick: () => explain(row[REQUEST]) }, "Explain"));
}

function rowsOf() {
  const places = [...state.site.edges.map((name) => "edge:" + name), ...state.site.tiers.map((name) => "function:" + name)];
  for (const row of state.batches) if (!places.includes(row[PLACE])) places.push(row[PLACE]);
  return places.filter((name) => !filter.place || name === filter.place);
}

// How many batches were on their way at once; those that overlap by the way there and back are not, and single ones do not count.
function lanesOf(own) {
  const ends = [], counts = Array(own.length).fill(0);
  for (const row of own) {
    while (ends.length && ends[0] <= row[SENT] + SLACK_S) ends.shift();
    ends.push(row[SENT] + row[ELAPSED] / 1000);
    ends.sort((a, b) => a - b);
    counts[Math.min(LANES, ends.length) - 1]++;
  }
  let lanes = LANES;
  for (let seen = 0; lanes > 1 && (seen += counts[lanes - 1] || 0) <= FEW * own.length; lanes--);
  return lanes;
}

export function draw() {
  const places = rowsOf(), scale = devicePixelRatio || 1, width = byId("strip").clientWidth, height = places.length * ROW + BOTTOM;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.height = height + "px";
  const paint = canvas.getContext("2d"), end = state.at + 1, x = (at) => LEFT_SPACE + (width - LEFT_SPACE - 8) * (1 - (end - at) / SPAN_S);
  paint.scale(scale, scale);
  paint.font = "12px system-ui, DejaVu Sans, sans-serif";
  paint.textBaseline = "middle";
  const tint = Object.fromEntries(["soft", "grid", "ink", "edge-fill", "function-fill", "bad-fill", "accent", "surface"].map((name) => [name, colour(name)]));
  for (let ago = 0; ago <= SPAN_S; ago += 10) {
    paint.fillStyle = tint.grid;
    paint.fillRect(x(end - ago), 0, 1, height - BOTTOM);
    paint.fillStyle = tint.soft;
    paint.textAlign = ago ? "center" : "right";
    if (width > 600 || ago % 20 === 0) paint.fillText(ago ? "−" + ago + " s" : "now", x(end - ago), height - 7);
  }
  const rows = shown(), most = Math.max(1, ...rows.map((row) => row[ITEMS]));
  drawn = [];
  places.forEach((name, index) => {
    const top = index * ROW, own = rows.filter((row) => row[PLACE] === name), free = Array(LANES).fill(-Infinity);
    own.sort((a, b) => a[SENT] - b[SENT]);
    paint.fillStyle = tint.grid;
    paint.fillRect(0, top + ROW - 1, width, 1);
    paint.fillStyle = tint.ink;
    paint.textAlign = "left";
    paint.fillText(place(name).slice(0, 16), 0, top + 15);
    paint.fillStyle = tint.soft;
    paint.fillText(own.length ? own.length + " × " + (own.reduce((sum, row) => sum + row[ITEMS], 0) / own.length).toFixed(1) : "–", 0, top + 31);
    const lanes = lanesOf(own), tall = (ROW - 8) / lanes;
    for (const row of own) {
      const from = row[SENT], to = from + row[ELAPSED] / 1000;
      let lane = free.findIndex((until, index) => index < lanes && until <= from + SLACK_S);
      if (lane < 0) lane = free.indexOf(Math.min(...free.slice(0, lanes)));
      free[lane] = to;
      const left = Math.max(LEFT_SPACE, x(from)), right = Math.max(left + 2, x(to)), high = Math.max(3, (tall - 2) * (0.25 + 0.75 * row[ITEMS] / most));
      const base = top + 4 + tall * (lane + 1) - 1, kind = name.startsWith("edge") ? "edge-fill" : "function-fill", wait = x(from - row[WAIT] / 1000);
      paint.fillStyle = tint.soft;
      if (wait < left) paint.fillRect(Math.max(LEFT_SPACE, wait), base - 1.5, left - Math.max(LEFT_SPACE, wait), 1.5);
      paint.fillStyle = row[ERROR] ? tint["bad-fill"] : tint[kind];
      paint.fillRect(left, base - high, right - left - 0.5, high);
      if (row[START] === "cold") { paint.fillStyle = tint.accent; paint.fillRect(left, base - high, Math.min(3, right - left), high); }
      if (row[NUMBER] === chosen) { paint.strokeStyle = tint.ink; paint.lineWidth = 2; paint.strokeRect(left - 1, base - high - 1, right - left + 1, high + 2); }
      if (lanes === 1 && right - left > 18) { paint.fillStyle = tint.surface; paint.textAlign = "center"; paint.fillText(row[ITEMS], (left + right) / 2, base - high / 2); }
      drawn.push([row, left, base - high, right - left, high]);
    }
  });
  if (!canvas.matches(":hover")) tell(current());
}
