// Each refusal is explained in the server's own words, with the request id to quote.

import assert from "node:assert/strict";
import { base, choose, fill, limited, octet, options, visit, withBrowser } from "./browser.mjs";

const openapi = await (await fetch(`${base}/openapi.json`)).json();
const GOOD = ["demo-client", "demo-secret-for-local-use-only-0001", "external-api"];
const [ID, SECRET, SCOPE] = GOOD;

// The service, the id, secret and scope, then the status and the code of the refusal.
const CASES = [
  ["connect: POST /connect/token", ID, "wrong", SCOPE, 400, "invalid_client"],
  ["connect: POST /connect/token", "unknown", SECRET, SCOPE, 400, "invalid_client"],
  ["connect: POST /connect/token", "", "", "", 400, "invalid_client"],
  ["connect: POST /connect/token", ID, SECRET, "other", 400, "invalid_scope"],
  ["connect: POST /connect/token", ID, SECRET, 'a"b', 400, "invalid_scope"],
  ["connect: POST /connect/token", "ü", SECRET, SCOPE, 400, "invalid_request"],
  ["vision: POST /v1/api/oauth/token", ID, "wrong", SCOPE, 401, "240101"],
  ["vision: POST /v1/api/oauth/token", ID, SECRET, "", 400, "240009"],
  ["vision: POST /v1/api/oauth/token", ID, SECRET, "x".repeat(101), 400, "240010"],
  ["vision: POST /v1/api/oauth/token", octet.id, octet.secret, octet.scope, 415, "241504"],
  ["vision: POST /v2/api/oauth/token", ID, SECRET, SCOPE, 401, "240101"],
  ["firstvision: GET /v1/getAccessToken", ID, "wrong", SCOPE, 401, "AGT401UA"],
  ["firstvision: GET /v1/getAccessToken", ID, SECRET, "x".repeat(51), 400, "AGT400BR"],
  ["firstvision: GET /v1/getAccessToken", octet.id, octet.secret, octet.scope, 415, "AGT415UMT"],
];

await withBrowser(async (browser) => {
  const { page, assertQuiet } = await visit(browser);
  for (const [service, id, secret, scope, status, code] of CASES) {
    await choose(page, service);
    await fill(page, id, secret, scope);
    await refuse(page, service, status, code);
  }

  // A space that was copied with the id or the secret is hard to see.
  await choose(page, "connect: POST /connect/token");
  for (const [id, secret, hasSpace] of [
    [`${ID} `, SECRET, true],
    [ID, ` ${SECRET}`, true],
    [ID, "wrong", false],
  ]) {
    await fill(page, id, secret, SCOPE);
    const text = await refuse(page, "connect: POST /connect/token", 400, "invalid_client");
    assert.equal(text.includes("begins or ends with a space"), hasSpace, text);
  }

  // All services share the limit of a client.
  await choose(page, "connect: POST /connect/token");
  for (let index = 0; index < 2; index += 1) {
    await fill(page, limited.id, limited.secret, limited.scope);
    await page.click("#request-token");
    await page.waitForSelector("#verification[data-state=valid]");
  }
  for (const [service, code] of [
    ["connect: POST /connect/token", "invalid_request"],
    ["vision: POST /v1/api/oauth/token", "240008"],
    ["firstvision: GET /v1/getAccessToken", "AGT429TMR"],
  ]) {
    await choose(page, service);
    await fill(page, limited.id, limited.secret, limited.scope);
    const text = await refuse(page, service, 429, code);
    assert.match(text, /Wait \d+ seconds/);
  }
  assertQuiet([400, 401, 415, 429]);

  // An answer that is none of this server is not explained, but shown.
  await page.route(/token$/, (route) =>
    route.fulfill({ status: 502, body: "<h1>Bad gateway</h1>" }),
  );
  await choose(page, "connect: POST /connect/token");
  await fill(page, ...GOOD);
  await page.click("#request-token");
  await page.waitForSelector("#problem:not([hidden])");
  const problem = await page.innerText("#problem");
  assert.match(problem, /^502\s+This is not an answer of the token service/);
  assert.ok(!problem.includes("request id"), problem);
  assert.match(await page.textContent("#raw_text"), /<h1>Bad gateway/);
  assert.equal((await page.$$("#raw_text h1")).length, 0, "the answer became part of the page");
  assert.ok((await options(page, "dialect")).length > 3);
  for (const body of ["<h1>Sign in</h1>", "null", "{}", '{"access_token":"opaque"}']) {
    await page.unroute(/token$/);
    await page.route(/token$/, (route) => route.fulfill({ status: 200, body }));
    await fill(page, ...GOOD);
    await page.click("#request-token");
    await page.waitForSelector("#problem:not([hidden])");
    assert.match(await page.innerText("#problem"), /^200, but no token\s+This is not an answer/);
  }

  // An answer that does not arrive: the page stops waiting after its time limit, here at once.
  await page.unroute(/token$/);
  await page.route(/token$/, () => {});
  await page.evaluate(() => {
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    globalThis.timeout = timeout;
    AbortSignal.timeout = (limit) => {
      globalThis.limit = limit;
      return timeout(1);
    };
  });
  await fill(page, ...GOOD);
  await page.click("#request-token");
  await page.waitForSelector("#problem:not([hidden])");
  assert.match(await page.innerText("#problem"), /^No token\s+The answer did not arrive within 30 s/);
  assert.equal(await page.evaluate(() => globalThis.limit), 30_000);

  // Nor does the page wait for ever for the key set, or for the OpenAPI document.
  await page.unroute(/token$/);
  await page.route(/jwks$/, () => {});
  await page.evaluate(() => {
    const limits = [];
    AbortSignal.timeout = (limit) => globalThis.timeout(limits.push(limit) === 1 ? limit : 1);
  });
  await fill(page, ...GOOD);
  await page.click("#request-token");
  await page.waitForSelector("#verification[data-state=unknown]");
  await page.route(/openapi\.json$/, () => {});
  await page.addInitScript(() => {
    const timeout = AbortSignal.timeout.bind(AbortSignal);
    AbortSignal.timeout = () => timeout(1);
  });
  await page.reload();
  await page.waitForSelector("#broken:not([hidden])");
  assert.match(await page.innerText("#broken"), /cannot read openapi\.json/);
});

// URL libraries remove a segment of dots from a path, so such a scope is in the query.
await withBrowser(async (browser) => {
  const { page } = await visit(browser);
  await choose(page, "firstvision: GET /v1/getAccessToken", "scope in the path");
  for (const [scope, isOff, target] of [
    ["..", true, "/v1/getAccessToken?scope=.."],
    [".", true, "/v1/getAccessToken?scope=."],
    ["a..b", false, "/v1/getAccessToken/a..b"],
    ["a/../b", false, "/v1/getAccessToken/a%2F..%2Fb"],
  ]) {
    await fill(page, ID, SECRET, scope);
    assert.equal(await page.isDisabled("#request-token"), isOff, scope);
    assert.equal((await page.innerText("#unavailable")).includes("dots"), isOff, scope);
    const code = await page.textContent("#snippet");
    assert.ok(code.includes(`${base}${target}'`), code);
  }
});

// Sends the request, and asserts that the page explains its refusal. Returns the explanation.
async function refuse(page, service, status, code) {
  const answered = page.waitForResponse((response) => response.status() >= 400);
  await page.click("#request-token");
  const answer = await answered;
  await page.waitForSelector("#problem:not([hidden])");
  const text = await page.innerText("#problem");
  assert.ok(text.startsWith(`${status} ${code}\n`), `${service}: ${text}`);
  const id = answer.headers()["x-request-id"];
  assert.equal(await page.innerText("#request_id"), id);
  const sent = JSON.parse(await page.textContent("#raw_text"));
  const dialect = service.split(":")[0];
  const said = {
    connect: () => sent.error_description ?? "",
    vision: () => sent[0]["invalid-params"][0],
    firstvision: () => sent.errorMessage,
  }[dialect]();
  assert.ok(text.includes(said), `${text} lacks ${said}`);
  const known = openapi["x-refusals"][dialect].filter(
    (refusal) => refusal.status === status && refusal.code === code && refusal.text === said,
  );
  assert.equal(known.length, 1, `${status} ${code} ${said}`);
  assert.ok(known[0].what_to_do.length > 10 && text.includes(known[0].what_to_do), text);
  assert.equal(await page.getAttribute("#problem", "role"), "alert");
  assert.equal(await page.isHidden("#issued"), true);
  return text;
}
