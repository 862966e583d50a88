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

function curl(request) {
  const options = [];
  let input = "";
  if (request.basic) options.push(`--user ${withSecret(`${request.clientId}:`)}`);
  const option = { multipart: "--form-string", form: "--data-urlencode" }[request.kind];
  if (option) {
    for (const [name, value] of request.fields) {
      const field = value === SECRET ? withSecret(`${name}=`) : inShell(`${name}=${value}`);
      options.push(`${option} ${field}`);
    }
  } else {
    options.push(`--header ${inShell(`Content-Type: ${request.type}`)}`);
    if (hasBody(request)) {
      if (request.method === "GET") options.push("--request GET");
      options.push("--data @- <<END");
      const literal = (text) => quoted(text).replaceAll(/[\\$`]/g, "\\$&");
      const members = pairs(request, literal, `"$${VARIABLE}"`).map(
        (pair) => `  ${pair.join(": ")}`,
      );
      input = `\n{\n${members.join(",\n")}\n}\nEND`;
    }
  }
  return `${[`curl ${inShell(request.url)}`, ...options].join(" \\\n  ")}${input}`;
}

// The text, followed by the secret, as one argument in the shell.
function withSecret(text) {
  const isPlain = /^[\w.:=-]*$/.test(text);
  return isPlain ? `"${text}$${VARIABLE}"` : `${inShell(text)}"$${VARIABLE}"`;
}

function python(request) {
  const secret = `os.environ["${VARIABLE}"]`;
  const pair = (name, value) => `        ${name}: ${value},`;
  const lines = [];
  if (request.basic) lines.push(`    auth=(${quoted(request.clientId)}, ${secret}),`);
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
    before = `const id = ${quoted(request.clientId)};
const basic = Buffer.from(\`\${id}:\${${secret}}\`).toString("base64");\n`;
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
  const basic = request.basic
    ? `\trequest.SetBasicAuth(${quoted(request.clientId)}, ${secret})\n`
    : "";
  return `package main

import (
${imports
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
      `var pair = Encoding.UTF8.GetBytes(${quoted(`${request.clientId}:`)} + secret);`,
      'request.Headers.Authorization = new AuthenticationHeaderValue("Basic", Convert.ToBase64String(pair));',
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
    options.push(`    CURLOPT_USERPWD => ${inPhp(`${request.clientId}:`)} . ${secret},`);
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
      '\\"client_secret\\":\\"" + secret + "',
    );
    make = `        var body = ${literal};\n`;
    body = "HttpRequest.BodyPublishers.ofString(body)";
  }
  let basic = "";
  if (request.basic) {
    imports.push("java.util.Base64");
    make += `        var pair = ${quoted(`${request.clientId}:`)} + secret;
        var basic = Base64.getEncoder().encodeToString(pair.getBytes());\n`;
    basic = `            .header("Authorization", "Basic " + basic)\n`;
  }
  return `${imports
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
  { id: "curl", name: "curl", write: curl, run: "Run it in a shell." },
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
