// Reads a token and checks its signature.

function bytes(base64url) {
  const binary = atob(base64url.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function json(part) {
  return JSON.parse(new TextDecoder().decode(bytes(part)));
}

// Returns the header and the claims of a token. Throws if it is not a JWT.
export function decode(token) {
  const parts = token.split(".");
  if (parts.length !== 3) throw new Error("not a JWT");
  return { header: json(parts[0]), claims: json(parts[1]) };
}

// Checks the signature against the key set. A token without a `kid` is checked against every key.
// Returns the `kid` of the key that verifies it, or `null`.
export async function verifyingKey(token, keySet) {
  const [header, payload, signature] = token.split(".");
  const { alg, kid } = json(header);
  if (alg !== "RS256") return null;
  const signed = new TextEncoder().encode(`${header}.${payload}`);
  const candidates = keySet.keys.filter(
    (key) => key.kty === "RSA" && (kid === undefined || key.kid === kid),
  );
  const algorithm = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  for (const { kty, n, e, kid: id } of candidates) {
    const key = await crypto.subtle.importKey("jwk", { kty, n, e }, algorithm, false, ["verify"]);
    if (await crypto.subtle.verify(algorithm, key, bytes(signature), signed)) return id;
  }
  return null;
}

// What the members of `expires_in` mean differs between the services.
export function explainExpiresIn(dialect, expiresIn) {
  const meaning = {
    connect: "the seconds until the token expires",
    vision: "the seconds until the token expires, less one",
    firstvision: "the time at which the token expires, in Unix seconds, and not a duration",
  }[dialect];
  return `In the answer, expires_in is ${expiresIn}: ${meaning}.`;
}

// Writes seconds as 1:02:03 or 02:03.
export function clockText(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  const rest = `${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
  return hours > 0 ? `${hours}:${rest}` : rest;
}
