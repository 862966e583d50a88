// The token requests that the OpenAPI document describes, and its explanations of refusals.

// Stands for the client's secret wherever a request has it.
export const SECRET = Symbol("the client's secret");

// The time that an answer may take, in milliseconds.
export const TIME_LIMIT = 30_000;

const TOKEN_ROUTES = ["token", "vision_token", "vision_v2_token", "firstvision_token"];
const SCOPE_SEGMENT = "/{scope}";

// Returns every operation that issues tokens, each with the encodings of its requests.
export function tokenOperations(openapi) {
  const operations = [];
  for (const [path, item] of Object.entries(openapi.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (!TOKEN_ROUTES.includes(operation["x-route"]) || path.endsWith(SCOPE_SEGMENT)) continue;
      const dialect = operation["x-dialect"];
      const appContext = operation.parameters?.find((parameter) => parameter.name === "appContext");
      operations.push({
        dialect,
        path,
        method: method.toUpperCase(),
        appContexts: appContext?.schema.enum ?? [],
        needsScope: dialect === "vision",
        encodings: encodings(openapi, path, operation),
      });
    }
  }
  return operations;
}

function encodings(openapi, path, operation) {
  const types = Object.keys(operation.requestBody?.content ?? { "application/json": {} });
  if (operation["x-dialect"] === "firstvision") {
    const places = ["query", "path", "body"].filter(
      (place) => place !== "path" || openapi.paths[path + SCOPE_SEGMENT],
    );
    return types.flatMap((type, index) =>
      places.map((place) => ({
        place,
        type,
        basic: true,
        label: `scope in the ${place}${index > 0 ? `, ${type}` : ""}`,
      })),
    );
  }
  const inBody = types.map((type) => ({ place: "body", type, basic: false, label: type }));
  const acceptsBasic = operation.security?.some((requirement) =>
    Object.keys(requirement).some((name) => {
      const scheme = openapi.components?.securitySchemes?.[name];
      return scheme?.type === "http" && scheme.scheme.toLowerCase() === "basic";
    }),
  );
  if (operation["x-dialect"] !== "connect" || !acceptsBasic) return inBody;
  const byBasic = types.map((type) => ({
    place: "body",
    type,
    basic: true,
    label: `${type}, id and secret by HTTP Basic`,
  }));
  return [...inBody, ...byBasic];
}

// Returns the request as values: what is sent, and what the code for other languages shows.
export function describe(operation, encoding, values, base) {
  const { clientId, scope, appContext } = values;
  const isFirstvision = operation.dialect === "firstvision";
  const url = new URL(base + operation.path);
  if (operation.appContexts.length > 0) url.searchParams.set("appContext", appContext);
  let target = url.href;
  const isDots = encoding.place === "path" && [".", ".."].includes(scope);
  if (isFirstvision && scope !== "") {
    const isInQuery = encoding.place === "query" || isDots;
    if (isInQuery) target += `?scope=${encodeURIComponent(scope)}`;
    else if (encoding.place === "path") target += `/${encodeURIComponent(scope)}`;
  }
  const request = {
    method: operation.method,
    url: target,
    clientId,
    basic: encoding.basic,
    type: encoding.type,
    kind: "none",
    fields: [],
    isDots,
  };
  if (isFirstvision) {
    if (encoding.place === "body") {
      request.kind = "json";
      request.fields = [["scope", scope.split(" ").filter((token) => token !== "")]];
    }
    return request;
  }
  const credentials = encoding.basic
    ? []
    : [
        ["client_id", clientId],
        ["client_secret", SECRET],
      ];
  const scopes = scope !== "" || operation.needsScope ? [["scope", scope]] : [];
  request.fields = [["grant_type", "client_credentials"], ...scopes, ...credentials];
  if (encoding.type === "multipart/form-data") request.kind = "multipart";
  else if (encoding.type === "application/x-www-form-urlencoded") request.kind = "form";
  else request.kind = "json";
  return request;
}

// Why a browser cannot send the request; "" if it can.
export function hindrance(request) {
  if (request.method === "GET" && request.kind !== "none") {
    return (
      "A browser cannot send a GET request with a body. Choose the query or the path, or use the " +
      "code for your program."
    );
  }
  if (request.isDots) {
    return (
      "A scope of dots alone cannot be in the path: URL libraries take it for a step between " +
      "folders. Choose the query; the code has the scope there."
    );
  }
  return "";
}

// Sends the request with this secret.
export function send(request, secret) {
  const filled = request.fields.map(([name, value]) => [name, value === SECRET ? secret : value]);
  const headers = new Headers();
  let body;
  if (request.kind === "multipart") {
    body = new FormData();
    for (const [name, value] of filled) body.append(name, value);
  } else if (request.kind === "form") {
    body = new URLSearchParams(filled);
  } else {
    headers.set("Content-Type", request.type);
    if (request.kind === "json") body = JSON.stringify(Object.fromEntries(filled));
  }
  if (request.basic) {
    // RFC 6749, section 2.3.1: both are form-encoded first, so that an id may contain a colon.
    const encode = (text) => new URLSearchParams([["", text]]).toString().slice(1);
    headers.set("Authorization", `Basic ${btoa(`${encode(request.clientId)}:${encode(secret)}`)}`);
  }
  return fetch(request.url, {
    method: request.method,
    headers,
    body,
    credentials: "omit",
    cache: "no-store",
    redirect: "error",
    referrerPolicy: "no-referrer",
    signal: AbortSignal.timeout(TIME_LIMIT),
  });
}

// Returns the code and the text of a refusal, which each dialect writes in its own form.
export function readRefusal(dialect, text) {
  let body;
  try {
    body = JSON.parse(text);
  } catch {
    return { code: "", text: "" };
  }
  if (dialect === "vision") body = body?.[0];
  const [code, message] = {
    connect: [body?.error, body?.error_description],
    vision: [body?.errorCode, body?.["invalid-params"]?.[0]],
    firstvision: [body?.errorCode, body?.errorMessage],
  }[dialect];
  const isText = (value) => typeof value === "string";
  return { code: isText(code) ? code : "", text: isText(message) ? message : "" };
}

// Returns what the caller can do about a refusal, in the words of the server; "" if there are none.
export function advice(openapi, dialect, status, { code, text }) {
  const known = openapi["x-refusals"]?.[dialect] ?? [];
  const found = known.find(
    (refusal) => refusal.status === status && refusal.code === code && refusal.text === text,
  );
  return found?.what_to_do ?? "";
}
