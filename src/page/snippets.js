// The same request as code in several languages. No code contains the secret: it reads the secret
// from the environment variable CLIENT_SECRET.

import { SECRET } from "./operations.js";

const VARIABLE = "CLIENT_SECRET";

// A string literal in Python, JavaScript, Go, C# and Java.
const quoted = (text) => JSON.stringify(text);
const inShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const inPhp = (text) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
const hasBody = (request) => request.kind !== "none";

// The name and the value of each field: texts by `literal`, lists by `list`, or the code `secret`.
function pairs(request, literal, secret, list = (values) => `[${values.join(", ")}]`) {
  return request.fields.map(([name, value]) => {
    if (value === SECRET) return [literal(name), secret];
    return [literal(name), Array.isArray(value) ? list(value.map(literal)) : literal(value)];
  });
}

function fields(request, write, literal, secret, list) {
  return pairs(request, literal, secret, list).map(([name, value]) => write(name, value));
}

// The secret is in no argument, because other users can list those: curl reads it from its input.
function curl(request) {
  const options = [];
  let input = `printf %s "$${VARIABLE}" | `;
  if (request.basic) {
    const user = quoted(`user = "${encodeURIComponent(request.clientId)}:`).slice(1, -1);
    input = `jq -nr ${inShell(`"${user}\\(env.${VARIABLE} | @uri)\\""`)} |\n`;
    options.push("--config -");
  }
  const [option, secret] =
    request.kind === "multipart"
      ? ["--form-string", "--form 'client_secret=<-'"]
      : ["--data-urlencode", "--data-urlencode client_secret@-"];
  if (request.kind === "multipart" || request.kind === "form") {
    for (const [name, value] of request.fields) {
      options.push(value === SECRET ? secret : `${option} ${inShell(`${name}=${value}`)}`);
    }
  } else {
    options.push(`--header ${inShell(`Content-Type: ${request.type}`)}`);
    if (request.method === "GET" && hasBody(request)) options.push("--request GET");
    const members = pairs(request, quoted, `env.${VARIABLE}`).map((pair) => pair.join(": "));
    if (request.basic && hasBody(request)) {
      options.push(`--data ${inShell(`{${members.join(", ")}}`)}`);
    } else if (hasBody(request)) {
      input = `jq -n ${inShell(`{\n  ${members.join(",\n  ")}\n}`)} |\n`;
      options.push("--data @-");
    }
  }
  return `${input}${[`curl ${inShell(request.url)}`, ...options].join(" \\\n  ")}`;
}

function python(request) {
  const secret = `os.environ["${VARIABLE}"]`;
  const pair = (name, value) => `        ${name}: ${value},`;
  const lines = [];
  let imports = "";
  if (request.basic) {
    imports = "from urllib.parse import quote_plus\n";
    lines.push(`    auth=(quote_plus(${quoted(request.clientId)}), quote_plus(${secret})),`);
  }
  if (request.kind === "multipart") {
    const parts = fields(
      request,
      (name, value) => `        ${name}: (None, ${value}),`,
      quoted,
      secret,
    );
    lines.push("    files={", ...parts, "    },");
  } else if (request.kind === "form") {
    lines.push("    data={", ...fields(request, pair, quoted, secret), "    },");
  } else {
    lines.push(`    headers={"Content-Type": ${quoted(request.type)}},`);
    if (hasBody(request))
      lines.push("    json={", ...fields(request, pair, quoted, secret), "    },");
  }
  return `import os
${imports}
import requests

response = requests.${request.method.toLowerCase()}(
    ${quoted(request.url)},
${lines.join("\n")}
    timeout=10,
)
print(response.json()["access_token"] if response.ok else response.text)`;
}

function javascript(request) {
  const secret = `process.env.${VARIABLE}`;
  const headers = [];
  let before = "";
  let body = "";
  let { url } = request;
  if (request.basic) {
    before = `const pair = [${quoted(request.clientId)}, ${secret}].map(encodeURIComponent).join(":");
const basic = Buffer.from(pair).toString("base64");\n`;
    headers.push("    Authorization: `Basic ${basic}`,");
  }
  if (request.kind === "multipart" || request.kind === "form") {
    const type = request.kind === "multipart" ? "FormData" : "URLSearchParams";
    const write = (name, value) => `body.append(${name}, ${value});`;
    before += [`const body = new ${type}();`, ...fields(request, write, quoted, secret), ""].join(
      "\n",
    );
    body = "  body,\n";
  } else {
    headers.push(`    "Content-Type": ${quoted(request.type)},`);
    if (request.kind === "json" && request.method !== "GET") {
      const members = fields(request, (name, value) => `    ${name}: ${value},\n`, quoted, secret);
      body = `  body: JSON.stringify({\n${members.join("")}  }),\n`;
    } else if (hasBody(request)) {
      before = `// fetch sends no body with GET, so the scope is in the query.\n${before}`;
      url += `?scope=${encodeURIComponent(request.fields[0][1].join(" "))}`;
    }
  }
  const lines = headers.length > 0 ? `  headers: {\n${headers.join("\n")}\n  },\n` : "";
  return `${before}const response = await fetch(${quoted(url)}, {
  method: "${request.method}",
${lines}${body}});
const text = await response.text();
console.log(response.ok ? JSON.parse(text).access_token : text);`;
}

function go(request) {
  const secret = `os.Getenv("${VARIABLE}")`;
  const imports = ["encoding/json", "fmt", "io", "log", "net/http", "os"];
  let make = "";
  let body = "nil";
  let type = quoted(request.type);
  if (request.kind === "multipart") {
    imports.push("bytes", "mime/multipart");
    const write = (name, value) => `\tform.WriteField(${name}, ${value})\n`;
    make = `\tvar body bytes.Buffer
\tform := multipart.NewWriter(&body)
${fields(request, write, quoted, secret).join("")}\tform.Close()
`;
    body = "&body";
    type = "form.FormDataContentType()";
  } else if (request.kind === "form") {
    imports.push("net/url", "strings");
    const write = (name, value) => `\t\t${name}: {${value}},\n`;
    make = `\tform := url.Values{\n${fields(request, write, quoted, secret).join("")}\t}\n`;
    body = "strings.NewReader(form.Encode())";
  } else if (request.kind === "json") {
    imports.push("bytes");
    const list = (values) => `[]string{${values.join(", ")}}`;
    const write = (name, value) => `\t\t${name}: ${value},\n`;
    const members = fields(request, write, quoted, secret, list).join("");
    make = `\tbody, _ := json.Marshal(map[string]any{\n${members}\t})\n`;
    body = "bytes.NewReader(body)";
  }
  let basic = "";
  if (request.basic) {
    imports.push("net/url");
    const pair = [quoted(request.clientId), secret].map((text) => `url.QueryEscape(${text})`);
    basic = `\trequest.SetBasicAuth(${pair.join(", ")})\n`;
  }
  return `package main

import (
${[...new Set(imports)]
  .sort()
  .map((name) => `\t"${name}"`)
  .join("\n")}
)

func main() {
${make}\trequest, err := http.NewRequest("${request.method}", ${quoted(request.url)}, ${body})
\tif err != nil {
\t\tlog.Fatal(err)
\t}
\trequest.Header.Set("Content-Type", ${type})
${basic}\tresponse, err := http.DefaultClient.Do(request)
\tif err != nil {
\t\tlog.Fatal(err)
\t}
\tdefer response.Body.Close()
\ttext, err := io.ReadAll(response.Body)
\tif err != nil || response.StatusCode != 200 {
\t\tlog.Fatal(response.Status, " ", string(text), err)
\t}
\tvar answer struct {
\t\tToken string \`json:"access_token"\`
\t}
\tif err := json.Unmarshal(text, &answer); err != nil {
\t\tlog.Fatal(err)
\t}
\tfmt.Println(answer.Token)
}`;
}

function csharp(request) {
  const secret = "secret";
  const method = request.method === "GET" ? "HttpMethod.Get" : "HttpMethod.Post";
  const lines = [];
  if (request.basic) {
    lines.push(
      `var pair = Uri.EscapeDataString(${quoted(request.clientId)}) + ":" + Uri.EscapeDataString(secret);`,
      "var basic = Convert.ToBase64String(Encoding.UTF8.GetBytes(pair));",
      'request.Headers.Authorization = new AuthenticationHeaderValue("Basic", basic);',
    );
  }
  if (request.kind === "multipart") {
    const write = (name, value) => `    { new StringContent(${value}), ${name} },`;
    lines.push(
      "request.Content = new MultipartFormDataContent",
      "{",
      ...fields(request, write, quoted, secret),
      "};",
    );
  } else if (request.kind === "form") {
    const write = (name, value) => `    [${name}] = ${value},`;
    lines.push(
      "request.Content = new FormUrlEncodedContent(new Dictionary<string, string>",
      "{",
      ...fields(request, write, quoted, secret),
      "});",
    );
  } else {
    // An empty content, because only a content has a Content-Type.
    let body = '""';
    if (hasBody(request)) {
      const list = (values) => `new[] { ${values.join(", ")} }`;
      const write = (name, value) => `    ${JSON.parse(name)} = ${value},`;
      const members = fields(request, write, quoted, secret, list);
      lines.push("var body = new", "{", ...members, "};");
      body = "JsonSerializer.Serialize(body)";
    }
    lines.push(
      `request.Content = new StringContent(${body});`,
      `request.Content.Headers.ContentType = new MediaTypeHeaderValue(${quoted(request.type)});`,
    );
  }
  return `using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

var secret = Environment.GetEnvironmentVariable("${VARIABLE}")!;
using var client = new HttpClient();
using var request = new HttpRequestMessage(${method}, ${quoted(request.url)});
${lines.join("\n")}
using var response = await client.SendAsync(request);
var text = await response.Content.ReadAsStringAsync();
Console.WriteLine(response.IsSuccessStatusCode
    ? JsonDocument.Parse(text).RootElement.GetProperty("access_token").GetString()
    : text);`;
}

function php(request) {
  const secret = `getenv('${VARIABLE}')`;
  const options = [];
  if (request.basic) {
    const pair = [inPhp(request.clientId), secret].map((text) => `urlencode(${text})`);
    options.push(`    CURLOPT_USERPWD => ${pair.join(" . ':' . ")},`);
  }
  const write = (name, value) => `        ${name} => ${value},`;
  if (request.kind === "multipart") {
    options.push("    CURLOPT_POSTFIELDS => [", ...fields(request, write, inPhp, secret), "    ],");
  } else if (request.kind === "form") {
    options.push(
      "    CURLOPT_POSTFIELDS => http_build_query([",
      ...fields(request, write, inPhp, secret),
      "    ]),",
    );
  } else {
    options.push(`    CURLOPT_HTTPHEADER => [${inPhp(`Content-Type: ${request.type}`)}],`);
    if (hasBody(request)) {
      if (request.method === "GET") options.push("    CURLOPT_CUSTOMREQUEST => 'GET',");
      options.push(
        "    CURLOPT_POSTFIELDS => json_encode([",
        ...fields(request, write, inPhp, secret),
        "    ]),",
      );
    }
  }
  return `<?php
$curl = curl_init(${inPhp(request.url)});
curl_setopt_array($curl, [
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_TIMEOUT => 10,
${options.join("\n")}
]);
$text = curl_exec($curl);
if ($text === false) {
    exit(curl_error($curl));
}
echo json_decode($text, true)['access_token'] ?? $text, "\\n";`;
}

// The secret as a part of a text in JSON.
const JAVA_ESCAPE = String.raw`secret.replace("\\", "\\\\").replace("\"", "\\\"")`;

function java(request) {
  const imports = [
    "java.net.URI",
    "java.net.http.HttpClient",
    "java.net.http.HttpRequest",
    "java.net.http.HttpResponse",
  ];
  const secret = "secret";
  let make = "";
  let body = "HttpRequest.BodyPublishers.noBody()";
  let type = quoted(request.type);
  if (request.kind === "multipart") {
    imports.push("java.util.Map", "java.util.UUID");
    const write = (name, value) => `            ${name}, ${value}`;
    make = `        var boundary = UUID.randomUUID().toString();
        var body = new StringBuilder();
        Map.of(
${fields(request, write, quoted, secret).join(",\n")}
        ).forEach((name, value) -> body.append("--" + boundary + "\\r\\n"
            + "Content-Disposition: form-data; name=\\"" + name + "\\"\\r\\n\\r\\n" + value + "\\r\\n"));
        body.append("--" + boundary + "--\\r\\n");
`;
    body = "HttpRequest.BodyPublishers.ofString(body.toString())";
    type = `"multipart/form-data; boundary=" + boundary`;
  } else if (request.kind === "form") {
    imports.push("java.net.URLEncoder", "java.nio.charset.StandardCharsets");
    const encoded = request.fields.map(([name, value]) => {
      const text = value === SECRET ? secret : quoted(value);
      return `            + "&${name}=" + URLEncoder.encode(${text}, StandardCharsets.UTF_8)`;
    });
    make = `        var body = ""\n${encoded.join("\n").replace('"&', '"')};\n`;
    body = "HttpRequest.BodyPublishers.ofString(body)";
  } else if (request.kind === "json") {
    // The literal is a text in JSON, with the secret in its middle.
    const text = JSON.stringify(
      Object.fromEntries(
        request.fields.map(([name, value]) => [name, value === SECRET ? "" : value]),
      ),
    );
    const literal = quoted(text).replace(
      '\\"client_secret\\":\\"',
      '\\"client_secret\\":\\"" + escaped + "',
    );
    make = request.basic ? "" : `        var escaped = ${JAVA_ESCAPE};\n`;
    make += `        var body = ${literal};\n`;
    body = "HttpRequest.BodyPublishers.ofString(body)";
  }
  let basic = "";
  if (request.basic) {
    imports.push("java.net.URLEncoder", "java.nio.charset.StandardCharsets", "java.util.Base64");
    const pair = [quoted(request.clientId), secret].map(
      (text) => `URLEncoder.encode(${text}, StandardCharsets.UTF_8)`,
    );
    make += `        var pair = ${pair.join(`\n            + ":" + `)};
        var basic = Base64.getEncoder().encodeToString(pair.getBytes());\n`;
    basic = `            .header("Authorization", "Basic " + basic)\n`;
  }
  return `${[...new Set(imports)]
    .sort()
    .map((name) => `import ${name};`)
    .join("\n")}

class Token {
    public static void main(String[] arguments) throws Exception {
        var secret = System.getenv("${VARIABLE}");
${make}        var request = HttpRequest.newBuilder(URI.create(${quoted(request.url)}))
            .header("Content-Type", ${type})
${basic}            .method("${request.method}", ${body})
            .build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.body());
    }
}`;
}

export const LANGUAGES = [
  { id: "curl", name: "curl", write: curl, run: "Run it in a shell; for JSON and HTTP Basic, it needs jq." },
  {
    id: "python",
    name: "Python",
    write: python,
    run: "Run it with python get_token.py, after pip install requests.",
  },
  {
    id: "javascript",
    name: "JavaScript",
    write: javascript,
    run: "Run it with node token.mjs, Node.js 18 or newer.",
  },
  { id: "go", name: "Go", write: go, run: "Run it with go run token.go." },
  {
    id: "csharp",
    name: "C#",
    write: csharp,
    run: "It is the Program.cs of a console application, .NET 6 or newer.",
  },
  {
    id: "php",
    name: "PHP",
    write: php,
    run: "Run it with php token.php; it needs the extension curl.",
  },
  { id: "java", name: "Java", write: java, run: "Run it with java Token.java, Java 11 or newer." },
];
