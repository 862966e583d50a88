// Gets a token from each service in each encoding, and reads off the page that it is valid.

import assert from "node:assert/strict";
import {
  base,
  choose,
  fillFor,
  getToken,
  options,
  routes,
  visit,
  withBrowser,
} from "./browser.mjs";

await withBrowser(async (browser) => {
  const { page, assertQuiet } = await visit(browser);
  let tokens = 0;
  const services = await options(page, "dialect");
  for (const path of [
    "/connect/token",
    "/v1/api/oauth/token",
    "/v2/api/oauth/token",
    "/v1/getAccessToken",
    ...routes,
  ]) {
    assert.ok(
      services.some((service) => service.endsWith(` ${path}`)),
      `${services} lacks ${path}`,
    );
  }
  for (const service of services) {
    await choose(page, service);
    for (const encoding of await options(page, "encoding")) {
      await choose(page, service, encoding);
      await fillFor(page, encoding);
      const isSentByCodeOnly = encoding.startsWith("scope in the body");
      assert.equal(
        await page.isDisabled("#request-token"),
        isSentByCodeOnly,
        `${service} ${encoding}`,
      );
      if (isSentByCodeOnly) {
        assert.match(await page.innerText("#unavailable"), /cannot send a GET request with a body/);
        assert.match(await page.innerText("#snippet"), /--request GET[^]*"scope": \[/);
        continue;
      }
      assert.equal(await getToken(page), "valid", `${service} ${encoding}`);
      tokens += 1;
      const clientId = await page.inputValue("#client_id");
      await assertShowsToken(page, service, clientId);
    }
  }
  assert.ok(tokens >= 10, `only ${tokens} tokens`);
  assertQuiet();
  console.log(`${tokens} tokens`);
});

async function assertShowsToken(page, service, clientId) {
  assert.equal(await page.inputValue("#client_secret"), "", "the secret is still in the field");
  assert.match(await page.innerText("#verification"), /^Signature valid \(key .{8}…\)$/);
  assert.match(await page.innerText("#clock"), /^Expires in (\d:)?\d\d:\d\d$/);
  const token = await page.textContent("#token");
  const [header, claims] = token
    .split(".")
    .slice(0, 2)
    .map((part) => JSON.parse(Buffer.from(part, "base64url")));
  assert.deepEqual(JSON.parse(await page.innerText("#token-header")), header);
  const rows = await page.$$eval("#claims tbody tr", (found) =>
    found.map((row) => [row.cells[0].textContent, row.cells[1].firstChild.textContent]),
  );
  assert.deepEqual(
    rows,
    Object.entries(claims).map(([name, value]) => [
      name,
      typeof value === "string" ? value : JSON.stringify(value),
    ]),
  );
  assert.equal(claims.client_id, clientId);
  const answer = JSON.parse(await page.textContent("#raw_text"));
  assert.equal(answer.access_token, token);
  const says = await page.innerText("#expires_in");
  assert.ok(says.includes(` ${answer.expires_in}: `), says);
  const isAbsolute = service.startsWith("firstvision");
  assert.equal(answer.expires_in === claims.exp, isAbsolute);
  assert.equal(says.includes("Unix seconds"), isAbsolute, says);
  assert.equal(says.includes("less one"), service.startsWith("vision"), says);
}

// A token that was changed on its way is shown as invalid.
await withBrowser(async (browser) => {
  const { page } = await visit(browser);
  let change;
  const tamper = async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    answer.access_token = change(answer.access_token.split(".")).join(".");
    await route.fulfill({ response, json: answer });
  };
  await page.route(/token$/i, tamper);
  const flipped = (text, at) =>
    text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
  const otherClaims = (claims) => {
    const read = JSON.parse(Buffer.from(claims, "base64url"));
    return Buffer.from(JSON.stringify({ ...read, scope: "other" })).toString("base64url");
  };
  const changes = [
    ([header, claims, signature]) => [header, claims, flipped(signature, 5)],
    ([header, claims, signature]) => [header, otherClaims(claims), signature],
    ([header, claims]) => [header, claims, ""],
    ([, claims, signature]) => [
      Buffer.from('{"alg":"none"}').toString("base64url"),
      claims,
      signature,
    ],
    ([, claims, signature]) => [
      Buffer.from('{"alg":"RS256","kid":"other"}').toString("base64url"),
      claims,
      signature,
    ],
  ];
  for (const service of ["connect: POST /connect/token", "vision: POST /v1/api/oauth/token"]) {
    for (change of changes) {
      await choose(page, service);
      await fillFor(page, "");
      assert.equal(await getToken(page), "invalid", String(change));
      assert.match(await page.innerText("#verification"), /^Signature invalid/);
    }
    change = (parts) => parts;
    await fillFor(page, "");
    assert.equal(await getToken(page), "valid");
  }

  // Without the key set, the page does not say that the token is valid or invalid.
  await page.route(/jwks$/, (route) => route.abort());
  await fillFor(page, "");
  assert.equal(await getToken(page), "unknown");
  // Without a server, the page says what to do.
  await page.route(/token$/i, (route) => route.abort());
  await fillFor(page, "");
  await page.click("#request-token");
  await page.waitForSelector("#problem:not([hidden])");
  assert.match(await page.innerText("#problem"), /No token[^]*Check that the server is running/);
  assert.ok(
    (await page.inputValue("#client_secret")) === "" && !(await page.isDisabled("#request-token")),
  );
});

// The clock ends, and says so.
await withBrowser(async (browser) => {
  const { page } = await visit(browser);
  await page.clock.install();
  await fillFor(page, "");
  await getToken(page);
  await page.clock.fastForward("00:10:00");
  assert.match(await page.innerText("#clock"), /^Expires in (50:00|4\d:\d\d)$/);
  await page.clock.fastForward("01:00:00");
  assert.equal(await page.innerText("#clock"), "Expired");
  // The machine has slept: its clock has moved on, but the browser's timers have not.
  await fillFor(page, "");
  await getToken(page);
  await page.clock.setSystemTime(Date.now() + 4 * 3_600_000);
  await page.clock.runFor(1000);
  assert.equal(await page.innerText("#clock"), "Expired");
  assert.equal(await page.innerText("#status"), "The token has expired.");
  assert.equal(new URL(page.url()).href, `${base}/`);
});
