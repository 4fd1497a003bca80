// Locations of an edge that keeps what it has read for a minute, each with the Worker of examples/workers.

import { Miniflare } from "miniflare";
import { FAULTY } from "./faulty.mjs";
import { modules } from "./modules.mjs";

const [folder] = process.argv.slice(2);
export const CACHE_SECONDS = 6;

// No simulator imitates the edge: reads are answered by the location for a minute, misses too. Writes
// are seen by the location that made them, and by no other one before that.
const EDGE = `
class Edge {
  kept = new Map();
  constructor(kv) { this.kv = kv; }
  async get(key, options) {
    const kept = this.kept.get(key);
    if (kept && Date.now() < kept.until) return kept.value?.slice(0) ?? null;
    const value = await this.kv.get(key, { ...options, type: "arrayBuffer" });
    this.kept.set(key, { value: value?.slice(0), until: Date.now() + 60_000 });
    return value;
  }
  async put(key, value, options) {
    this.kept.delete(key);
    return this.kv.put(key, value, options);
  }
  async delete(key) {
    this.kept.delete(key);
    return this.kv.delete(key);
  }
  getWithMetadata() { throw new Error("not asked for"); }
  list() { throw new Error("not asked for"); }
}
export default (env) => new Edge(env.KV);
`;

const worker = await modules(folder);
worker.modules[0].contents = FAULTY;
const date = { compatibilityDate: "2026-04-01" };
const edge = (name) => ({
  name,
  modules: [{ type: "ESModule", path: "edge.mjs", contents: EDGE }],
  kvNamespaces: { KV: "sessions" },
});
const limits = (logins) => ({
  CLIENT_LIMIT: { simple: { limit: 10_000, period: 60 } },
  LOGIN_LIMIT: { simple: { limit: logins, period: 60 } },
});
const location = (name, bindings, names, more) => ({
  ...date,
  ...worker,
  name,
  bindings: { SESSION_CACHE_SECONDS: String(CACHE_SECONDS), ...bindings },
  wrappedBindings: names.kv ? { [names.kv]: { scriptName: `${name}-edge` } } : {},
  d1Databases: { [names.d1]: "sessions" },
  ratelimits: limits(1000),
  ...more,
});
// Without an edge of its own: what it reads is what KV has.
const direct = (name, bindings, more) =>
  location(name, bindings, { d1: "DB" }, { kvNamespaces: { AUTH_SESSION_KV: "sessions" }, ...more });

export const mf = new Miniflare({
  cf: false,
  workers: [
    location("near", {}, { kv: "AUTH_SESSION_KV", d1: "DB" }),
    location("far", { SESSION_KV: "MY_KV", SESSION_DB: "MY_DB" }, { kv: "MY_KV", d1: "MY_DB" }),
    location("bare", {}, { d1: "DB" }),
    direct("late", {}),
    direct("strict", {}, { ratelimits: limits(2) }),
    direct("before", { SESSION_CACHE_SECONDS: "30" }),
    edge("near-edge"),
    edge("far-edge"),
  ],
});

export const places = {};
for (const name of ["near", "far", "bare", "late", "strict", "before"]) {
  places[name] = await mf.getWorker(name);
}

export async function ask(place, path, { cookie, body, text, origin } = {}) {
  const headers = { ...(cookie && { cookie }), ...(origin && { "x-origin": origin }) };
  const content = text ?? (body && JSON.stringify(body));
  const method = content === undefined ? "GET" : "POST";
  const url = `http://example.org${path}`;
  const answer = await places[place].fetch(url, { method, headers, body: content });
  const said = await answer.text();
  const json = said.startsWith("{") || said.startsWith("[") ? JSON.parse(said) : undefined;
  const set = answer.headers.get("set-cookie");
  return {
    status: answer.status,
    source: answer.headers.get("x-session-source"),
    retry: answer.headers.get("retry-after"),
    cookie: set?.split(";")[0],
    rules: set,
    json,
    // What a program goes by: the status, and the code in the body.
    refused: [answer.status, json?.error?.code],
  };
}

// What a location has asked of its bindings and logged, since this was asked last.
export const seen = async (place) => (await places[place].fetch("http://seen/")).json();

// Makes a location's database or namespace fail in one way, until the next call.
export const trouble = async (place, how = {}) =>
  (await places[place].fetch(`http://trouble/?${new URLSearchParams(how)}`)).text();
