// A browser, and pages that watch what they load and what they say.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const packages = createRequire(`${process.env.BROWSER_PACKAGES}/`);
const { chromium } = packages("playwright-core");
export const AXE = packages.resolve("axe-core/axe.min.js");

// The server's URL, and the clients that the test registers. Passed by the test in Rust.
export const { base, routes, octet, limited, special } = JSON.parse(process.argv[2]);

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// Runs `test` with a browser that has a new profile.
export async function withBrowser(test, flags = []) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [...FLAGS, ...flags],
  });
  try {
    await test(browser);
  } finally {
    await browser.close();
  }
}

// Opens a new page. `assertQuiet` fails if the page has asked another host, or if the console has a
// message, except those about refusals with one of the statuses `refused`.
export async function open(browser, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const requested = [];
  const messages = [];
  context.on("request", (request) => requested.push(request.url()));
  page.on("console", (message) => messages.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => messages.push(`exception: ${error.message}`));
  // Violations of the policy are events, too, which the console might not show.
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`violation of ${event.violatedDirective}: ${event.blockedURI}`);
    });
  });
  const assertQuiet = (refused = []) => {
    const origin = new URL(base).origin;
    const elsewhere = requested.filter((url) => new URL(url).origin !== origin);
    assert.deepEqual(elsewhere, []);
    assert.ok(requested.length > 0);
    const isRefusal = (message) =>
      refused.some((status) =>
        message.startsWith(
          `error: Failed to load resource: the server responded with a status of ${status} `,
        ),
      );
    assert.deepEqual(
      messages.filter((message) => !isRefusal(message)),
      [],
    );
  };
  return { context, page, requested, messages, assertQuiet };
}

// Opens the page for tokens and waits until it has read the OpenAPI document.
export async function visit(browser, options = {}) {
  const opened = await open(browser, options);
  await opened.page.goto(`${base}/`);
  await opened.page.waitForSelector("#tool:not([hidden])");
  return opened;
}

// Returns the labels of the options of a select element.
export const options = (page, id) =>
  page.$$eval(`#${id} option`, (found) => found.map((option) => option.label));

export async function choose(page, service, encoding) {
  await page.selectOption("#dialect", { label: service });
  if (encoding !== undefined) await page.selectOption("#encoding", { label: encoding });
}

// Fills the form with the first demo client that is offered, or with `octet` for its encoding.
export async function fillFor(page, encoding) {
  if (encoding.includes("octet-stream")) {
    await fill(page, octet.id, octet.secret, octet.scope);
  } else {
    await page.click("#demo_buttons button:first-child");
  }
}

export async function fill(page, id, secret, scope) {
  await page.fill("#client_id", id);
  await page.fill("#client_secret", secret);
  await page.fill("#scope", scope);
}

// Presses the button and returns the state of the verification of the token.
export async function getToken(page) {
  await page.click("#request-token");
  const badge = page.locator("#verification[data-state]");
  await badge.waitFor().catch(async () => {
    assert.fail(`no token: ${await page.innerText("#answer")}`);
  });
  return badge.getAttribute("data-state");
}

export const DEMO_SECRET = "demo-secret-for-local-use-only-0001";
