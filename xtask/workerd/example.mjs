// Runs the Worker of examples/workers in locations of an edge that keeps what it has read for a minute, and
// logs in and out with the cookies of two browsers. Prints a line of JSON per check.
//
// node example.mjs MODULES MIGRATION

import { check, rest, statements, tell, until } from "./checks.mjs";
import { CACHE_SECONDS, ask, mf, places, trouble } from "./places.mjs";

const [, migration] = process.argv.slice(2);

const ada = { email: "ada@example.org", password: "correct horse battery" };
const cleared = "__Host-session=";
const me = (place, cookie) => ask(place, "/me", { cookie });
const hits = async (place, cookie) => (await me(place, cookie)).source === "kv";
// Whether its slow database has received a request.
const is_held = async (place) =>
  Number(await (await places[place].fetch("http://held/")).text()) > 0;
const log_in = async (place, more = {}, cookie) =>
  ask(place, "/login", { cookie, body: { ...ada, ...more } });
let d1;
const count = async (sql) => (await d1.prepare(sql).first()).n;

async function surroundings() {
  check("without tables the answer is 500", (await log_in("near")).refused, [500, "server_error"]);
  d1 = await mf.getD1Database("DB", "near");
  await d1.batch((await statements(migration)).map((part) => d1.prepare(part)));
  check("without a KV binding too", (await me("bare")).refused, [500, "server_error"]);
  check("nobody is logged in", (await me("near")).refused, [401, "not_logged_in"]);
  check("what is not there is 404", (await ask("near", "/")).refused, [404, "not_found"]);
  const origin = "https://evil.example";
  const forged = await ask("near", "/login", { body: ada, origin });
  check("a page of another site is refused", forged.refused, [403, "other_site"]);
}

async function bodies() {
  const register = (body, text) => ask("near", "/register", { body, text });
  const codes = [];
  for (const text of ["", "{", "[]", "{}", '{"email": 1, "password": 2}']) {
    codes.push((await register(undefined, text)).refused);
  }
  check("a body of another shape is refused", [...new Set(codes.map(String))], ["400,malformed_body"]);
  const long = { ...ada, password: "x".repeat(5000) };
  check("a large one is not read", (await register(long)).refused, [413, "body_too_large"]);
  const nowhere = { ...ada, email: "ada" };
  check("an address must be one", (await register(nowhere)).refused, [400, "invalid_email"]);
  const short = { ...ada, password: "fourteen chars" };
  check("a short password is refused", (await register(short)).refused, [400, "password_too_short"]);

  const first = await register(ada);
  check("a user is registered", [first.status, first.json], [202, { accepted: true }]);
  const taken = { ...ada, email: "ADA@example.org", password: "another password" };
  const second = await ask("far", "/register", { body: taken });
  check("a second time nobody can tell", [second.status, second.json], [first.status, first.json]);
  check("and nothing has happened", await count("SELECT count(*) n FROM users"), 1);
  const wrong = (more) => log_in("near", more).then((answer) => answer.refused);
  const refusal = [401, "wrong_credentials"];
  check("a wrong password is refused", await wrong({ password: taken.password }), refusal);
  check("so is a stranger", await wrong({ email: "bob@example.org" }), refusal);
  const stored = "SELECT password_hash n FROM users";
  const hash = await count(stored);
  await d1.prepare("UPDATE users SET password_hash = 'x'").run();
  check("a damaged hash is no wrong password", await wrong({}), [500, "server_error"]);
  await d1.prepare("UPDATE users SET password_hash = ?").bind(hash).run();
}

async function cookies() {
  const old = await log_in("near", { device: "old" });
  const out = (cookie) => ask("near", "/logout", { cookie, body: {} });
  for (const [what, cookie] of [
    ["a malformed cookie", "__Host-session=nonsense"],
    ["a pair of cookies", `${old.cookie}; ${old.cookie}`],
  ]) {
    const answer = await out(cookie);
    const got = [answer.refused, answer.cookie];
    check(`${what} is taken back at logout`, got, [[401, "not_logged_in"], cleared]);
    check(`${what} logs nobody in`, (await me("near", cookie)).cookie, cleared);
  }
  check("and ends nothing", (await me("near", old.cookie)).status, 200);
  check("without a cookie nothing is taken back", (await out()).cookie, undefined);
  // KV takes one write per second and key, also when it is told to forget.
  await rest(1000);
  const again = await log_in("near", { device: "again" }, old.cookie);
  const got = [again.cookie !== old.cookie, again.json.ended];
  check("a login over a session gives another one", got, [true, 1]);
  check("and ends the old one", (await me("near", old.cookie)).refused, [401, "not_logged_in"]);
  const ended = "SELECT count(*) n FROM sessions WHERE revoked_reason = 'logout'";
  check("in the database", await count(ended), 1);

  const other = await log_in("far");
  const change = { password: ada.password, new_password: "another horse battery" };
  const post = (body) => ask("near", "/password", { cookie: again.cookie, body });
  const wrong = await post({ ...change, password: "x" });
  check("another password needs the old one", wrong.refused, [401, "wrong_credentials"]);
  const short = await post({ ...change, new_password: "x" });
  check("and is not short either", short.refused, [400, "password_too_short"]);
  const changed = await half_way(() => post(change), other.cookie);
  check("the password is changed", [changed.status, changed.json.ended], [200, 1]);
  check("the session has another secret", (await me("near", changed.cookie)).status, 200);
  check("the old secret is refused", (await me("strict", again.cookie)).status, 401);
  check("other sessions are ended", (await me("strict", other.cookie)).status, 401);
  check("the old password is refused", (await log_in("near")).refused, [401, "wrong_credentials"]);
  ada.password = change.new_password;

  await d1.prepare("UPDATE sessions SET rotated_at = rotated_at - 90000000").run();
  await rest(CACHE_SECONDS * 1000);
  const due = await me("strict", changed.cookie);
  check("an old secret is replaced", [due.status, due.cookie !== undefined], [200, true]);
  check("the new one is accepted", (await me("strict", due.cookie)).status, 200);
  check("parallel requests keep the old one a while", (await me("strict", changed.cookie)).status, 200);
  await ask("strict", "/logout", { cookie: due.cookie, body: {} });
}

// The database is lost later and later in the work, until it is lost behind the change of the password.
async function half_way(post, other) {
  const stored = "SELECT password_hash n FROM users";
  const before = await count(stored);
  let lost;
  for (let after = 0; after < 20 && (await count(stored)) === before; after += 1) {
    await trouble("near", { d1: "down", after });
    lost = await post();
    await trouble("near");
  }
  const refusal = [503, "others_not_ended"];
  check("a change whose rest is lost says so", [lost.refused, lost.cookie], [refusal, undefined]);
  check("the others are not ended yet", (await me("strict", other)).status, 200);
  await rest(1000);
  return post();
}

async function browsers() {
  const phone = await log_in("near", { device: "phone" });
  const laptop = await log_in("far", { device: "laptop" });
  check("both browsers log in", [phone.status, laptop.status], [200, 200]);
  check("the cookie is well kept", /Secure; HttpOnly; SameSite=Lax/.test(phone.rules), true);
  check("each has a cookie of its own", phone.cookie !== laptop.cookie, true);

  const first = await me("near", phone.cookie);
  check("the database answers first", [first.status, first.source], [200, "d1"]);
  check("and knows the device", first.json.device, "phone");
  await until("the answer is kept", () => hits("near", phone.cookie));
  const many = await Promise.all(Array.from({ length: 10 }, () => me("near", phone.cookie)));
  check("then the cache does", [...new Set(many.map((one) => one.source))], ["kv"]);
  const forged = `${phone.cookie.slice(0, -4)}AAAA`;
  check("a forged secret is refused", (await me("near", forged)).status, 401);
  check("in the other location too", (await me("far", phone.cookie)).source, "kv");

  // What still works without the database has not asked it.
  const fresh = await log_in("near", { device: "fresh" });
  await until("a fresh one is kept", () => hits("near", fresh.cookie));
  await trouble("near", { d1: "down" });
  const hit = await me("near", fresh.cookie);
  const miss = await me("near", laptop.cookie);
  check("a hit asks the database nothing", [hit.status, hit.source], [200, "kv"]);
  check("an outage is no logout", [miss.refused, miss.cookie], [[503, "unavailable"], undefined]);
  await trouble("near", { d1: "none" });
  const none = await me("near", laptop.cookie);
  check("nor is no answer at all", [none.refused, none.cookie], [[503, "unavailable"], undefined]);
  await trouble("near", { d1: "refused" });
  const failed = await me("near", laptop.cookie);
  check("nor is one without success", [failed.refused, failed.cookie], [[503, "unavailable"], undefined]);
  await trouble("near", { d1: "rowless" });
  const rowless = await me("near", laptop.cookie);
  check("nor is one without rows", [rowless.refused, rowless.cookie], [[503, "unavailable"], undefined]);
  await trouble("near");

  // An isolate that begins while the database is down.
  await trouble("late", { d1: "down" });
  const late = await me("late", fresh.cookie);
  check("a hit goes on in a new isolate", [late.status, late.source], [200, "kv"]);
  const unknown = await me("late", laptop.cookie);
  const got = [unknown.refused, unknown.cookie, unknown.retry];
  check("a miss there is an outage", got, [[503, "unavailable"], undefined, "1"]);
  await trouble("late");
  check("which ends", (await me("late", laptop.cookie)).status, 200);
  await ask("late", "/logout", { cookie: fresh.cookie, body: {} });

  await me("far", laptop.cookie);
  const devices = await ask("far", "/devices", { cookie: laptop.cookie });
  const names = devices.json.map((one) => [one.device, one.is_current]);
  check("both devices are listed", names, [["laptop", true], ["phone", false]]);

  // One whose entry is young, however long all of this has taken.
  const pad = await log_in("near", { device: "pad" });
  await until("the pad's entry is kept", () => hits("near", pad.cookie));
  check("and seen elsewhere", (await me("far", pad.cookie)).source, "kv");
  await rest(1000);
  const out = await ask("near", "/logout", { cookie: pad.cookie, body: {} });
  const began = Date.now();
  const bound = out.json.visible_within_ms;
  check("the pad logs out", [out.status, out.json.ended], [200, 1]);
  check("the bound is entry and skew", bound, CACHE_SECONDS * 1000 + 10_000);
  check("the cookie is taken back", out.cookie, "__Host-session=");
  check("here it is refused at once", (await me("near", pad.cookie)).status, 401);
  let last = await me("far", pad.cookie);
  check("the other location still has it", [last.status, last.source], [200, "kv"]);
  let accepted = 0;
  while (last.status === 200 && Date.now() - began < bound) {
    accepted = Date.now() - began;
    await rest(100);
    last = await me("far", pad.cookie);
  }
  const measured = `accepted for ${accepted} ms of ${bound} ms`;
  check("and refuses it within the bound", [last.status, accepted < bound], [401, true], measured);
  check("though the edge keeps the entry", (await me("far", pad.cookie)).status, 401);
  check("the laptop stays logged in", (await me("far", laptop.cookie)).status, 200);

  const tablet = await ask("near", "/login", { body: { ...ada, device: "tablet" } });
  const all = await ask("far", "/logout-everywhere", { cookie: laptop.cookie, body: {} });
  check("all are logged out", [all.status, all.json.ended], [200, 3]);
  await rest(all.json.visible_within_ms);
  const left = await Promise.all(
    ["near", "far"].flatMap((place) =>
      [phone, laptop, pad, tablet].map(async (one) => (await me(place, one.cookie)).status),
    ),
  );
  check("nobody is let in after the bound", [...new Set(left)], [401]);
}

async function crowds() {
  // Two requests of one isolate for one session: the first one's read of the database takes long.
  const one = await log_in("late");
  await trouble("late", { d1: "slow" });
  const order = [];
  const asked = async (name) => {
    const answer = await me("late", one.cookie);
    order.push([name, answer.status, answer.source]);
  };
  const slow = asked("first");
  await until("the first one waits for the database", () => is_held("late"));
  await trouble("late");
  await asked("second");
  await slow;
  const wanted = [["second", 200, "d1"], ["first", 200, "d1"]];
  check("overlapping requests wait for nobody", order, wanted);

  // Thirty entries, and a namespace that takes half a second to delete one.
  const copy = `INSERT INTO sessions SELECT lower(hex(randomblob(16))), user_id, secret_hash, previous_hash,
    previous_until, created_at, authenticated_at, last_seen_at, expires_at, absolute_expires_at,
    idle_timeout, rotated_at, ip, user_agent, device, remember, aal, amr, external_sid, data, version,
    credential_epoch, revoked_at, revoked_reason FROM sessions WHERE revoked_at IS NULL LIMIT 1`;
  await d1.batch(Array.from({ length: 30 }, () => d1.prepare(copy)));
  const devices = await ask("late", "/devices", { cookie: one.cookie });
  const kv = await mf.getKVNamespace("AUTH_SESSION_KV", "late");
  for (const device of devices.json) await kv.put(`ss:1:${device.session}`, "entry");
  await rest(1000);
  await trouble("late", { kv: 500 });
  const began = Date.now();
  const all = await ask("late", "/logout-everywhere", { cookie: one.cookie, body: {} });
  const measured = `${devices.json.length} entries at 500 ms each in ${Date.now() - began} ms`;
  await trouble("late");
  check("many are logged out at once", [all.status, all.json.ended], [200, devices.json.length]);
  const names = (await kv.list()).keys.map((key) => key.name);
  check("and removed, however slowly", names, [], measured);

  const codes = [];
  for (let round = 0; round < 3; round += 1) codes.push(await log_in("strict", { password: "x" }));
  const guesses = codes.map((answer) => answer.status);
  check("whoever guesses on is refused", guesses, [401, 401, 429]);
  const refusal = [codes[2].refused, codes[2].retry];
  check("and told when to come back", refusal, [[429, "too_many_requests"], "60"]);

  const user = await log_in("near");
  await trouble("near", { limits: "down" });
  check("nobody guesses uncounted", (await log_in("near")).refused, [503, "unavailable"]);
  check("and nobody is logged out", (await me("near", user.cookie)).status, 200);
  await trouble("near");
}

async function rollout() {
  const one = await log_in("near");
  const bound = async (cookie) =>
    (await ask("near", "/logout", { cookie, body: {} })).json.visible_within_ms;
  check("the bound is one's own", await bound(one.cookie), CACHE_SECONDS * 1000 + 10_000);
  // A deployment of before, whose entries it believes for longer.
  const other = await log_in("near");
  check("an older deployment is still there", (await me("before", other.cookie)).status, 200);
  check("and its entries are reckoned with", await bound(other.cookie), 40_000);
}

async function schedule() {
  check("the log has entries", (await count("SELECT count(*) n FROM session_log")) > 0, true);
  const round = () => places.near.scheduled({ cron: "*/10 * * * *" });
  // A session that was changed more often is removed once a second.
  await until("the scheduled event drains it in the end", async () => {
    await rest(1000);
    await round();
    return (await count("SELECT count(*) n FROM session_log")) === 0;
  });
  await rest(1000);
  const dead = "2020-01-01";
  await d1.prepare("UPDATE sessions SET expires_at = unixepoch(?) * 1000").bind(dead).run();
  check("the last one ends well", (await round()).outcome, "ok");
  check("the log is drained", await count("SELECT count(*) n FROM session_log"), 0);
  check("dead sessions are swept", await count("SELECT count(*) n FROM sessions"), 0);
}

const chapters = [surroundings, bodies, cookies, browsers, crowds, rollout, schedule];
await tell(chapters, () => mf.dispose());
