// The charts: columns of the history, to which seconds are added, with marks where plans and changes were.

import { byId, el } from "./dom.js";
import { arrows, clock, count, known, milliseconds, money, place, rate } from "./format.js";
import { classes, columnsOf, filter, state } from "./store.js";

/* global uPlot */
const HEIGHT = 150, SYNC = "page";
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const charts = new Map();
let history = { step_s: 1, from_s: 0, points: 0, columns: {} };

export const setHistory = (found) => { history = found; };

// Adds a second to a history of seconds, and lets the oldest go.
export function addSecond(at, second) {
  if (history.step_s !== 1) return;
  const columns = history.columns, values = columnsOf(second);
  let gap = at - (history.from_s + history.points);
  if (gap < 0 || gap > 900) return;
  for (const name of Object.keys(values)) columns[name] ??= Array(history.points).fill(null);
  for (; gap >= 0; gap--) {
    for (const [name, column] of Object.entries(columns)) column.push(gap ? null : values[name] ?? (name.startsWith("money ") ? 0 : null));
    history.points++;
  }
  for (; history.points > 900; history.points--, history.from_s++) for (const column of Object.values(columns)) column.shift();
}

const column = (name) => history.columns[name] || Array(history.points).fill(null);
const perSecond = (name) => column(name).map((value) => value === null ? null : value / history.step_s);
const times = () => Array.from({ length: history.points }, (_, index) => history.from_s + index * history.step_s);
const stack = (columns) => columns.reduce((made, next) => [...made, next.map((value, index) => value === null ? null : value + (made.length ? made[made.length - 1][index] ?? 0 : 0))], []);

const CAUSES = { rate: ["rate"], bandwidth: ["bandwidth"], pace: ["edge-service", "function-service", "function-start"] };

// What each chart draws: series as [name, values, colour, options], drawn in order.
function drawings() {
  const arrived = perSecond("arrived"), parts = stack([perSecond("edge"), perSecond("function"), perSecond("refused")]);
  const spent = Object.keys(history.columns).filter((name) => name.startsWith("money ") && name !== "money saved");
  const hourly = (name) => column(name).map((value) => value === null ? null : value * 3600 / history.step_s);
  const paces = Object.keys(history.columns).filter((name) => name.startsWith("pace ")).sort();
  const slos = [...new Set(classes().map((each) => 1000 * each.slo_s))];
  const tints = ["edge-fill", "function-fill", "accent", "bad-fill", "soft", "ink"];
  const spentColours = { "money calls": "function-fill", "money cold starts": "bad-fill", "money provisioned": "accent", "money warming": "soft", "money hedges": "edge-fill" };
  return {
    requests: { write: rate, series: [
      ["refused", parts[2], "bad-fill", { fill: true }, perSecond("refused")], ["functions", parts[1], "function-fill", { fill: true }, perSecond("function")],
      ["edge", parts[0], "edge-fill", { fill: true }, perSecond("edge")], ["arrived", arrived, "ink", { thin: true }]] },
    // A far larger SLO of another class does not flatten what there is.
    latency: { write: milliseconds, top: 1.15 * Math.max(...slos.slice().sort((a, b) => a - b).slice(0, 1), ...column("p99_ms").filter(known), 1), series: [["p99", column("p99_ms"), "bad-fill", {}], ["p95", column("p95_ms"), "accent", {}], ["p50", column("p50_ms"), "edge-fill", {}],
      ...slos.slice(0, 4).map((slo) => ["SLO " + milliseconds(slo), Array(history.points).fill(slo), "ink", { dash: [5, 4] }])] },
    money: { write: money, series: spent.map((name) => [name.slice(6), hourly(name), spentColours[name] || "soft", {}]) },
    rate: { write: rate, series: [["estimate", column("rate"), "accent", {}], ["arrived", arrived, "soft", { thin: true }]], marks: CAUSES.rate },
    bandwidth: { write: (value) => known(value) ? value >= 10 ? value.toFixed(1) : value.toPrecision(2) : "–", series: [["bandwidth", column("bandwidth").map((value) => value === null ? null : value * 8 / 1e6), "accent", {}]], marks: CAUSES.bandwidth },
    pace: { write: (value) => known(value) ? value.toFixed(2) : "–", series: paces.map((name, index) => [paceName(name), column(name), tints[index % tints.length], {}]), marks: CAUSES.pace, floor: 0.5 },
  };
}

function paceName(name) {
  const text = name.slice(5), cut = text.lastIndexOf(" ");
  return place(text.slice(cut + 1)) + (state.site.classes.some((each) => each.model !== text.slice(0, cut)) ? " " + text.slice(0, cut) : "");
}

// Lines at plans (requests) and at changes (estimates).
const marker = (chart) => ({
  hooks: { draw: [(plot) => {
    const paint = plot.ctx, { left, top, width, height } = plot.bbox, scale = devicePixelRatio || 1;
    const lines = chart.marks ? (state.now.changes || []).filter(([, cause]) => chart.marks.includes(cause)).map(([at]) => at) : chart.plans ? (state.now.plans || []).map(([, at]) => at) : [];
    paint.save();
    paint.lineWidth = scale;
    paint.strokeStyle = paint.fillStyle = colour(chart.marks ? "accent" : "soft");
    if (!chart.marks) paint.setLineDash([3 * scale, 3 * scale]);
    for (const at of lines) {
      const x = Math.round(plot.valToPos(at, "x", true));
      if (x < left || x > left + width) continue;
      paint.beginPath(); paint.moveTo(x, top); paint.lineTo(x, top + height); paint.stroke();
      if (chart.marks) { paint.beginPath(); paint.moveTo(x - 4 * scale, top); paint.lineTo(x + 4 * scale, top); paint.lineTo(x, top + 6 * scale); paint.fill(); }
    }
    paint.restore();
  }] },
});

function make(id, drawing, zoomed) {
  const box = byId("chart-" + id), key = el("div", { class: "chart-key" }), chart = { drawing, key, marks: drawing.marks, plans: id === "requests" };
  const axis = (more) => ({ stroke: colour("soft"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, DejaVu Sans, sans-serif", ...more });
  const options = {
    width: Math.max(200, box.clientWidth), height: HEIGHT, legend: { show: false }, padding: [8, 18, 0, 0],
    cursor: { sync: { key: SYNC }, points: { size: 5 }, drag: { x: true, y: false } },
    scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(chart.drawing.floor ?? 0, chart.drawing.top ?? (known(high) && high > 0 ? high * 1.08 : 1))] } },
    axes: [axis({ size: 24, space: 70, values: (_, splits) => splits.map((at) => shortTime(at)) }), axis({ size: 48, space: 34, values: (_, splits) => splits.map((value) => short(value)) })],
    series: [{}, ...drawing.series.map(([name, , tint, how]) => ({
      label: name, stroke: colour(tint), width: how.thin ? 1 : 1.5, dash: how.dash, spanGaps: false, points: { show: false }, fill: how.fill ? colour(tint) : undefined,
      paths: how.fill ? uPlot.paths.stepped({ align: 1 }) : undefined,
    }))],
    plugins: [marker(chart)],
    hooks: { setCursor: [(plot) => tell(chart, plot.cursor.idx)], setSelect: [(plot) => {
      if (plot.select.width > 8) zoomed(Math.floor(plot.posToVal(plot.select.left, "x")), Math.ceil(plot.posToVal(plot.select.left + plot.select.width, "x")));
      plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    }] },
  };
  chart.names = drawing.series.map(([name]) => name).join();
  box.replaceChildren(key);
  chart.plot = new uPlot(options, data(drawing), box);
  chart.plot.root.setAttribute("role", "img");
  chart.box = box;
  charts.set(id, chart);
  return chart;
}

const data = (drawing) => [times(), ...drawing.series.map(([, values]) => values)];
const short = (value) => value >= 10000 ? value / 1000 + "k" : value >= 1 || value === 0 ? String(+value.toFixed(2)) : String(+value.toPrecision(2));

function shortTime(at) {
  const date = new Date(at * 1000), two = (number) => String(number).padStart(2, "0");
  const spanned = history.points * history.step_s;
  return spanned > 172800 ? two(date.getDate()) + "." + two(date.getMonth() + 1) + ". " + two(date.getHours()) + "h" : two(date.getHours()) + ":" + two(date.getMinutes());
}

// The legend: the values under the cursor, else the last ones.
function tell(chart, index) {
  const at = known(index) ? index : Math.max(0, history.points - 1), drawing = chart.drawing;
  const nodes = drawing.series.map(([name, values, tint, how, alone]) => {
    const swatch = el("i", { class: "paint-" + ({ "edge-fill": "edge", "function-fill": "function", "bad-fill": "bad" }[tint] || tint) });
    return el("span", {}, swatch, how.dash ? name : name + " " + drawing.write((alone || values)[at]));
  });
  if (known(index)) nodes.unshift(el("b", {}, clock(history.from_s + at * history.step_s, state.at)));
  chart.key.replaceChildren(...(nodes.length ? nodes : [el("span", {}, "Nothing in this span.")]));
  const last = drawing.series.map(([name, values, , , alone]) => name + " " + drawing.write((alone || values)[history.points - 1])).join(", ");
  chart.box.querySelector(".uplot")?.setAttribute("aria-label", chart.box.parentElement.querySelector("figcaption").textContent + ": " + (last || "nothing"));
}

export function drawCharts(zoomed) {
  const all = drawings();
  for (const [id, drawing] of Object.entries(all)) {
    let chart = charts.get(id);
    if (!chart || chart.names !== drawing.series.map(([name]) => name).join() || chart.plot.width !== Math.max(200, chart.box.clientWidth)) {
      chart?.plot.destroy();
      chart = make(id, drawing, zoomed);
    } else {
      chart.drawing = drawing;
      chart.plot.setData(data(drawing));
    }
    tell(chart, chart.plot.cursor.idx);
    if (drawing.marks) found(id, drawing.marks);
  }
}

// The newest change of a chart, in words.
function found(id, causes) {
  const changes = (state.now.changes || []).filter(([, cause]) => causes.includes(cause)), last = changes[changes.length - 1];
  byId("found-" + id).textContent = last ? clock(last[0], state.at) + "  " + arrows(last[2]) : "";
}

export function redraw() {
  for (const chart of charts.values()) chart.plot.destroy();
  charts.clear();
}

export function chartsNote() {
  const told = Object.entries(filter).filter(([, value]) => value).map(([name, value]) => name + " " + (name === "place" ? place(value) : value));
  const ago = history.points * history.step_s, step = history.step_s === 1 ? "each point a second" : "each point " + (history.step_s % 60 ? history.step_s + " s" : count(history.step_s / 60) + " min");
  return (told.length ? "Of " + told.join(", ") + "; money and estimates are of all. " : "") + "The last " + (ago < 5400 ? count(ago / 60) + " min" : ago < 172800 ? count(ago / 3600) + " h" : count(ago / 86400) + " days") + ", " + step + ". Drag over a chart to look closer. Dashed lines are new plans, marked lines are changes that were found.";
}
