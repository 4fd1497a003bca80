// Lets wrangler make ready for deployment what it would deploy of examples/workers, and stop there, and apply the
// migrations to a database of this machine: no account is needed and nothing is sent. Prints a line of JSON per
// check.
//
// node deploy.mjs MODULES CONFIG

import { spawnSync } from "node:child_process";
import { cp, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { check, statements, tell } from "./checks.mjs";

const [folder, config] = process.argv.slice(2);
const DATABASE = "deploy-database";
const quiet = {
  CI: "true",
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  WRANGLER_HIDE_BANNER: "true",
  WRANGLER_LOG_PATH: resolve("wrangler-logs"),
  WRANGLER_SEND_METRICS: "false",
};

function wrangler(...given) {
  const program = ["node_modules/wrangler/bin/wrangler.js", ...given, "--config", "wrangler.jsonc"];
  const options = { encoding: "utf8", env: { ...process.env, ...quiet }, timeout: 120_000 };
  const run = spawnSync(process.execPath, program, options);
  return { ...run, said: `${run.stdout}${run.stderr}` };
}

// As the README has it, with `--local` in place of `--remote`.
const d1 = (...given) => wrangler("d1", ...given, "--local", "--persist-to", DATABASE);

async function deployed() {
  const run = wrangler("deploy", "--dry-run", "--outdir", "deploy");
  check("wrangler could deploy the example", [run.status, run.status === 0 || run.said], [0, true]);
  const strange = /WARNING|ERROR/.test(run.said) && run.said;
  check("and finds nothing strange in its configuration", strange, false);
  const bindings = ["AUTH_SESSION_KV", "DB", "CLIENT_LIMIT", "LOGIN_LIMIT"];
  const missing = bindings.filter((name) => !run.said.includes(`env.${name} `));
  check("with every binding", missing, []);
}

async function migrated() {
  await rm(DATABASE, { recursive: true, force: true });
  await rm("migrations", { recursive: true, force: true });
  await cp(resolve(dirname(config), "migrations"), "migrations", { recursive: true });
  const run = d1("migrations", "apply", "sessions");
  check("wrangler applies the migrations", [run.status, run.status === 0 || run.said], [0, true]);
  const again = d1("migrations", "apply", "sessions");
  check("once", [again.status, /No migrations to apply/.test(again.said)], [0, true]);
  const sql = `SELECT (SELECT version FROM session_schema) version, count(*) made FROM sqlite_schema
    WHERE sql IS NOT NULL AND tbl_name NOT GLOB 'd1_*' AND tbl_name NOT GLOB '_cf_*'
    AND tbl_name NOT GLOB 'sqlite_*'`;
  const asked = d1("execute", "sessions", "--json", "--command", sql);
  // It has a way of its own to tell where a statement ends.
  const parts = await statements("migrations/0001_session_store.sql");
  const made = parts.filter((part) => /^CREATE/m.test(part)).length;
  const found = asked.status === 0 ? JSON.parse(asked.stdout)[0].results : asked.said;
  check("every table, index and trigger is there", found, [{ version: 1, made }]);
}

// The modules are there already, and `worker-build` would fetch tools from elsewhere.
const text = (await readFile(config, "utf8"))
  .replace(/"build": \{[^}]*\},/, "")
  .replace("build/index.js", resolve(folder, "entry.mjs"));
await writeFile("wrangler.jsonc", text);
await tell([deployed, migrated], () => {});
