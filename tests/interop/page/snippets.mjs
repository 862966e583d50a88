// Runs the code that the page shows, for each service, encoding and language.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { choose, fill, octet, options, special, visit, withBrowser } from "./browser.mjs";

const directory = process.argv[3];
const secrets = {
  [special.id]: special.secret,
  [octet.id]: octet.secret,
};

// The file of the code, and the command that runs it. No .NET is among Debian's packages, so C# is
// not run.
const LANGUAGES = {
  curl: ["token.sh", "sh", []],
  Python: ["get_token.py", process.env.PYTHON, []],
  JavaScript: ["token.mjs", process.execPath, []],
  Go: ["token.go", "go", ["run"]],
  PHP: ["token.php", "php", []],
  Java: ["Token.java", "java", ["-Xshare:auto", "-XX:TieredStopAtLevel=1"]],
};
const NOT_RUN = ["C#"];

const codes = [];
await withBrowser(async (browser) => {
  const { page, assertQuiet } = await visit(browser);
  const names = await page.$$eval("[role=tab]", (tabs) => tabs.map((tab) => tab.textContent));
  assert.deepEqual([...names].sort(), [...Object.keys(LANGUAGES), ...NOT_RUN].sort());
  for (const service of (await options(page, "dialect")).slice(0, 4)) {
    await choose(page, service);
    for (const encoding of await options(page, "encoding")) {
      await choose(page, service, encoding);
      const { id, secret, scope } = encoding.includes("octet-stream") ? octet : special;
      await fill(page, id, secret, scope);
      for (const name of names) {
        await page.click(`[role=tab] >> text="${name}"`);
        codes.push({ service, encoding, name, id, code: await page.textContent("#snippet") });
      }
    }
  }
  assertQuiet();
});

let ran = 0;
for (const [index, { service, encoding, name, id, code }] of codes.entries()) {
  const what = `${name}, ${service}, ${encoding}`;
  assert.ok(
    !code.includes(secrets[id]) &&
      code.includes("CLIENT_SECRET") &&
      [id, encodeURIComponent(id)].some((text) => code.includes(text)),
    what,
  );
  if (NOT_RUN.includes(name)) continue;
  const [file, program, options] = LANGUAGES[name];
  const folder = join(directory, String(index));
  mkdirSync(folder);
  writeFileSync(join(folder, file), `${code}\n`);
  const ended = spawnSync(program, [...options, file], {
    cwd: folder,
    encoding: "utf8",
    timeout: 120_000,
    env: {
      PATH: process.env.PATH,
      HOME: directory,
      GOCACHE: join(directory, "go"),
      GO111MODULE: "off",
      CGO_ENABLED: "0",
      CLIENT_SECRET: secrets[id],
    },
  });
  const printed = `${what}\n${code}\n${ended.stdout}\n${ended.stderr}\n${ended.error ?? ""}`;
  assert.equal(ended.status, 0, printed);
  if (name === "curl") assert.doesNotMatch(code, /^(?!printf).*\$/m, what);
  assert.match(ended.stdout, /eyJ[\w-]+\.eyJ[\w-]+\.[\w-]{342}\b/, printed);
  ran += 1;
}
assert.ok(ran >= 60, `only ${ran}`);
console.log(`${ran} of ${codes.length} run; C# is not run`);
