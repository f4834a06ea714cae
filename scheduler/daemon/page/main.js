// Begins: filters, spans, and what is drawn when.

import { showAttention, showLatency, showMoney, showRequests, showSlo } from "./cards.js";
import { addSecond, chartsNote, drawCharts, redraw, setHistory } from "./charts.js";
import { follow, json, NeedsToken, setToken, tryNow } from "./connection.js";
import { byId, el, fill } from "./dom.js";
import { clock, place, span } from "./format.js";
import * as explanation from "./explanation.js";
import { showShadow } from "./shadow.js";
import * as store from "./store.js";
import * as strip from "./strip.js";
import * as tables from "./tables.js";

const { state, filter } = store;
const SPANS = [["15 min", 900, 0], ["2 h", 7200, 60000], ["24 h", 86400, 120000], ["7 days", 604800, 600000]];
const SUMS_MS = 10000, LEAST_S = 180;
let spanned = 0, zoom = null, range = null, hour = null, asked = 0, rangeAt = 0, hourAt = 0, alive = false;

const rangeText = () => zoom ? "the span that is shown" : "the last " + SPANS[spanned][0];

async function loadRange() {
  const mine = ++asked, to = zoom ? zoom[1] : state.at + 1;
  // No more than there is, but not so little that every wobble looks large.
  const from = zoom ? zoom[0] : Math.max(to - SPANS[spanned][1], Math.min(to - LEAST_S, state.begins_s ?? to));
  rangeAt = Date.now();
  const found = await json("v1/history?from=" + Math.max(0, from) + "&to=" + to + store.query());
  if (mine !== asked) return;
  // Seconds that came while it was asked for.
  setHistory(found);
  range = found.summary;
  if (!zoom) for (const [at, second] of state.seconds) if (at >= to) addSecond(at, second);
  show();
}

const summaryOf = async (from, to) => (await json("v1/history?columns=0&from=" + Math.max(0, from) + "&to=" + to + store.query())).summary;

// The sums of the last hour, and of the span that is shown where its charts go on by themselves.
async function loadSums() {
  hourAt = Date.now();
  const mine = asked, to = state.at + 1;
  hour = await summaryOf(to - 3600, to);
  if (zoom || SPANS[spanned][2]) return;
  const found = await summaryOf(to - SPANS[spanned][1], to);
  if (mine === asked) range = found;
}

const quietly = (work) => work().catch(() => {});

function show() {
  showState();
  showFilters();
  showAttention();
  showSlo(hour);
  showLatency(hour);
  showRequests();
  showMoney();
  showShadow();
  strip.draw();
  drawCharts(zoomTo);
  byId("charts-note").textContent = chartsNote();
  byId("caption-money").textContent = "Money per hour" + (state.now.money?.currency ? ", " + state.now.money.currency : "");
  tables.showPlan();
  tables.showChanges();
  tables.showEnds(explanation.open);
  tables.showClasses(hour);
  tables.showPlaces(hour);
  tables.showLoad(range, rangeText());
  tables.showWhatIf(range, rangeText());
  tables.showSpent();
  tables.showVersions();
}

function showState() {
  const pill = byId("state"), text = alive ? state.now.state || "ready" : "away";
  if (pill.textContent !== text) pill.textContent = text;
  pill.className = "pill " + (text === "ready" ? "good" : text === "starting" ? "" : "bad");
  byId("uptime").textContent = alive && state.now.began_s ? "up " + span(state.at - state.now.began_s) : "";
}

function showAway(error) {
  alive = false;
  const needs = error instanceof NeedsToken, box = byId("away");
  byId("access").hidden = !needs;
  box.hidden = false;
  box.textContent = needs ? "The daemon wants a token: " + error.message + "." : "No answer from the daemon" + (state.at ? " since " + clock(state.at, state.at) + ". What is shown is from then" : "") + "; it is asked again each second.";
  document.body.classList.toggle("old", state.at > 0);
  showState();
}

function showAlive() {
  alive = true;
  byId("away").hidden = true;
  byId("access").hidden = true;
  document.body.classList.remove("old");
}

function showFilters() {
  const site = state.site, unique = (values) => [...new Set(values)];
  const choices = [
    ["model", "Model", unique(site.classes.map((each) => each.model)), String], ["class", "Class", unique(site.classes.map((each) => each.class)), String],
    ["tenant", "Tenant", site.tenants.length ? [...site.tenants, "other"] : [], String], ["place", "Place", [...site.edges.map((name) => "edge:" + name), ...site.tiers.map((name) => "function:" + name)], place],
  ].filter(([, , values]) => values.length > 1);
  fill("filters", choices.map(([name, , values]) => [name, values]), () => choices.map(([name, text, values, worded]) => {
    const select = el("select", { id: "filter-" + name, "data-id": "filter-" + name, onchange: (event) => { filter[name] = event.target.value; changed(); } }, el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value, selected: value === filter[name] }, worded(value))));
    return el("span", {}, el("label", { for: "filter-" + name }, text), " ", select);
  }));
}

function showSpans() {
  const buttons = SPANS.map(([text], index) => el("button", { type: "button", "data-id": "span-" + index, "aria-pressed": String(!zoom && index === spanned), onclick: () => { spanned = index; zoom = null; changed(); } }, text));
  if (zoom) buttons.push(el("button", { type: "button", "aria-pressed": "true", onclick: () => { zoom = null; changed(); } }, "closer ×"));
  fill("spans", [spanned, zoom], () => buttons);
}

function zoomTo(from, to) {
  zoom = [from, Math.max(to, from + 10)];
  changed();
}

function changed() {
  showSpans();
  redraw();
  if (!state.at) return;
  show();
  quietly(loadRange);
  quietly(() => loadSums().then(show));
}

function begin(snapshot) {
  store.begin(snapshot);
  showAlive();
  show();
  quietly(loadRange);
  quietly(() => loadSums().then(show));
}

function next(event) {
  store.next(event);
  if (!zoom) addSecond(event.at, event.second);
  if (!zoom && SPANS[spanned][2] && Date.now() - rangeAt > SPANS[spanned][2]) quietly(loadRange);
  if (Date.now() - hourAt > SUMS_MS) quietly(loadSums);
  if (!document.hidden) show();
}

strip.prepare(explanation.open);
explanation.prepare();
showSpans();
byId("access").addEventListener("submit", (event) => { event.preventDefault(); setToken(byId("token").value.trim()); byId("token").value = ""; tryNow(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { redraw(); if (state.at) show(); });
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(() => { if (state.at) show(); }, 100); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && state.at) show(); });
follow({ begin, next, away: showAway });
