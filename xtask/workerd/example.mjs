// Runs the Worker of examples/workers in two locations of an edge that keeps what it has read for a
// minute, and logs in and out with the cookies of two browsers. Prints a line of JSON per check.
//
// node example.mjs MODULES MIGRATION

import { readFile } from "node:fs/promises";
import { Miniflare } from "miniflare";
import { modules } from "./modules.mjs";

const [folder, migration] = process.argv.slice(2);
const CACHE_SECONDS = 6;

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
const date = { compatibilityDate: "2026-04-01" };
const edge = (name) => ({
  name,
  modules: [{ type: "ESModule", path: "edge.mjs", contents: EDGE }],
  kvNamespaces: { KV: "sessions" },
});
const location = (name, bindings, names) => ({
  ...date,
  ...worker,
  name,
  bindings: { SESSION_CACHE_SECONDS: String(CACHE_SECONDS), ...bindings },
  wrappedBindings: names.kv ? { [names.kv]: { scriptName: `${name}-edge` } } : {},
  d1Databases: { [names.d1]: "sessions" },
});

const mf = new Miniflare({
  cf: false,
  workers: [
    location("near", {}, { kv: "AUTH_SESSION_KV", d1: "DB" }),
    location("far", { SESSION_KV: "MY_KV", SESSION_DB: "MY_DB" }, { kv: "MY_KV", d1: "MY_DB" }),
    location("bare", {}, { d1: "DB" }),
    edge("near-edge"),
    edge("far-edge"),
  ],
});

const places = {};
for (const name of ["near", "far", "bare"]) places[name] = await mf.getWorker(name);

async function ask(place, path, { cookie, body } = {}) {
  const answer = await places[place].fetch(`http://example.org${path}`, {
    method: body ? "POST" : "GET",
    headers: cookie ? { cookie } : {},
    body: body && JSON.stringify(body),
  });
  const text = await answer.text();
  const set = answer.headers.get("set-cookie");
  return {
    status: answer.status,
    source: answer.headers.get("x-session-source"),
    cookie: set?.split(";")[0],
    rules: set,
    json: text.startsWith("{") || text.startsWith("[") ? JSON.parse(text) : undefined,
  };
}

// Checks build upon one another, so that the first failure is the last line.
function check(name, got, wanted) {
  const [left, right] = [JSON.stringify(got), JSON.stringify(wanted)];
  const passed = left === right;
  console.log(JSON.stringify({ check: name, passed, detail: passed ? "" : `${left}, not ${right}` }));
  if (!passed) throw new Error(name);
}

const rest = (ms) => new Promise((done) => setTimeout(done, ms));
const ada = { email: "ada@example.org", password: "correct horse" };

async function story() {
  const me = (place, cookie) => ask(place, "/me", { cookie });

  check("without tables the answer is 500", (await me("near")).status, 500);
  const d1 = await mf.getD1Database("DB", "near");
  const script = await readFile(migration, "utf8");
  const parts = script.split("\n\n").filter((part) => !/^(--.*\n?)*$/.test(part));
  await d1.batch(parts.map((part) => d1.prepare(part)));

  check("without a KV binding the answer is 500", (await me("bare")).status, 500);
  check("nobody is logged in", (await me("near")).status, 401);
  check("a user is registered", (await ask("near", "/register", { body: ada })).status, 201);
  check("an address registers once", (await ask("far", "/register", { body: ada })).status, 409);
  const wrong = { ...ada, password: "battery staple" };
  check("a wrong password is refused", (await ask("near", "/login", { body: wrong })).status, 401);
  const nobody = { ...ada, email: "bob@example.org" };
  check("so is a stranger", (await ask("near", "/login", { body: nobody })).status, 401);

  const phone = await ask("near", "/login", { body: { ...ada, device: "phone" } });
  const laptop = await ask("far", "/login", { body: { ...ada, device: "laptop" } });
  check("both browsers log in", [phone.status, laptop.status], [200, 200]);
  check("the cookie is well kept", /Secure; HttpOnly; SameSite=Lax/.test(phone.rules), true);
  check("each has a cookie of its own", phone.cookie !== laptop.cookie, true);

  const first = await me("near", phone.cookie);
  check("the database answers first", [first.status, first.source], [200, "d1"]);
  check("and knows the device", first.json.device, "phone");
  // The fill goes on after the answer.
  await rest(200);
  const many = await Promise.all(Array.from({ length: 10 }, () => me("near", phone.cookie)));
  check("then the cache does", [...new Set(many.map((one) => one.source))], ["kv"]);
  const forged = `${phone.cookie.slice(0, -4)}AAAA`;
  check("a forged secret is refused", (await me("near", forged)).status, 401);
  check("in the other location too", (await me("far", phone.cookie)).source, "kv");

  // A database without its table answers nothing: what still works has not asked it.
  await d1.prepare("ALTER TABLE sessions RENAME TO elsewhere").run();
  const hit = await me("near", phone.cookie);
  const miss = await me("near", laptop.cookie);
  await d1.prepare("ALTER TABLE elsewhere RENAME TO sessions").run();
  check("a hit asks the database nothing", [hit.status, hit.source], [200, "kv"]);
  check("trouble is no logout", [miss.status, miss.cookie], [500, undefined]);

  await me("far", laptop.cookie);
  const devices = await ask("far", "/devices", { cookie: laptop.cookie });
  const names = devices.json.map((one) => [one.device, one.is_current]);
  check("both devices are listed", names, [["phone", false], ["laptop", true]]);

  const out = await ask("near", "/logout", { cookie: phone.cookie, body: {} });
  const began = Date.now();
  const bound = out.json.visible_within_ms;
  check("the phone logs out", [out.status, out.json.ended], [200, 1]);
  check("the bound is entry and skew", bound, CACHE_SECONDS * 1000 + 10_000);
  check("the cookie is taken back", out.cookie, "__Host-session=");
  check("here it is refused at once", (await me("near", phone.cookie)).status, 401);
  let last = await me("far", phone.cookie);
  check("the other location still has it", [last.status, last.source], [200, "kv"]);
  while (last.status === 200 && Date.now() - began < bound) {
    await rest(100);
    last = await me("far", phone.cookie);
  }
  check("and refuses it within the bound", [last.status, Date.now() - began < bound], [401, true]);
  check("though the edge keeps the entry", (await me("far", phone.cookie)).status, 401);
  check("the laptop stays logged in", (await me("far", laptop.cookie)).status, 200);

  const tablet = await ask("near", "/login", { body: { ...ada, device: "tablet" } });
  const all = await ask("far", "/logout-everywhere", { cookie: laptop.cookie, body: {} });
  check("all are logged out", [all.status, all.json.ended], [200, 2]);
  await rest(all.json.visible_within_ms);
  const left = await Promise.all(
    ["near", "far"].flatMap((place) =>
      [phone, laptop, tablet].map(async (one) => (await me(place, one.cookie)).status),
    ),
  );
  check("nobody is let in after the bound", [...new Set(left)], [401]);

  const count = async (sql) => (await d1.prepare(sql).first()).n;
  const dead = "2020-01-01";
  await d1.prepare("UPDATE sessions SET expires_at = unixepoch(?) * 1000").bind(dead).run();
  check("the log has entries", (await count("SELECT count(*) n FROM session_log")) > 0, true);
  const round = await places.near.scheduled({ cron: "*/10 * * * *" });
  check("the scheduled event ends well", round.outcome, "ok");
  check("the log is drained", await count("SELECT count(*) n FROM session_log"), 0);
  check("dead sessions are swept", await count("SELECT count(*) n FROM sessions"), 0);
}

try {
  await story();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await mf.dispose();
}
