// The pages serve people who use a keyboard, a screen reader, a phone, a dark screen or no script.

import assert from "node:assert/strict";
import { AXE, base, choose, fill, getToken, open, visit, withBrowser } from "./browser.mjs";

// Axe finds no violation in any state of the pages, in light and dark, wide and narrow.
async function assertAccessible(page, state) {
  const { violations } = await page.evaluate(() => window.axe.run());
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html)}`);
  assert.deepEqual(found, [], state);
}

await withBrowser(async (browser) => {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390, 320]) {
      const viewport = { width, height: 800 };
      const state = `${colorScheme} ${width}`;
      const { page, context } = await visit(browser, { colorScheme, viewport, bypassCSP: true });
      await page.addScriptTag({ path: AXE });
      await assertAccessible(page, `${state} start`);
      await page.click("#demo_buttons button:first-child");
      assert.equal(await getToken(page), "valid");
      await page.click("#raw summary");
      await assertAccessible(page, `${state} token`);
      await assertFits(page, `${state} token`);
      await fill(page, "demo-client", "wrong", "");
      await page.click("#request-token");
      await page.waitForSelector("#problem:not([hidden])");
      await assertAccessible(page, `${state} refusal`);
      for (const tab of await page.$$("[role=tab]")) {
        await tab.click();
        await assertFits(page, `${state} code`);
      }
      await choose(page, "firstvision: GET /v1/getAccessToken", "scope in the body");
      await assertAccessible(page, `${state} button off`);
      await assertFits(page, `${state} button off`);
      for (const path of ["/docs", "/nothing-here"]) {
        await page.goto(base + path);
        await page.addScriptTag({ path: AXE });
        await assertAccessible(page, `${state} ${path}`);
        await assertFits(page, `${state} ${path}`);
      }
      await context.close();
    }
  }
});

// Nothing is wider than the screen.
async function assertFits(page, state) {
  const [width, screen] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    window.innerWidth,
  ]);
  assert.ok(width <= screen, `${state}: ${width} on ${screen}`);
}

// A token is got, and code is chosen and copied, by the keyboard alone.
await withBrowser(async (browser) => {
  const { page, context, assertQuiet } = await visit(browser);
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const focused = () =>
    page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
  const tabTo = async (target) => {
    const passed = [];
    for (let presses = 0; presses < 40; presses += 1) {
      await page.keyboard.press("Tab");
      const at = await focused();
      passed.push(at);
      const outline = await page.evaluate(
        () => getComputedStyle(document.activeElement).outlineStyle,
      );
      assert.equal(outline, "solid", `${at} does not show that it has the focus`);
      if (at === target) return passed;
    }
    return assert.fail(`${target} cannot be reached: ${passed}`);
  };
  // The order of the focus is that of the form.
  const passed = await tabTo("demo-client");
  assert.deepEqual(passed, [
    "grantd",
    "Get a token",
    "Reference",
    "OpenAPI",
    "dialect",
    "encoding",
    "demo-client",
  ]);
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "request-token");
  assert.equal(await page.inputValue("#client_id"), "demo-client");
  await page.keyboard.press("Space");
  await page.waitForSelector("#verification[data-state=valid]");
  assert.equal(await focused(), "request-token", "the focus was lost");

  await tabTo("Copy token");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.activeElement.textContent === "Copied");
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(copied, await page.textContent("#token"));

  await tabTo("language-curl");
  for (const [key, expected] of [
    ["ArrowRight", "language-python"],
    ["End", "language-java"],
    ["ArrowRight", "language-curl"],
    ["ArrowLeft", "language-java"],
    ["Home", "language-curl"],
    ["ArrowRight", "language-python"],
  ]) {
    await page.keyboard.press(key);
    assert.equal(await focused(), expected);
    assert.equal(await page.getAttribute(`#${expected}`, "aria-selected"), "true");
  }
  assert.match(await page.innerText("#snippet"), /^import os\n/);
  await tabTo("snippet");

  // Enter in a field sends the request.
  await page.focus("#client_secret");
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#problem:not([hidden])");
  assertQuiet([400]);
});

// What changes is announced.
await withBrowser(async (browser) => {
  const { page } = await visit(browser);
  const roles = await page.$$eval("#status, #verification, #problem, #clock", (found) =>
    Object.fromEntries(found.map((one) => [one.id, one.getAttribute("role")])),
  );
  // A timer is not announced each second.
  assert.deepEqual(roles, {
    status: "status",
    problem: "alert",
    verification: "status",
    clock: "timer",
  });
  for (const id of ["client_id", "client_secret", "scope", "dialect", "encoding", "app_context"]) {
    const labels = await page.$eval(`#${id}`, (field) =>
      [...field.labels].map((label) => label.textContent.trim()),
    );
    assert.ok(labels.length === 1 && labels[0] !== "", `${id}: ${labels}`);
  }
  // A name is read out only of an element with a role.
  assert.deepEqual(await page.$$eval("#tool pre:not([role=group])", (texts) => texts.length), 0);
});

// A motion that is not wanted does not happen.
await withBrowser(async (browser) => {
  const durations = [];
  for (const reducedMotion of ["reduce", "no-preference"]) {
    const { page } = await visit(browser, { reducedMotion });
    durations.push(await page.$eval("#left", (bar) => getComputedStyle(bar).transitionDuration));
  }
  assert.deepEqual(durations, ["0s", "1s"]);
});

// With forced colors, what is selected still differs from what is not.
await withBrowser(async (browser) => {
  const { page } = await visit(browser, { forcedColors: "active" });
  const looks = await page.$$eval("[role=tab]", (tabs) =>
    tabs.map((tab) => getComputedStyle(tab).backgroundColor),
  );
  assert.ok(looks.length > 2 && !looks.slice(1).includes(looks[0]), String(looks));
  assert.equal(new Set(looks.slice(1)).size, 1);
});

// Without JavaScript, a text says what to do, and the reference is whole.
await withBrowser(async (browser) => {
  const { page, assertQuiet } = await open(browser, { javaScriptEnabled: false });
  await page.goto(`${base}/`);
  const text = await page.locator("main").innerText();
  assert.match(text, /needs JavaScript[^]*curl [^]*\/connect\/token/);
  assert.ok(!text.includes("Client secret"), text);
  await page.click("main a[href=docs]");
  assert.ok(page.url().endsWith("/docs"));
  const reference = await page.innerText("main");
  for (const path of ["/connect/token", "/v1/api/oauth/token", "/v1/getAccessToken"]) {
    assert.ok(reference.includes(path), path);
  }
  assertQuiet();
});

// The reference and the page for unknown paths load nothing else, and obey the policy.
await withBrowser(async (browser) => {
  const { page, assertQuiet } = await open(browser);
  await page.goto(`${base}/docs`);
  assert.equal((await page.$$("script")).length, 0);
  assertQuiet();
  await page.goto(`${base}/nothing-here/at-all`);
  assert.match(await page.innerText("h1"), /nothing at this path/);
  await page.click("nav a >> nth=0");
  await page.waitForSelector("#tool:not([hidden])");
  assertQuiet([404]);
});
