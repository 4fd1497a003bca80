// Shows in workerd what is said to input and surroundings that can't work. Prints a line of JSON per check.
//
// node refusals.mjs MODULES

import { Miniflare } from "miniflare";
import { modules } from "./modules.mjs";

// No simulator counts the writes of a key: this namespace answers each as if it came too soon.
const BUSY = `
class Busy {
  async get() { return null; }
  async put() { throw new Error("KV PUT failed: 429 Too Many Requests"); }
  async delete() { throw new Error("KV DELETE failed: 429 Too Many Requests"); }
  getWithMetadata() { throw new Error("not asked for"); }
  list() { throw new Error("not asked for"); }
}
export default () => new Busy();
`;

// Nor can one be filled. The name is what the Worker knows a database by.
const FULL = `
class D1Database {
  prepare() { return { bind() { return this; } }; }
  async batch() { throw new Error("D1_ERROR: Exceeded maximum DB size."); }
}
export default () => new D1Database();
`;

const mf = new Miniflare({
  cf: false,
  workers: [
    {
      ...(await modules(process.argv[2])),
      name: "suite",
      compatibilityDate: "2026-04-01",
      kvNamespaces: ["KV"],
      d1Databases: ["DB"],
      wrappedBindings: { KV_BUSY: { scriptName: "busy" }, DB_FULL: { scriptName: "full" } },
    },
    { name: "busy", modules: [{ type: "ESModule", path: "busy.mjs", contents: BUSY }] },
    { name: "full", modules: [{ type: "ESModule", path: "full.mjs", contents: FULL }] },
  ],
});

try {
  const answer = await mf.dispatchFetch("http://suite/refusals");
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  for (const line of await answer.json()) {
    console.log(JSON.stringify(line));
    if (!line.passed) process.exitCode = 1;
  }
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await mf.dispose();
}
