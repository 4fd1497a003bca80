// Lets wrangler make ready for deployment what it would deploy of examples/workers, and stop there: no account
// is needed and nothing is sent. Prints a line of JSON per check.
//
// node deploy.mjs MODULES CONFIG

import { spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";

const [folder, config] = process.argv.slice(2);
// The modules are there already, and `worker-build` would fetch tools from elsewhere.
const text = (await readFile(config, "utf8"))
  .replace(/"build": \{[^}]*\},/, "")
  .replace("build/index.js", resolve(folder, "entry.mjs"));
await writeFile("wrangler.jsonc", text);

const quiet = {
  CI: "true",
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
  WRANGLER_HIDE_BANNER: "true",
  WRANGLER_LOG_PATH: resolve("wrangler-logs"),
  WRANGLER_SEND_METRICS: "false",
};
const wrangler = ["node_modules/wrangler/bin/wrangler.js", "deploy", "--dry-run", "--outdir", "deploy"];
const options = { encoding: "utf8", env: { ...process.env, ...quiet }, timeout: 120_000 };
const run = spawnSync(process.execPath, [...wrangler, "--config", "wrangler.jsonc"], options);
const said = `${run.stdout}${run.stderr}`;

const bindings = ["AUTH_SESSION_KV", "DB", "CLIENT_LIMIT", "LOGIN_LIMIT"];
const checks = [
  ["wrangler could deploy the example", run.status === 0],
  ["and finds nothing strange in its configuration", !/WARNING|ERROR/.test(said)],
  ["with every binding", bindings.every((name) => said.includes(`env.${name} `))],
];
for (const [name, passed] of checks) {
  console.log(JSON.stringify({ check: name, passed, detail: passed ? "" : said }));
  if (!passed) process.exitCode = 1;
}
