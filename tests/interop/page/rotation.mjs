// A page that was loaded before the signing key was replaced still verifies the tokens.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { fillFor, getToken, visit, withBrowser } from "./browser.mjs";

const [program, ...replaceKey] = JSON.parse(process.argv[3]);

await withBrowser(async (browser) => {
  const { page, assertQuiet } = await visit(browser);
  const kids = [];
  for (let tokens = 0; tokens < 2; tokens += 1) {
    await fillFor(page, "");
    assert.equal(await getToken(page), "valid");
    kids.push(JSON.parse(await page.textContent("#token-header")).kid);
    if (tokens === 0) execFileSync(program, replaceKey);
  }
  assert.notEqual(kids[0], kids[1], "the key was not replaced");
  assertQuiet();
});
