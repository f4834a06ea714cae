// The lists and tables below the charts.

import { el, facts, fill, none, table } from "./dom.js";
import { arrows, clock, count, known, megabits, milliseconds, money, percent, place, span } from "./format.js";
import { ended, filter, shareWithin, state, wanted } from "./store.js";
import { GATES, OUTCOMES, worded } from "./words.js";

const KINDS = { rate: "arrival rate", bandwidth: "uplink", "edge-service": "edge", "function-service": "function", "function-start": "cold starts" };
const FOUND = { rate: "another arrival rate", bandwidth: "another uplink", "edge-service": "another speed of the edge", "function-service": "another speed of a function", "function-start": "another length of cold starts" };
const ENDS_SHOWN = 60;
const DOUBTS = { "few-batches": "too few batches yet", "short-wait": "too short", "predicts-worse": "forecasts with it were worse" };
const several = () => state.site.classes.length > 1;

export function showPlan() {
  const plan = state.now.plan, row = (state.now.plans || []).at(-1);
  fill("plan", [plan, row, Math.round((state.at - (plan || {}).made_s) / 60)], () => {
    if (!plan) return none("There is no plan yet.");
    const cause = FOUND[row[2]] ? FOUND[row[2]] + " was found" : { start: "the start", expiry: "its age", limits: "limits", settings: "the configuration", quota: "the provider's quota" }[row[2]] || row[2];
    return [
      el("p", {}, "Plan " + plan.id + ", since " + clock(plan.made_s, state.at) + " (" + span(Math.max(0, state.at - plan.made_s)) + "), because of " + cause + "."),
      el("p", { class: "note" }, arrows(row[3])),
      ...plan.groups.flatMap((group) => [
        plan.groups.length > 1 ? el("h3", {}, group.model) : null,
        facts([
          ["Largest batch on the edge", group.edge_batch_cap || "not used"],
          ["Expected by function", percent(group.expected_spill_fraction)],
          ["Expected cost an hour", money(3600 * group.expected_cost_per_s)],
          ...(group.outlooks.length ? group.outlooks : [{ name: "all", expected_within_slo: group.expected_within_slo, feasible: group.feasible }]).map((each) => ["Expected within SLO" + (group.outlooks.length > 1 ? ", " + each.name : ""), percent(each.expected_within_slo) + (each.feasible ? "" : ", not feasible"), each.feasible ? "" : "bad"]),
          ...group.buffers.map((buffer) => ["Function batch, " + buffer.tier + (group.buffers.length > 1 ? " for " + buffer.classes.join(", ") : ""), count(buffer.target_batch) + " items, or after " + Object.values(buffer.timeouts_s).map((each) => milliseconds(1000 * each)).join(" / ")]),
          group.buffers.length ? null : ["Function batch", "none"],
        ]),
        ...group.outlooks.filter((each) => !each.feasible).map((each) => el("p", { class: "bad" }, each.reason)),
      ]),
    ];
  });
}

export function showChanges() {
  const changes = (state.now.changes || []).map(([at, cause, detail]) => [at, KINDS[cause] || cause, detail]);
  const plans = (state.now.plans || []).map(([id, at, cause, detail]) => [at, "plan " + id, (KINDS[cause] ? "" : cause + ": ") + detail]);
  const rows = [...changes, ...plans].sort((a, b) => b[0] - a[0]).slice(0, 50);
  fill("changes", rows, () => rows.length ? table([["When", "t"], "What", "From what to what"], rows.map(([at, what, detail]) => [clock(at, state.at), what, arrows(detail)]), "Changes found and plans, newest first") : none("Nothing was found to change since the start."));
}

export function showEnds(explain) {
  const rows = state.ends.filter((row) => { const key = state.names[row[4]]; return key && (row[3] === "late" || !filter.place) && wanted(row[3] === "late" ? key : [key[0], key[1], key[2], filter.place]); }).slice(-ENDS_SHOWN).reverse();
  fill("ends", [rows, filter], () => rows.length ? table([["When", "t"], "What happened", "Request", "Model, class", "Tenant", "Place", ["Latency", "n"], ["SLO", "n"]], rows.map((row) => {
    const [, request, at, kind, name, latency, slo, reason] = row, [model, cls, tenant, where] = state.names[name];
    return [
      clock(at, state.at), [kind === "late" ? "answered late" : worded(OUTCOMES, kind) + (reason ? " (" + worded(GATES, reason) + ")" : ""), kind === "late" ? "warn" : "bad"],
      request === null ? "–" : el("button", { type: "button", "data-id": "end-" + request, onclick: () => explain(request) }, "Why " + request + "?"),
      model + ", " + cls, tenant || "–", where ? place(where) : "–", milliseconds(latency), known(slo) && slo ? milliseconds(slo) : "–",
    ];
  }), "Misses and refusals, newest first") : none("None" + (Object.values(filter).some(Boolean) ? " of these requests" : "") + " since this daemon started, or none that is still kept."));
}

export function showClasses(hour) {
  const budgets = new Map((state.now.budgets || []).map(([model, cls, balance, missed, saved]) => [model + " " + cls, [balance, missed, saved]]));
  const rows = state.site.classes.filter((each) => (!filter.model || each.model === filter.model) && (!filter.class || each.class === filter.class)).map((each) => {
    const row = hour?.classes.find(({ names }) => names[0] === each.model && names[1] === each.class), share = row && ended(row) ? row.within / ended(row) : null, [balance, missed] = budgets.get(each.model + " " + each.class) || [];
    return [each.model + " · " + each.class, milliseconds(1000 * each.slo_s), percent(each.objective), [percent(share, 2), known(share) ? share >= each.objective ? "good" : "bad" : ""], ...(row ? row.p_ms : [null, null, null]).map(milliseconds), known(balance) ? balance.toFixed(1) : "–", count(missed)];
  });
  fill("classes", rows, () => table(["Class", ["SLO", "n"], ["Objective", "n"], ["This hour", "n"], ["p50", "n"], ["p95", "n"], ["p99", "n"], ["Misses left", "n"], ["On purpose", "n"]], rows, "Classes, this hour"));
}

export function showPlaces(hour) {
  const paces = state.now.paces || [], calls = new Map((state.now.left || []).map(([where]) => [where, 0]));
  for (const [where, , batches] of state.now.left || []) calls.set(where, calls.get(where) + batches);
  const whys = (where) => (state.now.left || []).filter(([name]) => name === where).sort((a, b) => b[2] - a[2]).slice(0, 2).map(([, why, batches]) => why + " " + percent(batches / calls.get(where), 0)).join(", ");
  const names = [...state.site.edges.map((name) => "edge:" + name), ...state.site.tiers.map((name) => "function:" + name)];
  const minute = state.batches.filter((row) => row[5] > state.at - 60), shared = state.now.shared || [];
  const others = (where) => shared.filter(([name]) => name === where).map(([, model, since, learned, observed, doubt]) => "shared since " + clock(since, state.at) + (several() ? " " + model : "") + ": " + milliseconds(observed) + " observed, " + (doubt ? "not counted with: " + worded(DOUBTS, doubt) : milliseconds(learned) + " counted with")).join("; ");
  const rows = names.map((where) => {
    const seen = (state.now.places || []).find((row) => row.place === where || (row.place === "function" && where.startsWith("function:"))), own = minute.filter((row) => row[2] === where), known_starts = own.filter((row) => row[12]);
    const pace = paces.filter(([, name, , learned]) => name === where && learned).map(([model, , times]) => times.toFixed(2) + "×" + (several() ? " " + model : "")).join(", ");
    const answered = hour?.places.find(({ names: [name] }) => name === where);
    return [place(where), seen ? [seen.up ? "used since " + clock(seen.since_s, state.at) : "not used since " + clock(seen.since_s, state.at) + (seen.why ? ": " + seen.why : ""), seen.up ? "" : "bad"] : "–", seen ? count(seen.in_flight) + (seen.parallel ? " of " + seen.parallel : "") : "–", pace || "as profiled",
      where.startsWith("edge") ? "–" : known_starts.length ? percent(known_starts.filter((row) => row[12] === "cold").length / known_starts.length, 0) : "–", count(answered ? answered.within + answered.late : 0), whys(where) || "–", ...(shared.length ? [others(where) || "–"] : [])];
  });
  const [bandwidth, rtt] = state.now.uplink || [null, null], quotas = state.now.quotas || [], limits = state.now.edge_limits || [];
  const flying = (state.now.places || []).find((row) => row.place === "function")?.in_flight ?? 0, queued = (state.now.queue || [0])[0];
  fill("places", [rows, bandwidth, rtt, quotas, limits, flying, queued, state.now.own_ms], () => [
    table(["Place", "State", ["In flight", "n"], "Service, times profile", ["Cold, last minute", "n"], ["Answered this hour", "n"], "Batches left most because", ...(shared.length ? ["Wait behind other daemons"] : [])], rows, "Places"),
    facts([
      state.site.tiers.length ? ["Uplink to the functions", (known(bandwidth) ? megabits(bandwidth) : "no limit seen") + ", round trip " + milliseconds(1000 * rtt)] : null,
      state.site.tiers.length ? ["Throttled by the provider", quotas.length ? quotas.map((each) => (each.tier || "account") + ": " + each.granted + " at once").join(", ") : "no", quotas.length ? "bad" : ""] : null,
      ["The daemon's own latency, p50 and p99", (state.now.own_ms || []).map(milliseconds).join(", ") || "–"],
    ]),
  ]);
}

export function showLoad(summary, text) {
  const parts = summary ? [["Class", summary.classes, (names) => names.join(", ")], ["Tenant", summary.tenants, ([name]) => name || "none configured"]] : [];
  const rows = parts.flatMap(([kind, found, name]) => { const total = found.reduce((sum, row) => sum + row.arrived, 0); return found.filter((row) => row.arrived).map((row) => [kind, name(row.names), count(row.arrived), percent(total ? row.arrived / total : null), percent(ended(row) ? row.within / ended(row) : null), count(row.late), count(row.refused)]); });
  const tenants = state.now.tenants || [];
  fill("load", [rows, text, tenants], () => rows.length ? [
    el("p", { class: "note" }, "Of " + text + "."), table(["By", "Name", ["Arrived", "n"], ["Share", "n"], ["Within SLO", "n"], ["Late", "n"], ["Refused", "n"]], rows, "Load by class and tenant"),
    tenants.length ? table(["Tenant", ["Its share", "n"], ["Open", "n"], ["Edge, since the start", "n"], ["Money, since the start", "n"]], tenants.map(([name, share, open, edge, spent]) => [name, percent(share, 0), count(open), span(edge), money(spent)]), "Shares of tenants") : null,
  ] : none("No request arrived in " + text + "."));
}

const FACTORS = [0.5, 0.75, 1, 1.5, 2, 3];
export function showWhatIf(summary, text) {
  const rows = (summary?.classes || []).filter((row) => ended(row)).map((row) => {
    const each = state.site.classes.find(({ model, class: name }) => model === row.names[0] && name === row.names[1]);
    if (!each) return null;
    const [first, ...bins] = row.bins;
    return [row.names.join(", "), ...FACTORS.map((factor) => { const [within] = shareWithin(first, bins, 1000 * each.slo_s * factor); const share = factor === 1 ? row.within / ended(row) : within / ended(row); return [percent(share), share >= each.objective ? "good" : "bad"]; })];
  }).filter(Boolean);
  fill("what-if", [rows, text], () => rows.length ? [
    el("p", { class: "note" }, "The share of " + text + " that would have been in time by another SLO, decided as it was. A daemon with that SLO waits and spends otherwise: edgeburst simulate says what that costs."),
    table(["Class", ...FACTORS.map((factor) => [factor === 1 ? "SLO as it is" : factor + " × SLO", "n"])], rows, "Share in time by another SLO"),
  ] : none("No request ended in " + text + "."));
}

export function showSpent() {
  const told = state.now.money, today = told?.today || {};
  fill("spent", told, () => told && (told.by.length || Object.keys(today).length) ? [
    table(["Since the start, by", "Tier", "Model", ["Amount, " + told.currency, "n"]], [...told.by.map(([what, tier, model, amount]) => [what, tier || "–", model || "–", money(amount)]), ["all, with what is in flight", "", "", money(told.since_start)]], "Money since the start"),
    table(["Today, by", ["Amount, " + told.currency, "n"]], Object.entries(today).filter(([name]) => name !== "saved").map(([name, amount]) => [name, money(amount)]), "Money today"),
    el("p", { class: "note" }, "Saved is an estimate: what the edge answered, at what an item costs by function (as the last batches were billed, before any as planned)."),
  ] : none("Nothing was spent yet."));
}

const brief = (text) => text ? el("code", { title: text }, text.replace("sha256:", "").slice(0, 12)) : "–";
export function showVersions() {
  const now = state.now, site = state.site, models = Object.entries(now.models || {});
  fill("versions", [now.models, now.servers, site, now.kept], () => [
    facts([["edgeburst", site.version || "–"], ["Configuration", el("code", {}, site.config || "–")], ["State", now.kept?.folder ? el("code", {}, now.kept.folder) : "none: nothing outlives this process", now.kept?.folder ? "" : "warn"],
      ...(now.servers || []).map(([name, server, url]) => ["Edge " + name, (server || "says no version") + (url ? " at " + url : "")])]),
    models.length ? table(["Model", "Card and files here", "At the places", "Alike", "Edge profile"], models.map(([name, row]) => [name, brief(row.identity), el("span", {}, ...Object.entries(row.places || {}).flatMap(([where, identity]) => [place(where) + " ", brief(identity), " "])), row.agree === null || row.agree === undefined ? "not known" : [row.agree ? "yes" : "no", row.agree ? "good" : "bad"],
      Object.values(row.profiles || {}).map(([source, profile, date]) => [profile, date, source].filter(Boolean).join(", ")).join("; ") || "–"]), "Models and their hashes") : none("Nothing is known of the models yet."),
  ]);
}
