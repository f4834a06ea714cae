// Numbers, times and sentences as the page writes them.

export const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export const count = (value) => known(value) ? Math.round(value).toLocaleString("en") : "–";

export const rate = (value) => known(value) ? (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)) : "–";

export function milliseconds(ms) {
  if (!known(ms)) return "–";
  if (ms >= 10000) return (ms / 1000).toFixed(1) + " s";
  return (ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toPrecision(2)) + " ms";
}

export function percent(share, digits = 1) {
  if (!known(share)) return "–";
  const more = share > 0.999 && share < 1 ? 2 : digits;
  return (100 * share).toFixed(share === 1 ? 0 : more) + " %";
}

export function money(amount) {
  if (!known(amount)) return "–";
  const size = Math.abs(amount);
  if (size < 1e-9) return "0";
  return size >= 100 ? amount.toFixed(0) : size >= 1 ? amount.toFixed(2) : size >= 0.01 ? amount.toFixed(4) : amount.toPrecision(2);
}

export function span(seconds) {
  if (!known(seconds)) return "–";
  if (seconds < 90) return Math.round(seconds) + " s";
  if (seconds < 5400) return Math.round(seconds / 60) + " min";
  if (seconds < 129600) return (seconds / 3600).toFixed(1) + " h";
  return Math.round(seconds / 86400) + " days";
}

const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

// The time of day; with the day where that is another one.
export function clock(at_s, now_s) {
  if (!known(at_s)) return "–";
  return Math.abs(now_s - at_s) > 43200 ? DAY.format(at_s * 1000) : TIME.format(at_s * 1000);
}

export const megabits = (bytes) => !known(bytes) ? "–" : (bytes * 8 / 1e6).toFixed(bytes > 1.25e6 ? 1 : 3) + " Mbit/s";

export const arrows = (text) => text.replaceAll("->", "→");

export const place = (name) => name === "function" ? "functions" : name.replace(/^function:/, "tier ").replace(/^edge:main$/, "edge").replace(/^edge:/, "edge ");

export const signed = (value, text) => (value > 0 ? "+" : "") + text(value);
