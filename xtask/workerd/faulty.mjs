// An entry for a Worker whose bindings fail as they are told to.

export const FAULTY = `
import * as worker from "./index.js";

let trouble = {};
// Requests that a slow database has received.
let held = 0;
const rest = (ms) => new Promise((done) => setTimeout(done, ms));

// The name is what the Worker knows a database by.
class D1Database {
  constructor(inner) { this.inner = inner; }
  prepare(sql) { return this.inner.prepare(sql); }
  async batch(statements) {
    // The first few may pass.
    trouble.after = (trouble.after ?? 0) - 1;
    const how = trouble.after < 0 ? trouble.d1 : undefined;
    if (how === "down") throw new Error("D1_ERROR: Network connection lost.");
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

class Namespace {
  constructor(inner) { this.inner = inner; }
  get(...given) { return this.inner.get(...given); }
  getWithMetadata(...given) { return this.inner.getWithMetadata(...given); }
  put(...given) { return this.inner.put(...given); }
  list(...given) { return this.inner.list(...given); }
  async delete(key) {
    if (trouble.kv) await rest(Number(trouble.kv));
    return this.inner.delete(key);
  }
}

class RateLimit {
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
    if (typeof binding?.limit === "function") all[name] = new RateLimit(binding);
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
    if (url.hostname !== "trouble") return worker.fetch(named(request), faulty(env), context);
    trouble = Object.fromEntries(url.searchParams);
    return new Response("so be it");
  },
  scheduled: (event, env, context) => worker.scheduled(event, faulty(env), context),
};
`;
