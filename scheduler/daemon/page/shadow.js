// Another configuration beside the live one: what both did with the same requests.

import { byId, el, fill, none, table } from "./dom.js";
import { count, milliseconds, money, percent, place, span } from "./format.js";
import { state } from "./store.js";

const STATES = { waiting: "waits", paused: "is paused", refused: "cannot be used", stopped: "has stopped", starting: "starts" };

const row = (name, side, places) => [
  el("span", {}, name), money(side.spent) + " " + side.currency, percent(side.share, 2), milliseconds(side.p99_ms),
  ...places.map((where) => side.ended ? percent((side.places[where] || 0) / side.ended) : "–"), side.ended ? percent(side.refused / side.ended) : "–", count(side.ended),
];

export function showShadow() {
  const told = state.now.shadow, box = byId("shadow-section");
  box.hidden = !told;
  if (!told) return;
  fill("shadow", told, () => {
    const trouble = STATES[told.state], file = told.config.split("/").pop();
    const note = trouble ? el("p", { class: told.state === "waiting" ? "note" : "warn" }, "The shadow " + trouble + ": " + told.message + ".") : null;
    const refused = told.refused ? el("p", { class: "warn" }, "At the last reload: " + told.refused + ".") : null;
    if (!told.live) return note || none("The shadow has no figures yet.");
    const places = [...new Set([...Object.keys(told.live.places), ...Object.keys(told.shadow.places)])].sort();
    return [
      note, refused,
      table(["", ["Money", "n"], ["Within SLO", "n"], ["p99", "n"], ...places.map((where) => [place(where), "n"]), ["Refused", "n"], ["Ended", "n"]], [row("live", told.live, places), row("shadow (" + file + ")", told.shadow, places)], "Live and shadow"),
      el("p", { class: "note" }, "Of the same requests, for " + span(told.counted_s) + ", each by its own SLO. The shadow is simulated: it sends nothing and spends nothing."),
    ];
  });
}
