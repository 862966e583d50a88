// The page: it fills the form from the OpenAPI document, sends the request, and shows the answer.

import {
  TIME_LIMIT,
  advice,
  describe,
  hindrance,
  readRefusal,
  send,
  tokenOperations,
} from "./operations.js";
import { LANGUAGES } from "./snippets.js";
import { clockText, decode, explainExpiresIn, verifyingKey } from "./token.js";

const element = (id) => document.getElementById(id);
const [dialect, encoding, appContext, clientId, clientSecret, scope] = [
  "dialect",
  "encoding",
  "app_context",
  "client_id",
  "client_secret",
  "scope",
].map(element);
const button = element("request-token");

// Why an answer has neither a token nor a refusal.
const FOREIGN =
  "This is not an answer of the token service: something in front of it, such as a proxy, has " +
  "answered. It is shown below as received; show it to the operator.";

const VARIABLE_HINT =
  "The code reads the secret from the environment variable CLIENT_SECRET. In bash or zsh, type " +
  "read -rs CLIENT_SECRET && export CLIENT_SECRET, then the secret: so it is not in the shell’s " +
  "history.";

// The URL of the server, without a slash at its end. The page is at this URL.
const base = new URL(".", location.href).href.replace(/\/$/, "");
const demoClients = JSON.parse(document.body.dataset.demoClients);
let openapi;
let operations;
let language = LANGUAGES[0];
let stopClock = () => {};

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function fill(select, labels) {
  select.replaceChildren(...labels.map((text, value) => make("option", { value, text })));
}

const operation = () => operations[dialect.value];
const chosenEncoding = () => operation().encodings[encoding.value];

function request(id = clientId.value) {
  const values = {
    clientId: id,
    scope: scope.value.trim(),
    appContext: appContext.value,
  };
  return describe(operation(), chosenEncoding(), values, base);
}

function chooseOperation() {
  const { encodings, appContexts, needsScope } = operation();
  fill(
    encoding,
    encodings.map(({ label }) => label),
  );
  appContext.replaceChildren(
    ...appContexts.map((name) => make("option", { value: name, text: name })),
  );
  element("app_context_field").hidden = appContexts.length === 0;
  element("scope_optional").hidden = needsScope;
  offerDemoClients();
  show();
}

// Shows what follows from the form: the code, and whether the browser can send the request.
function show() {
  const described = request();
  const reason = unavailable() || hindrance(described);
  element("unavailable").textContent = reason;
  button.disabled = reason !== "";
  const shown = clientId.value === "" ? request("your-client-id") : described;
  element("snippet").textContent = language.write(shown);
  element("snippet_hint").textContent = `${VARIABLE_HINT} ${language.run}`;
}

// Why the browser may not send a secret at all; "" if it may.
function unavailable() {
  if (window.isSecureContext) return "";
  return (
    "The button is off because this page was not loaded over HTTPS or from this machine: the " +
    "secret would cross the network in clear text, and the browser could not check the token."
  );
}

// The scope that a demo client may request from the chosen service.
function demoScope(client) {
  return operation().appContexts.length > 0 ? client.scope_in_context : client.scope;
}

function offerDemoClients() {
  const offered = demoClients.filter((client) => demoScope(client) !== null);
  element("demo").hidden = offered.length === 0;
  const buttons = offered.map((client) => {
    const filler = make("button", { type: "button", textContent: client.id });
    filler.addEventListener("click", () => {
      clientId.value = client.id;
      clientSecret.value = client.secret;
      scope.value = demoScope(client);
      show();
      button.focus();
    });
    return filler;
  });
  element("demo_buttons").replaceChildren(...buttons);
  // A scope that the page has filled in follows the service.
  const filled = demoClients.find(({ id }) => id === clientId.value);
  if (filled && [filled.scope, filled.scope_in_context].includes(scope.value)) {
    scope.value = demoScope(filled) ?? filled.scope;
  }
}

async function requestToken() {
  if (button.disabled || element("answer").ariaBusy === "true") return;
  const described = request();
  const { dialect: spoken } = operation();
  const secret = clientSecret.value;
  const hasSpaces = [clientId.value, secret].some((text) => text !== text.trim());
  clientSecret.value = "";
  clear();
  // The button is not disabled meanwhile: it would lose the focus.
  element("answer").ariaBusy = "true";
  element("status").textContent = "Asking for a token …";
  try {
    const response = await send(described, secret);
    const text = await response.text();
    element("raw_text").textContent = pretty(text);
    element("raw").hidden = false;
    if (response.ok) await showToken(spoken, response, text);
    else showRefusal(spoken, response, text, hasSpaces);
  } catch (error) {
    const isLate = error.name === "TimeoutError";
    showProblem("No token", [
      isLate
        ? `The answer did not arrive within ${TIME_LIMIT / 1000} seconds.`
        : `The request failed: ${error.message}.`,
      isLate
        ? "Try again; if that does not help, check that the server is running and not overloaded."
        : "Check that the server is running, and that this page comes from the same address.",
    ]);
  } finally {
    element("answer").ariaBusy = "false";
  }
}

function clear() {
  stopClock();
  for (const id of ["problem", "issued", "raw"]) element(id).hidden = true;
  for (const id of ["token", "token-header", "verification", "clock", "raw_text", "expires_in"]) {
    element(id).textContent = "";
  }
  element("problem").replaceChildren();
  element("claims").tBodies[0].replaceChildren();
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

async function showToken(spoken, response, text) {
  const [answer, read] = readToken(text);
  if (read === null) {
    showProblem(`${response.status}, but no token`, [FOREIGN]);
    return;
  }
  const token = answer.access_token;
  const { header, claims } = read;
  const parts = token
    .split(".")
    .flatMap((part, index) => [
      index > 0 ? "." : "",
      make("span", { className: ["head", "payload", "signature"][index], textContent: part }),
    ]);
  element("token").replaceChildren(...parts);
  element("token-header").textContent = JSON.stringify(header, null, 2);
  element("claims").tBodies[0].replaceChildren(...Object.entries(claims).map(claimRow));
  element("expires_in").textContent = explainExpiresIn(spoken, answer.expires_in);
  // The time of the server, since the clock of this machine may differ.
  const asked = Date.parse(response.headers.get("Date") ?? new Date()) / 1000;
  startClock(claims.exp - asked, claims.exp - (claims.iat ?? asked));
  element("issued").hidden = false;
  element("status").textContent = "The server has issued a token.";
  reveal();
  await showVerification(token);
}

// Returns the answer and its token, decoded; `null` instead of a token if it has none.
function readToken(text) {
  try {
    const answer = JSON.parse(text);
    return [answer, decode(answer.access_token)];
  } catch {
    return [null, null];
  }
}

function claimRow([name, value]) {
  const isTime = ["exp", "iat", "nbf"].includes(name);
  const shown = typeof value === "string" ? value : JSON.stringify(value);
  const cell = make("td", { textContent: shown });
  if (isTime) {
    cell.append(
      make("span", {
        className: "hint",
        textContent: ` ${new Date(value * 1000).toLocaleString()}`,
      }),
    );
  }
  return make("tr", {}, make("th", { scope: "row", textContent: name }), cell);
}

async function showVerification(token) {
  let state = "unknown";
  let text = "Signature not checked: the key set cannot be read";
  try {
    // The browser's copy of the key set may lack the key of a new token.
    const response = await fetch(`${base}/.well-known/openid-configuration/jwks`, {
      credentials: "omit",
      cache: "no-cache",
      signal: AbortSignal.timeout(TIME_LIMIT),
    });
    const keySet = await response.json();
    const key = await verifyingKey(token, keySet).catch(() => null);
    state = key === null ? "invalid" : "valid";
    text =
      key === null
        ? "Signature invalid: no key of this server verifies it"
        : `Signature valid (key ${key.slice(0, 8)}…)`;
  } catch {
    // The text above says so.
  }
  const badge = element("verification");
  badge.dataset.state = state;
  badge.textContent = text;
}

// Counts down the seconds that are left of a lifetime. It reads the clock of the machine, because
// performance.now() stands still while the machine sleeps.
function startClock(left, lifetime) {
  const end = Date.now() + left * 1000;
  const tick = () => {
    const seconds = Math.max(0, Math.round((end - Date.now()) / 1000));
    element("clock").textContent = seconds > 0 ? `Expires in ${clockText(seconds)}` : "Expired";
    element("clock").dataset.state = seconds > 0 ? "valid" : "invalid";
    element("left").style.width = `${Math.min(100, (100 * seconds) / lifetime)}%`;
    if (seconds === 0) {
      stopClock();
      element("status").textContent = "The token has expired.";
    }
  };
  const timer = setInterval(tick, 1000);
  stopClock = () => clearInterval(timer);
  tick();
}

function showRefusal(spoken, response, text, hasSpaces) {
  const refusal = readRefusal(spoken, text);
  const lines = [];
  if (refusal.text !== "") lines.push(make("q", { textContent: refusal.text }));
  const unknown = refusal.code === "" ? FOREIGN : "The reference lists the errors of this service.";
  lines.push(advice(openapi, spoken, response.status, refusal) || unknown);
  if (hasSpaces) lines.push("The client id or the secret begins or ends with a space.");
  const wait = response.headers.get("Retry-After");
  if (wait !== null) lines.push(`Wait ${wait} seconds before you try again.`);
  const id = response.headers.get("X-Request-Id");
  if (id !== null) {
    const quote = make("code", { id: "request_id", textContent: id });
    lines.push(make("span", {}, "The request id, to quote to the operator: ", quote));
  }
  showProblem(`${response.status} ${refusal.code}`, lines);
}

function showProblem(title, lines) {
  element("status").textContent = "";
  const paragraphs = lines.map((line) => make("p", {}, line));
  element("problem").replaceChildren(make("h3", { textContent: title }), ...paragraphs);
  element("problem").hidden = false;
  reveal();
}

// On a narrow screen, the answer is below the form.
function reveal() {
  const answer = element("answer");
  if (answer.getBoundingClientRect().top > window.innerHeight / 2) answer.scrollIntoView();
}

function chooseLanguage(chosen, moveFocus) {
  language = chosen;
  for (const tab of element("languages").children) {
    const isChosen = tab.id === `language-${chosen.id}`;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    if (isChosen && moveFocus) tab.focus();
  }
  element("snippet_panel").setAttribute("aria-labelledby", `language-${chosen.id}`);
  show();
}

function makeTabs() {
  const tabs = LANGUAGES.map((offered) => {
    const tab = make("button", {
      type: "button",
      role: "tab",
      id: `language-${offered.id}`,
      textContent: offered.name,
    });
    tab.setAttribute("aria-controls", "snippet_panel");
    tab.addEventListener("click", () => chooseLanguage(offered, false));
    return tab;
  });
  element("languages").replaceChildren(...tabs);
  element("languages").addEventListener("keydown", (event) => {
    const at = LANGUAGES.indexOf(language);
    const last = LANGUAGES.length - 1;
    const next = {
      ArrowRight: at === last ? 0 : at + 1,
      ArrowLeft: at === 0 ? last : at - 1,
      Home: 0,
      End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    chooseLanguage(LANGUAGES[next], true);
  });
}

function makeCopyButtons() {
  for (const copier of document.querySelectorAll("[data-copies]")) {
    const label = copier.textContent;
    copier.addEventListener("click", async () => {
      const source = element(copier.dataset.copies);
      try {
        await navigator.clipboard.writeText(source.textContent);
        copier.textContent = "Copied";
        element("status").textContent = "Copied to the clipboard.";
      } catch {
        // Without the clipboard, the text is selected, so that the keyboard copies it.
        getSelection().selectAllChildren(source);
        source.focus();
      }
      setTimeout(() => {
        copier.textContent = label;
      }, 2000);
    });
  }
}

async function start() {
  const response = await fetch(`${base}/openapi.json`, {
    credentials: "omit",
    signal: AbortSignal.timeout(TIME_LIMIT),
  });
  openapi = await response.json();
  operations = tokenOperations(openapi);
  fill(
    dialect,
    operations.map(({ dialect: name, method, path }) => `${name}: ${method} ${path}`),
  );
  makeTabs();
  makeCopyButtons();
  chooseOperation();
  chooseLanguage(language, false);
  dialect.addEventListener("change", chooseOperation);
  for (const field of [encoding, appContext]) field.addEventListener("change", show);
  for (const field of [clientId, scope]) field.addEventListener("input", show);
  element("form").addEventListener("submit", (event) => {
    event.preventDefault();
    requestToken();
  });
  // The secret must not come back from the browser's cache of pages.
  window.addEventListener("pagehide", () => {
    clientSecret.value = "";
  });
  element("tool").hidden = false;
}

start().catch((error) => {
  element("broken").textContent =
    `This page cannot read openapi.json of this server (${error.message}). Load it again.`;
  element("broken").hidden = false;
});
