// Runs the suite of `workerd-suite` in workerd and prints one line of JSON per case.
//
// node suite.mjs MODULES --suite NAME.. [--case TEXT] [--real-time]

import { parseArgs } from "node:util";
import { Miniflare, _enableControlEndpoints } from "miniflare";
import { modules } from "./modules.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    suite: { type: "string", multiple: true },
    case: { type: "string" },
    "real-time": { type: "boolean" },
  },
});

_enableControlEndpoints();
const CLOCKED = "KV_CLOCK";
let isFake = false;

// Moves the clock by which the namespace counts its TTLs, or waits in earnest.
async function pass(request) {
  const ms = Number(new URL(request.url).searchParams.get("ms"));
  if (values["real-time"]) {
    await new Promise((done) => setTimeout(done, ms));
  } else {
    if (!isFake) await control("enableFakeTimers", Date.now());
    isFake = true;
    await control("advanceFakeTime", ms);
  }
  return new Response("passed");
}

async function control(name, ...args) {
  const namespace = await mf._getInternalDurableObjectNamespace("kv", "kv:ns", "KVNamespaceObject");
  const object = namespace.get(namespace.idFromName(CLOCKED));
  const cf = { miniflare: { controlOp: { name, args } } };
  const answer = await object.fetch("http://placeholder/", { method: "POST", cf });
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${await answer.text()}`);
}

const options = {
  ...(await modules(positionals[0])),
  compatibilityDate: "2026-04-01",
  kvNamespaces: ["KV", CLOCKED],
  d1Databases: ["DB"],
  serviceBindings: { CLOCK: pass },
  cf: false,
};
let mf = new Miniflare(options);

// The suite has a deadline of its own; this one is for an instance that hears nothing any more.
async function inTime(work) {
  let timer;
  const late = new Promise((_, refuse) => {
    timer = setTimeout(() => refuse(new Error("no answer")), 180_000);
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    clearTimeout(timer);
  }
}

async function ask(path, query) {
  const url = new URL(`http://suite${path}`);
  for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value);
  const [answer, text] = await inTime(async () => {
    const answer = await mf.dispatchFetch(url);
    return [answer, await answer.text()];
  });
  if (!answer.ok) throw new Error(`${answer.status} ${text.split("\n")[0]}`);
  return JSON.parse(text);
}

try {
  for (const suite of values.suite ?? []) {
    if (suite === "workers-kv") await ask("/clock", {});
    const names = await ask("/cases", { suite });
    const wanted = names.filter((name) => name.includes(values.case ?? ""));
    for (const name of wanted.length > 0 ? wanted : names) {
      const line = { suite, name };
      try {
        line.report = (await ask("/run", { suite, case: name })).adapters[0];
      } catch (error) {
        // A trap leaves an instance that answers nothing any more.
        line.error = String(error.message);
        await mf.dispose();
        mf = new Miniflare(options);
        isFake = false;
      }
      // Only the report knows the ids.
      const ids = line.report?.cases[0].id.split(" ") ?? [];
      if (wanted.length > 0 || ids.includes(values.case)) console.log(JSON.stringify(line));
    }
  }
} finally {
  await mf.dispose();
}
