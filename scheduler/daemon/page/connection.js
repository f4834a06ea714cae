// Asks the daemon: what there is, then second by second what changes. A token is sent as a header and kept nowhere.

let token = "";
export const setToken = (text) => { token = text; };

export class NeedsToken extends Error {}

async function ask(path, signal) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  const response = await fetch(path, { cache: "no-store", headers, signal });
  if (response.status === 401 || response.status === 403) throw new NeedsToken((await response.json().catch(() => ({}))).error || "a token is needed");
  return response;
}

export async function json(path) {
  const response = await ask(path);
  const found = await response.json();
  if (!response.ok) throw new Error(found.error || path + " answered " + response.status);
  return found;
}

// Yields the data of each event; ends with the stream, or when nothing comes for `limit_ms`.
async function* events(path, limit_ms) {
  const control = new AbortController();
  const response = await ask(path, control.signal);
  if (!response.ok) throw new Error(path + " answered " + response.status);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    while (true) {
      const timer = setTimeout(() => control.abort(), limit_ms);
      const { value, done } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      text += value;
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const block = text.slice(0, end);
        text = text.slice(end + 2);
        if (block.startsWith("event: over")) return;
        const line = block.split("\n").find((each) => each.startsWith("data: "));
        if (line) yield JSON.parse(line.slice(6));
      }
    }
  } finally {
    control.abort();
  }
}

const AWAY_MS = 6000, AGAIN_MS = 1000;
let wake = () => {};
export const tryNow = () => wake();

// Follows the daemon for ever. `begin` takes a snapshot, `next` an event, `away` an error.
export async function follow({ begin, next, away }) {
  while (true) {
    try {
      const snapshot = await json("v1/now");
      begin(snapshot);
      for await (const event of events("v1/events?after=" + snapshot.id, AWAY_MS)) next(event);
      // It stops, or we were too slow: begin anew at once, and say so only if that fails.
    } catch (error) {
      away(error);
    }
    await new Promise((go) => { wake = go; setTimeout(go, AGAIN_MS); });
  }
}
