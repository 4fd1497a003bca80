// How a script says what holds: a line of JSON per check.

import { readFile } from "node:fs/promises";

// Checks build upon one another, so that the first failure is the last line.
export function check(name, got, wanted, note = "") {
  const [left, right] = [JSON.stringify(got), JSON.stringify(wanted)];
  const passed = left === right;
  const detail = passed ? note : `${left}, not ${right}`;
  console.log(JSON.stringify({ check: name, passed, detail }));
  if (!passed) throw new Error(name);
}

export const rest = (ms) => new Promise((done) => setTimeout(done, ms));

// For what goes on after an answer; a check that fails if it never comes.
export async function until(name, holds) {
  const end = Date.now() + 20_000;
  let is_so = await holds();
  while (!is_so && Date.now() < end) {
    await rest(20);
    is_so = await holds();
  }
  check(name, is_so, true);
}

// The statements of a migration.
export async function statements(file) {
  const parts = (await readFile(file, "utf8")).split("\n\n");
  return parts.filter((part) => !/^(--.*\n?)*$/.test(part));
}

// Runs the chapters of a story, the first that fails being the last, and then `after`.
export async function tell(chapters, after) {
  try {
    for (const chapter of chapters) await chapter();
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  } finally {
    await after();
  }
}
