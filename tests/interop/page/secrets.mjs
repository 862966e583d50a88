// After use, the secret is in no place that the page, its history or its storage keeps.

import assert from "node:assert/strict";
import {
  DEMO_SECRET,
  base,
  choose,
  fill,
  getToken,
  open,
  options,
  visit,
  withBrowser,
} from "./browser.mjs";

// A secret that the page does not know, unlike those of the demo clients.
const TYPED = "a-secret-that-is-typed-and-is-not-registered";

// Everything that the page shows or keeps. The page itself offers the secrets of the demo clients.
const kept = (page) =>
  page.evaluate(async () => {
    const fields = [...document.querySelectorAll("input, select, textarea")].map(
      (field) => field.value,
    );
    const databases = (await indexedDB.databases()).map(({ name }) => name);
    const caches = await self.caches.keys();
    const body = document.body.cloneNode(true);
    body.removeAttribute("data-demo-clients");
    return JSON.stringify([
      document.head.outerHTML,
      body.outerHTML,
      fields,
      location.href,
      history.state,
      { ...localStorage },
      { ...sessionStorage },
      document.cookie,
      databases,
      caches,
    ]);
  });

await withBrowser(async (browser) => {
  const { page, context, requested, assertQuiet } = await visit(browser);
  const field = await page.$eval("#client_secret", (found) => ({
    type: found.type,
    autocomplete: found.autocomplete,
    name: found.getAttribute("name"),
    action: found.form?.getAttribute("action") ?? null,
  }));
  assert.deepEqual(field, { type: "password", autocomplete: "off", name: null, action: null });
  const above = await page.$eval("#for_test_clients", (note) => ({
    text: note.textContent,
    isAbove:
      note.getBoundingClientRect().bottom <=
      document.getElementById("client_secret").getBoundingClientRect().top,
  }));
  assert.match(above.text, /test clients.*production secret.*not in a browser/);
  assert.ok(above.isAbove);

  const sent = [];
  context.on("request", (request) =>
    sent.push({ url: request.url(), headers: request.headers(), method: request.method() }),
  );
  for (const service of await options(page, "dialect")) {
    for (const secret of [TYPED, DEMO_SECRET]) {
      await choose(page, service);
      await fill(page, "demo-client", secret, "external-api");
      await page.click("#request-token");
      await page.waitForSelector("#answer[aria-busy=false]");
      await page.waitForSelector("#issued:not([hidden]), #problem:not([hidden])");
      for (const language of await page.$$("[role=tab]")) {
        await language.click();
        assert.ok(!(await kept(page)).includes(secret), `${service} keeps the secret`);
      }
    }
  }
  for (const { url, headers } of sent) {
    assert.ok(!url.includes(TYPED) && !url.includes(DEMO_SECRET), url);
    assert.equal(headers.referer || undefined, undefined);
    assert.equal(headers.cookie, undefined);
  }
  assert.ok(sent.length >= 12);
  const state = await context.storageState({ indexedDB: true });
  assert.deepEqual(state, { cookies: [], origins: [] });
  assert.ok(requested.every((url) => !url.includes(TYPED)));
  assertQuiet([400, 401]);

  // The field is empty after the page was left, whether or not the browser keeps the page.
  await page.fill("#client_secret", TYPED);
  await page.goto(`${base}/docs`);
  await page.goBack();
  assert.equal(await page.inputValue("#client_secret"), "");
  await page.fill("#client_secret", TYPED);
  await page.evaluate(() => window.dispatchEvent(new PageTransitionEvent("pagehide")));
  assert.equal(await page.inputValue("#client_secret"), "");
});

// The page does not follow a redirect with the secret.
await withBrowser(async (browser) => {
  const { page, requested } = await visit(browser);
  await page.route(/connect\/token$/, (route) =>
    route.fulfill({ status: 307, headers: { Location: `${base}/v1/api/oauth/token` } }),
  );
  await fill(page, "demo-client", DEMO_SECRET, "");
  await page.click("#request-token");
  await page.waitForSelector("#problem:not([hidden])");
  assert.match(await page.innerText("#problem"), /No token/);
  assert.ok(!requested.some((url) => url.includes("/v1/api")));
});

// Without a secure context, the button is off and the page says why.
const { port } = new URL(base);
await withBrowser(
  async (browser) => {
    const { page } = await open(browser);
    await page.goto(`http://not-local.test:${port}/`);
    await page.waitForSelector("#tool:not([hidden])");
    assert.equal(await page.evaluate(() => window.isSecureContext), false);
    assert.ok(await page.isDisabled("#request-token"));
    assert.match(await page.innerText("#unavailable"), /not loaded over HTTPS/);
    await page.fill("#client_secret", TYPED);
    await page.press("#client_secret", "Enter");
    assert.equal(await page.inputValue("#client_secret"), TYPED);
    assert.equal(await page.isHidden("#problem"), true);
  },
  ["--host-resolver-rules=MAP not-local.test 127.0.0.1"],
);

// A token is also got over the name of this machine, which is a secure context.
await withBrowser(async (browser) => {
  const { page } = await open(browser);
  await page.goto(`http://localhost:${port}/`);
  await page.waitForSelector("#tool:not([hidden])");
  await page.click("#demo_buttons button:first-child");
  assert.equal(await getToken(page), "valid");
});
