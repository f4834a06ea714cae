// The top row, and what needs attention.

import { bar, byId, el, facts, fill } from "./dom.js";
import { clock, count, known, milliseconds, money as amount, percent, place, rate, span } from "./format.js";
import { classes, ended, lastSeconds, money, quantile, QUANTILES, share, state, sums } from "./store.js";

const MINUTE_S = 60, MONEY_S = 300;
const CLASS = (key) => key[0] + "\u0000" + key[1];
const label = (each) => state.site.classes.length > 1 ? each.model + " · " + each.class : each.model;

// By class of the last minute: [class of the site, its counts].
const byClass = () => {
  const found = sums(lastSeconds(MINUTE_S), CLASS);
  return classes().map((each) => [each, found.get(each.model + "\u0000" + each.class)]);
};

export function showSlo(hour) {
  const minute = byClass(), active = minute.filter(([, cell]) => cell && ended(cell));
  const objective = Math.max(0, ...classes().map((each) => each.objective));
  const worst = active.map(([each, cell]) => [each, share(cell), share(cell) - each.objective]).sort((a, b) => a[2] - b[2])[0];
  const total = active.reduce((sum, [, cell]) => [sum[0] + cell.within, sum[1] + ended(cell)], [0, 0]);
  const now = total[1] ? total[0] / total[1] : null;
  const kept = active.every(([each, cell]) => share(cell) >= each.objective);
  const past = hour ? hour.classes.map((row) => [row, classes().find((each) => each.model === row.names[0] && each.class === row.names[1])]).filter(([row, each]) => each && ended(row)) : [];
  const hours = past.reduce((sum, [row]) => [sum[0] + row.within, sum[1] + ended(row)], [0, 0]);
  const hourKept = past.every(([row, each]) => row.within / ended(row) >= each.objective);
  const key = [now, hours, objective, worst && [label(worst[0]), worst[1]]];
  fill("slo", key, () => [
    el("div", { class: "big " + (known(now) ? kept ? "good" : "bad" : "soft") }, percent(now), el("small", {}, known(now) ? kept ? " kept, last minute" : " below, last minute" : " nothing ended in the last minute")),
    known(now) ? bar([[now, kept ? "paint-edge" : "paint-bad"]], objective) : null,
    facts([
      ["Objective", classes().length > 1 ? classes().map((each) => percent(each.objective)).filter((text, index, all) => all.indexOf(text) === index).join(", ") : percent(objective)],
      ["This hour", hours[1] ? percent(hours[0] / hours[1], 2) + (hourKept ? ", kept" : ", below") : "–", hours[1] ? hourKept ? "good" : "bad" : null],
      ["Ended this hour", count(hours[1])],
      worst && active.length > 1 ? ["Lowest now", label(worst[0]) + " " + percent(worst[1]), worst[2] < 0 ? "bad" : null] : null,
    ]),
  ]);
}

export function showLatency(hour) {
  const active = byClass().filter(([, cell]) => cell && cell.bins.size);
  const rows = active.map(([each, cell]) => [each, QUANTILES.map((fraction) => quantile(cell.bins, fraction))]);
  // The class whose own percentile is nearest to, or most above, its SLO.
  const at = ([each, , cell]) => quantile(cell.bins, each.objective) / (1000 * each.slo_s);
  const [first] = rows.map(([each, values], index) => [each, values, active[index][1]]).sort((a, b) => at(b) - at(a));
  const past = first && hour ? hour.classes.find((row) => row.names[0] === first[0].model && row.names[1] === first[0].class) : null;
  fill("latency", [first && first.slice(0, 2), past && past.p_ms], () => {
    if (!first) return el("p", { class: "none" }, "No answer in the last minute.");
    const [each, values] = first, slo_ms = 1000 * each.slo_s, top = Math.max(slo_ms, values[2] || 0) * 1.05;
    const against = (value) => value <= slo_ms ? percent(1 - value / slo_ms, 0) + " below" : percent(value / slo_ms - 1, 0) + " above";
    return [
      el("div", { class: "big " + (values[2] <= slo_ms ? "good" : "bad") }, milliseconds(values[2]), el("small", {}, " p99, " + against(values[2]) + " the SLO")),
      bar([[values[0] / top, "paint-edge"], [(values[1] - values[0]) / top, "paint-accent"], [(values[2] - values[1]) / top, values[2] <= slo_ms ? "paint-soft" : "paint-bad"]], slo_ms / top),
      facts([
        ["SLO" + (state.site.classes.length > 1 ? ", " + label(each) : ""), milliseconds(slo_ms)],
        ["p50", milliseconds(values[0]) + ", " + against(values[0])],
        ["p95", milliseconds(values[1]) + ", " + against(values[1])],
        past ? ["p99 this hour", milliseconds(past.p_ms[2])] : null,
      ]),
    ];
  });
}

export function showRequests() {
  const seconds = lastSeconds(MINUTE_S), cell = sums(seconds).get(""), length = Math.max(1, seconds.length);
  const [queued, flying] = state.now.queue || [0, 0, 0];
  const counts = cell ? [cell.edge, cell.function, cell.refused] : [0, 0, 0], total = counts.reduce((a, b) => a + b, 0);
  fill("requests", [cell && cell.arrived, counts, length, queued, flying], () => {
    const kinds = [["edge", "paint-edge"], ["functions", "paint-function"], ["refused", "paint-bad"]];
    return [
      el("div", { class: "big" }, rate(cell ? cell.arrived / length : 0), el("small", {}, " a second arrive, last minute")),
      bar(total ? counts.map((number, index) => [number / total, kinds[index][1]]) : []),
      el("div", { class: "key" }, ...kinds.map(([name, paint], index) => el("span", {}, el("i", { class: paint }), name + " ", el("b", {}, total ? percent(counts[index] / total) : "–")))),
      facts([
        ["Waiting", count(queued)],
        ["Sent, not back", count(flying)],
        ["Ended in the last minute", count(total)],
      ]),
    ];
  });
}

export function showMoney() {
  const seconds = lastSeconds(MONEY_S), length = seconds.length, spent = money(seconds), told = state.now.money, caps = state.now.caps || { caps: [] };
  const parts = Object.entries(spent).filter(([name]) => name !== "saved");
  const hourly = length ? parts.reduce((sum, [, value]) => sum + value, 0) / length * 3600 : null;
  fill("money", [told, caps, hourly], () => {
    if (!told) return el("p", { class: "none" }, "Not known yet.");
    const today = told.today, all = Object.entries(today).filter(([name]) => name !== "saved").reduce((sum, [, value]) => sum + value, 0);
    const saved = today.saved || 0, without = all + saved;
    const of = (name) => amount(today[name] || 0);
    return [
      el("div", { class: "big" }, amount(Math.max(0, hourly ?? 0)), el("small", {}, " " + told.currency + " an hour, by the last " + span(length))),
      ...caps.caps.flatMap(([window, cap, used]) => [
        bar([[Math.min(1, used / cap), used >= 0.8 * cap ? "paint-bad" : "paint-accent"]]),
        el("div", { class: "key" }, el("span", {}, "Cap of " + (window === "hour" ? "an hour " : "a day "), el("b", {}, amount(Math.max(0, cap - used)) + " left"), " of " + amount(cap))),
      ]),
      caps.closed_by ? el("p", { class: "bad" }, closed(caps)) : null,
      facts([
        ["Today", amount(all)],
        ["of it cold starts", of("cold starts")],
        ["of it provisioned", of("provisioned")],
        ["Saved against functions alone", saved ? amount(saved) + (without > 0 ? ", " + percent(saved / without, 0) : "") : "–", saved ? "good" : null],
        caps.caps.length ? null : ["Spend cap", "none"],
      ]),
    ];
  });
}

const closed = (caps) => {
  const why = { hour: "The cap of an hour is reached", day: "The cap of a day is reached", state: "The state folder cannot be used, so no money is leased", lender: "The daemon that lends money does not" }[caps.closed_by] || caps.closed_by;
  return why + (caps.opens_s ? "; functions are used again at " + clock(caps.opens_s, state.at) : ["hour", "day"].includes(caps.closed_by) ? "; not even one batch fits into it" : "");
};

// Sentences on what is wrong now, each with what would mend it; true first: mild.
function troubles() {
  const now = state.now, found = [];
  for (const row of now.places || []) {
    if (!row.up) found.push([false, place(row.place) + " is not used since " + clock(row.since_s, state.at) + (row.why ? ": " + row.why : ": it does not answer its probes") + ". It is probed until it answers; check that it runs and can be reached."]);
    else for (const model of row.broken) found.push([false, place(row.place) + " does not answer with model " + model + ". Others are served there; look at its log."]);
  }
  for (const group of (now.plan || { groups: [] }).groups) {
    const reasons = group.outlooks.filter((each) => !each.feasible).map((each) => "class " + each.name + ": " + each.reason);
    for (const reason of reasons.length || group.feasible ? reasons : [group.reason]) found.push([false, "Not feasible, " + group.model + " " + reason]);
  }
  if (now.caps && now.caps.closed_by) found.push([false, closed(now.caps) + ". Until then the edge serves alone, as over_cap says."]);
  for (const [window, cap, used] of (now.caps || { caps: [] }).caps) {
    if (used >= 0.8 * cap && !now.caps.closed_by) found.push([true, percent(used / cap, 0) + " of the cap of " + (window === "hour" ? "an hour" : "a day") + " is used."]);
  }
  for (const quota of now.quotas || []) found.push([true, "The provider throttles " + (quota.tier ? "tier " + quota.tier : "the account") + " at " + quota.granted + " calls at once. Ask for more concurrency, or lower max_in_flight."]);
  for (const [model, where, pace, learned] of now.paces || []) {
    if (learned && pace >= 1.3) found.push([true, place(where) + " takes " + pace.toFixed(2) + " times its profile with " + model + ". Look for heat, power mode or other load there; measure a new profile if it stays."]);
  }
  for (const [name, row] of Object.entries(now.models || {})) {
    if (row.agree === false) found.push([false, "Places serve model " + name + " with unlike cards or files. Bring the same folder to all of them."]);
    for (const [where, why] of Object.entries(row.refused || {})) found.push([false, place(where) + " is refused for model " + name + (typeof why === "string" ? ": " + why : "") + "."]);
  }
  if (now.kept && now.kept.folder && !now.kept.up) found.push([false, now.kept.message]);
  for (const row of now.disbelieved || []) found.push([true, row.tier + " reports " + row.field + " that contradicts what was measured, " + row.reports + " times. It is not used."]);
  return found;
}

export function showAttention() {
  const found = troubles(), box = byId("attention");
  box.hidden = !found.length;
  box.className = "attention" + (found.every(([mild]) => mild) ? " mild" : "");
  fill("attention", found, () => el("ul", {}, ...found.map(([mild, text]) => el("li", { class: mild ? "mild" : null }, text))));
}
