// An entry for a Worker whose bindings fail as they are told to.

export const FAULTY = `
import * as worker from "./index.js";

let trouble = {};
// What the bindings were asked for since somebody looked, and what the Worker has logged.
let counts = {};
const count = (what) => { counts[what] = (counts[what] ?? 0) + 1; };
const said = [];
const complain = console.error;
console.error = (...given) => {
  said.push(given.join(" "));
  complain(...given);
};
// Requests that a slow database has received.
let held = 0;
const rest = (ms) => new Promise((done) => setTimeout(done, ms));

// The name is what the Worker knows a database by.
class D1Database {
  constructor(inner) { this.inner = inner; }
  prepare(sql) {
    if (!sql.startsWith("SELECT")) this.writes = true;
    return this.inner.prepare(sql);
  }
  async batch(statements) {
    count(this.writes ? "writes" : "reads");
    this.writes = false;
    // The first few may pass.
    trouble.after = (trouble.after ?? 0) - 1;
    const how = trouble.after < 0 ? trouble.d1 : undefined;
    if (how === "down") throw new Error("D1_ERROR: Network connection lost.");
    if (how === "full") throw new Error("D1_ERROR: Exceeded maximum DB size");
    if (how === "slow") {
      held += 1;
      await rest(3000);
    }
    const answers = await this.inner.batch(statements);
    if (how === "none") return [];
    if (how === "refused") return answers.map((answer) => ({ ...answer, results: [], success: false }));
    if (how === "rowless") return answers.map(({ results, ...rest }) => rest);
    return answers;
  }
}

// Workers KV takes one write per second and key, which no simulator counts.
const written = new Map();
function write(what, key) {
  count(what);
  const now = Date.now();
  if (now - (written.get(key) ?? 0) < 1000) {
    count("refused");
    throw new Error(\`KV \${what.toUpperCase()} failed: 429 Too Many Requests\`);
  }
  written.set(key, now);
}

class Namespace {
  constructor(inner) { this.inner = inner; }
  get(...given) { return this.inner.get(...given); }
  getWithMetadata(...given) { return this.inner.getWithMetadata(...given); }
  async put(key, ...given) {
    write("put", key);
    return this.inner.put(key, ...given);
  }
  list(...given) { return this.inner.list(...given); }
  async delete(key) {
    write("delete", key);
    if (trouble.kv) await rest(Number(trouble.kv));
    return this.inner.delete(key);
  }
}

// The name is what the Worker knows a limit by.
class Ratelimit {
  constructor(inner) { this.inner = inner; }
  async limit(...given) {
    if (trouble.limits) throw new Error("internal error");
    return this.inner.limit(...given);
  }
}

function faulty(env) {
  const all = { ...env };
  for (const [name, binding] of Object.entries(env)) {
    if (typeof binding?.batch === "function") all[name] = new D1Database(binding);
    if (typeof binding?.limit === "function") all[name] = new Ratelimit(binding);
    if (typeof binding?.getWithMetadata === "function") all[name] = new Namespace(binding);
  }
  return all;
}

// The simulator lets no other origin pass.
function named(request) {
  const origin = request.headers.get("x-origin");
  if (!origin) return request;
  const copy = new Request(request);
  copy.headers.set("origin", origin);
  return copy;
}

export default {
  fetch(request, env, context) {
    const url = new URL(request.url);
    if (url.hostname === "held") return new Response(String(held));
    if (url.hostname === "seen") {
      const seen = { ...counts, said: said.splice(0) };
      counts = {};
      return Response.json(seen);
    }
    if (url.hostname !== "trouble") return worker.fetch(named(request), faulty(env), context);
    trouble = Object.fromEntries(url.searchParams);
    return new Response("so be it");
  },
  scheduled: (event, env, context) => worker.scheduled(event, faulty(env), context),
};
`;
