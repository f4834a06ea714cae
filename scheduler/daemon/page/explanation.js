// One request's explanation: its offers side by side, decision by decision, then its batches.

import { json } from "./connection.js";
import { byId, el, facts, none, table } from "./dom.js";
import { count, known, milliseconds, money, percent, place, span } from "./format.js";
import { CAUSES, GATES, LEFT, OUTCOMES, QUEUES, REASONS, worded } from "./words.js";

let opener = null;

export function prepare() {
  const dialog = byId("explanation");
  byId("explanation-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => opener?.focus());
}

export async function open(request) {
  const dialog = byId("explanation"), body = byId("explanation-body");
  if (!dialog.open) { opener = document.activeElement; dialog.showModal(); }
  byId("explanation-title").textContent = "Request " + request;
  body.replaceChildren(none("Asking the daemon …"));
  try {
    const [found] = (await json("v1/explain/" + encodeURIComponent(request))).explanations;
    body.replaceChildren(...told(found));
  } catch (error) {
    body.replaceChildren(none(sentence(error)), none("A token sees the requests that were sent with it; one with the scope admin sees all."));
  }
  body.scrollTop = 0;
}

const sentence = (error) => error.message.charAt(0).toUpperCase() + error.message.slice(1) + ".";

function told(found) {
  const start = found.decisions[0]?.at_s ?? found.arrived_at_s, after = (at) => known(at) ? (at >= start ? "+" : "−") + milliseconds(1000 * Math.abs(at - start)) : "never";
  const latency = known(found.ended_at_s) ? 1000 * (found.ended_at_s - found.arrived_at_s) : null, allowed = known(found.deadline_s) ? 1000 * (found.deadline_s - found.arrived_at_s) : null;
  const late = known(latency) && known(allowed) && latency > allowed;
  const end = !found.outcome ? "It has not ended." : found.outcome === "answered" ? "Answered " + (late ? "late, " : "in time, ") + "after " + milliseconds(latency) + "." : "It " + worded(OUTCOMES, found.outcome) + ".";
  return [
    el("p", { class: found.outcome === "answered" && !late ? "good" : found.outcome ? "bad" : null }, end),
    facts([
      ["Model, class" + (found.tenant ? ", tenant" : ""), [found.model, found.class_name, found.tenant].filter(Boolean).join(", ")],
      found.client_id ? ["Its client calls it", found.client_id] : null,
      found.first_decided_at ? ["First decided at", found.first_decided_at.replace("T", " ").replace("Z", " UTC")] : null,
      ["Deadline, the daemon's own work taken off", known(allowed) ? milliseconds(allowed) + " after arrival" : "none"],
      ["Items, bytes", count(found.items) + ", " + count(found.body_bytes)],
    ]),
    ...found.decisions.flatMap((decision, index) => decided(decision, index, found, after)),
    found.decisions.length ? null : none("Nothing was decided about it: it ended before."),
    ...found.sendings.flatMap((sending) => sent(sending, found, after)),
  ].filter(Boolean);
}

function decided(decision, index, found, after) {
  const chosen = decision.chosen_offer, currency = found.currency;
  const head = el("h3", {}, (index ? after(decision.at_s) + ": decided again " : "Decided ") + worded(CAUSES, decision.cause) + ", under plan " + decision.plan_id);
  const miss = decision.nearest_miss, said = worded(REASONS, decision.reason).replace("{place}", miss ? place(miss.place) : decision.chosen.place ? place(decision.chosen.place) : "the other place");
  const why = el("p", {}, worded(QUEUES, decision.chosen.queue) + (decision.chosen.place ? ", at " + place(decision.chosen.place) : "") + ": " + said + ".");
  why.textContent = why.textContent.charAt(0).toUpperCase() + why.textContent.slice(1);
  if (!decision.compared || !decision.offers.length) return [head, why];
  const lines = [
    ["Possible", (offer) => offer.possible ? "yes" : worded(GATES, offer.reason)],
    ["Sent after", (offer) => known(offer.start_s) ? after(offer.start_s) : "never"],
    ["Answer expected", (offer) => known(offer.finish_s) ? after(offer.finish_s) : "never"],
    ["Items in its batch", (offer) => count(offer.items)],
    ["Risk of being late", (offer) => percent(offer.late_probability)],
    ["Money, " + currency, (offer) => money(offer.money)],
    ["Risk at its price, " + currency, (offer) => known(offer.late_probability) && known(decision.lateness_price) ? money(offer.late_probability * decision.lateness_price) : "–"],
    ["Cost to others, " + currency, (offer) => money(offer.cost_to_others)],
    ["Total, " + currency, (offer) => offer.possible ? money(offer.total) : "–"],
  ];
  const mark = (at) => at === chosen ? "n chosen" : "n";
  const shown = table(["", ...decision.offers.map((offer, at) => [place(offer.place) + (offer.queue === "refused" ? "refusal" : "") + (at === chosen ? " ✓ chosen" : ""), mark(at)])],
    lines.map(([name, value]) => [name, ...decision.offers.map((offer) => value(offer))]), "Offers side by side");
  shown.className = "offers";
  return [head, why, el("p", { class: "note" }, "The least total is chosen. A late answer counts " + money(decision.lateness_price) + " " + currency + " here."), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Offers" }, shown)];
}

function sent(sending, found, after) {
  const report = sending.report, members = sending.request_ids.filter((number) => number !== found.request_id);
  const others = sending.predicted_others_s || 0, service = report && known(report.service_s) ? milliseconds(1000 * report.service_s) : "not known";
  return [
    el("h3", {}, after(sending.sent_at_s) + ": sent in batch " + sending.batch_id + " to " + place(sending.place)),
    facts([
      ["Why it left then", sending.why_left ? worded(LEFT, sending.why_left) : "–"],
      ["Items", count(sending.items)],
      ["Service, expected and measured", milliseconds(1000 * (sending.predicted_service_s - others)) + ", " + service],
      others || report?.others_s ? ["Wait behind other daemons, expected and measured", milliseconds(1000 * others) + ", " + (known(report?.others_s) ? milliseconds(1000 * report.others_s) : "not known")] : null,
      ["Answer expected, came", after(sending.predicted_finish_s) + ", " + (known(sending.settled_at_s) ? after(sending.settled_at_s) : "not back yet")],
      report && known(report.cold_start) ? ["Instance", report.cold_start ? "started for it (cold)" : "was warm"] : null,
      sending.failure_kind ? ["Failed", sending.failure_kind, "bad"] : null,
      sending.place.startsWith("function") ? ["Cost of the whole batch", money(sending.cost) + " " + found.currency] : null,
      report && known(report.billed_duration_s) ? ["Billed", span(report.billed_duration_s) === "0 s" ? milliseconds(1000 * report.billed_duration_s) : milliseconds(1000 * report.billed_duration_s)] : null,
    ]),
    members.length ? el("p", { class: "note" }, "With it: ", ...members.slice(0, 40).flatMap((number) => [el("button", { type: "button", class: "link", onclick: () => open(number) }, String(number)), " "])) : null,
  ];
}
