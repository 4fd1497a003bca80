// Runs the Worker of examples/workers where something is amiss, and counts what requests cost: KV takes a write
// per second and key, and a free plan a thousand of them a day. Prints a line of JSON per check.
//
// node operation.mjs MODULES MIGRATION

import { check, rest, statements, tell, until } from "./checks.mjs";
import { ask, mf, places, seen, trouble } from "./places.mjs";

const ada = { email: "ada@example.org", password: "correct horse battery" };
const me = (place, cookie) => ask(place, "/me", { cookie });
const log_in = async (place, more = {}, cookie) =>
  ask(place, "/login", { cookie, body: { ...ada, ...more } });
const log_out = (place, cookie) => ask(place, "/logout", { cookie, body: {} });
const hits = async (place, cookie) => (await me(place, cookie)).source === "kv";
const round = (place) => places[place].scheduled({ cron: "*/10 * * * *" });
let d1;
const run = (sql) => d1.prepare(sql).run();
const count = async (sql) => (await d1.prepare(sql).first()).n;
const logged = () => count("SELECT count(*) n FROM session_log");

async function versions() {
  d1 = await mf.getD1Database("DB", "late");
  await d1.batch((await statements(process.argv[3])).map((part) => d1.prepare(part)));
  await run("UPDATE session_schema SET version = 99");
  // The first requests of an isolate.
  const broken = [500, "server_error"];
  const codes = [await ask("late", "/register", { body: ada }), await me("late"), await log_in("late")];
  check("a database of another version is not used", codes.map((one) => one.refused), [broken, broken, broken]);
  check("nor written", await count("SELECT count(*) n FROM users"), 0);
  check("nor kept in order", (await round("late")).outcome, "exception");
  const { said } = await seen("late");
  const told = said.filter((line) => /\[99\].* 1[;,].*wrangler d1 migrations apply/.test(line));
  check("the log names both versions and what to do", told.length, 4, told[0]);
  await run("UPDATE session_schema SET version = 1");
  await run("DROP INDEX session_log_by_sight");
  check("nor is one of before the first release", (await log_in("late")).refused, broken);
  check("which the log names", /session_log_by_sight.*drop/.test((await seen("late")).said.join()), true);
  await run("CREATE INDEX session_log_by_sight ON session_log (seen_at, seq)");
  const registered = await ask("late", "/register", { body: ada });
  check("the right one is used at once", registered.status, 202);
}

async function writes() {
  await seen("late");
  const one = await log_in("late");
  const login = await seen("late");
  check("a login writes nothing to KV", [login.put, login.delete], [undefined, undefined]);
  // Until the database answers, all of them have missed.
  await trouble("late", { d1: "slow" });
  const many = await Promise.all(Array.from({ length: 10 }, () => me("late", one.cookie)));
  await trouble("late");
  check("ten requests miss at once", [...new Set(many.map((one) => one.source))], ["d1"]);
  await until("the entry is kept", () => hits("late", one.cookie));
  const { put, refused } = await seen("late");
  // Once a second, should it take that long.
  check("and is put once", [put < 5, refused], [true, undefined], `put ${put} times for ten misses`);

  await rest(1000);
  const change = "UPDATE sessions SET version = version + 1 WHERE revoked_at IS NULL";
  await run(change);
  await run(change);
  check("a session is changed twice by hand", await logged(), 2);
  check("the scheduled event ends well", (await round("late")).outcome, "ok");
  check("the log is drained", await logged(), 0);
  const drained = await seen("late");
  check("by one removal", [drained.delete, drained.refused], [1, undefined]);
  await rest(1000);
  await log_out("late", one.cookie);
}

// As it could be, by its length and the time in it.
function stranger() {
  const bytes = crypto.getRandomValues(Buffer.alloc(48));
  bytes.writeUIntBE(Date.now(), 0, 6);
  return `__Host-session=${bytes.toString("base64url")}`;
}

async function strangers() {
  const one = await log_in("late");
  await seen("late");
  const known = await log_out("late", one.cookie);
  const bound = known.json.visible_within_ms;
  const cost = await seen("late");
  check("a logout writes and removes", [known.json.ended, cost.writes, cost.delete], [1, 1, 1]);
  await rest(1000);
  const again = await log_out("late", one.cookie);
  const got = [again.json, (await seen("late")).delete];
  check("and so does its repetition", got, [{ ended: 0, visible_within_ms: bound }, 1]);
  const nobody = await log_out("late", stranger());
  check("a stranger's ends nothing", [nobody.status, nobody.json], [200, again.json]);
  check("and takes the cookie back", nobody.cookie, "__Host-session=");
  const free = await seen("late");
  check("and writes and removes nothing", [free.writes, free.delete], [undefined, undefined]);

  const other = await log_in("late");
  const forged = await log_out("late", `${other.cookie.slice(0, -4)}AAAA`);
  check("nor does another secret", forged.json, { ended: 0, visible_within_ms: 0 });
  check("whose owner stays", (await me("late", other.cookie)).status, 200);
  await rest(1000);
  await log_out("late", other.cookie);
}

async function input() {
  const one = await log_in("late");
  const bad = await log_in("late", { device: "a\u0000" }, one.cookie);
  check("a device that can't be one is refused", [bad.refused, bad.cookie], [[400, "invalid_device"], undefined]);
  check("before anything is ended", (await me("late", one.cookie)).status, 200);
}

async function devices() {
  const one = await log_in("late");
  const columns = `user_id, secret_hash, previous_hash, previous_until, created_at - 1000, authenticated_at,
    last_seen_at, expires_at, absolute_expires_at, idle_timeout, rotated_at, ip, user_agent, device, remember,
    aal, amr, external_sid, data, version, credential_epoch, revoked_at, revoked_reason`;
  const copy = `INSERT INTO sessions SELECT lower(hex(randomblob(16))), ${columns} FROM sessions
    WHERE revoked_at IS NULL ORDER BY created_at DESC LIMIT 1`;
  await d1.batch(Array.from({ length: 120 }, () => d1.prepare(copy)));
  const listed = (await ask("late", "/devices", { cookie: one.cookie })).json;
  const live = await count("SELECT count(*) n FROM sessions WHERE revoked_at IS NULL");
  check("every device is listed", listed.length, live);
  const current = listed.map((device) => device.is_current).indexOf(true);
  check("the newest first", current, 0);
}

async function purges() {
  const entries = `INSERT INTO session_log (session_id, seen_at, logged_at)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2505)
    SELECT lower(hex(randomblob(16))), CASE WHEN i > 5 THEN 0 END, 0 FROM n`;
  const kept = `INSERT INTO session_log_acks SELECT seq, name FROM session_log, session_caches WHERE is_shared = 1`;
  // A cache that drains nothing any more, behind all that the others have removed.
  const gone = `INSERT INTO session_caches (name, is_shared, ttl) VALUES ('gone', 1, 60000)`;
  await d1.batch([entries, kept, gone].map((sql) => d1.prepare(sql)));
  check("the scheduled event ends well beside a cache that is gone", (await round("late")).outcome, "ok");
  const mine = "SELECT count(*) n FROM session_log WHERE logged_at = 0";
  const left = [await count(mine), await count(`${mine} AND seen_at > 0`)];
  check("what it left is purged, but what was only seen now", left, [5, 5]);
  await run("UPDATE session_log SET seen_at = seen_at - 30000");
  await round("late");
  check("and kept as long as a cache may need it", await count(mine), 5);
  await run("UPDATE session_log SET seen_at = seen_at - 60000");
  await round("late");
  check("until its time has come", await logged(), 0);
  check("with what was noted of it", await count("SELECT count(*) n FROM session_log_acks"), 0);
  await run("DELETE FROM session_caches WHERE name = 'gone'");
}

async function outages() {
  for (const how of ["down", "none", "rowless"]) {
    await trouble("late", { d1: how });
    check(`a scheduled event with a database that is ${how} fails`, (await round("late")).outcome, "exception");
  }
  await trouble("late", { d1: "full" });
  const full = await log_in("late");
  check("a full database is no matter of trying again", full.refused, [500, "server_error"]);
  await trouble("late");
  await rest(1000);
  await seen("late");
  check("the next one ends well", (await round("late")).outcome, "ok");
  check("and says nothing", (await seen("late")).said, []);
}

await tell([versions, writes, devices, input, strangers, purges, outages], () => mf.dispose());
