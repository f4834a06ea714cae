// What the page knows: the snapshot, the seconds since, and sums over them for the requests that the filters let through.

export const QUANTILES = [0.5, 0.95, 0.99];
export const COUNTS = ["arrived", "within", "late", "refused", "rejected", "cancelled", "items"];
const LEAST_MS = 1, IN_AN_OCTAVE = 5, SECONDS_KEPT = 900, BATCHES_KEPT = 1500, ENDS_KEPT = 200, BATCH_AGE_S = 70;

export const state = {
  site: { classes: [], tenants: [], edges: [], tiers: [] }, names: [], seconds: [], now: {}, batches: [], ends: [],
  at: 0, begins_s: null, left_out: 0,
};
export const filter = { model: "", class: "", tenant: "", place: "" };

export function begin(snapshot) {
  Object.assign(state, snapshot, { left_out: 0 });
}

export function next(event) {
  state.at = event.at;
  state.seconds.push([event.at, event.second]);
  if (state.seconds.length > SECONDS_KEPT) state.seconds.shift();
  if (event.names) state.names.push(...event.names);
  if (event.now) Object.assign(state.now, event.now);
  if (event.ends) state.ends = state.ends.concat(event.ends).slice(-ENDS_KEPT);
  if (event.batches) {
    // A bill that comes later replaces the record of its batch.
    const again = new Set(event.batches.map((row) => row[1]));
    state.batches = state.batches.filter((row) => !again.has(row[1]) && row[5] > event.at - BATCH_AGE_S).concat(event.batches).slice(-BATCHES_KEPT);
  }
  state.left_out = event.left_out || 0;
}

export function wanted(key) {
  const [model, name, tenant, place] = key;
  return (!filter.model || model === filter.model) && (!filter.class || name === filter.class)
    && (!filter.tenant || tenant === filter.tenant) && (!filter.place || place === filter.place);
}

export const query = () => Object.entries(filter).filter(([, value]) => value).map(([name, value]) => "&" + name + "=" + encodeURIComponent(value)).join("");

export function emptyCell() {
  return { arrived: 0, within: 0, late: 0, refused: 0, rejected: 0, cancelled: 0, items: 0, edge: 0, function: 0, bins: new Map() };
}

export function addRow(cell, row, place) {
  COUNTS.forEach((name, index) => { cell[name] += row[1 + index] || 0; });
  const answered = (row[2] || 0) + (row[3] || 0);
  if (place.startsWith("edge")) cell.edge += answered; else if (place) cell.function += answered;
  const first = row[1 + COUNTS.length];
  for (let index = 2 + COUNTS.length; index < row.length; index++) {
    const bin = first + index - 2 - COUNTS.length;
    if (row[index]) cell.bins.set(bin, (cell.bins.get(bin) || 0) + row[index]);
  }
}

// Adds up seconds; `of` gives the group of a key, by which cells are told apart.
export function sums(seconds, of = () => "") {
  const found = new Map();
  for (const [, second] of seconds) {
    for (const row of second.c || []) {
      const key = state.names[row[0]];
      if (!key || !wanted(key)) continue;
      const group = of(key);
      if (group === null) continue;
      if (!found.has(group)) found.set(group, emptyCell());
      addRow(found.get(group), row, key[3]);
    }
  }
  return found;
}

export const lastSeconds = (length) => state.seconds.filter(([at]) => at > state.at - length);

export const ended = (cell) => cell.within + cell.late + cell.refused;

export function share(cell) {
  const total = cell ? ended(cell) : 0;
  return total ? cell.within / total : null;
}

export function quantile(bins, fraction) {
  let left = 0;
  for (const number of bins.values()) left += number;
  if (!left) return null;
  left *= fraction;
  for (const index of [...bins.keys()].sort((a, b) => a - b)) {
    const inside = bins.get(index);
    if (left <= inside) return index === 0 ? LEAST_MS * left / inside : LEAST_MS * 2 ** ((index - 1 + left / inside) / IN_AN_OCTAVE);
    left -= inside;
  }
  return LEAST_MS * 2 ** (16);
}

// The share of latencies within a limit, read from the bins.
export function shareWithin(first, counts, limit_ms) {
  let within = 0, total = 0;
  counts.forEach((number, offset) => {
    const index = first + offset, low = index === 0 ? 0 : LEAST_MS * 2 ** ((index - 1) / IN_AN_OCTAVE), high = LEAST_MS * 2 ** (index / IN_AN_OCTAVE);
    total += number;
    within += number * Math.max(0, Math.min(1, (limit_ms - low) / (high - low)));
  });
  return total ? [within, total] : [0, 0];
}

export const money = (seconds) => {
  const found = {};
  for (const [, second] of seconds) for (const [name, amount] of Object.entries(second.m || {})) found[name] = (found[name] || 0) + amount;
  return found;
};

// The values of one second under the names of the history's columns.
export function columnsOf(second) {
  const cell = sums([[0, second]]).get("") || emptyCell();
  const values = { arrived: cell.arrived, within: cell.within, late: cell.late, refused: cell.refused, edge: cell.edge, function: cell.function, cold: second.k || 0, calls: second.n || 0, queued: second.q || 0 };
  QUANTILES.forEach((fraction) => { values["p" + 100 * fraction + "_ms"] = quantile(cell.bins, fraction); });
  for (const [name, amount] of Object.entries(second.m || {})) values["money " + name] = amount;
  for (const [name, value] of Object.entries(second.g || {})) values[name] = value;
  return values;
}

export const classes = () => state.site.classes.filter((each) => (!filter.model || each.model === filter.model) && (!filter.class || each.class === filter.class));
