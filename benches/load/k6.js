// Tokens for the demo client with k6, in both encodings. Written from k6's documentation; unlike
// the other scripts here, no test runs it.
//
//   k6 run -e ENCODING=multipart -e SECONDS=10 -e CONNECTIONS=32 benches/load/k6.js
//
// With `-e RATE=2000` it sends this many requests a second, answered or not (open loop).

import http from 'k6/http';
import { check } from 'k6';

const BODIES = {
  urlencoded: {
    type: 'application/x-www-form-urlencoded',
    text: open('./urlencoded.body'),
  },
  multipart: {
    type: 'multipart/form-data; boundary=------------------------d74496d66958873e',
    text: open('./multipart.body'),
  },
};

const encoding = __ENV.ENCODING || 'urlencoded';
const duration = `${__ENV.SECONDS || 10}s`;
const connections = Number(__ENV.CONNECTIONS || 32);
const url = __ENV.URL || 'http://127.0.0.1:8080/connect/token';

const body = BODIES[encoding];
if (body === undefined) {
  throw new Error(`'${encoding}' is no encoding: urlencoded or multipart`);
}

const closedLoop = { executor: 'constant-vus', vus: connections, duration };
const openLoop = {
  executor: 'constant-arrival-rate',
  rate: Number(__ENV.RATE),
  timeUnit: '1s',
  preAllocatedVUs: connections,
  maxVUs: connections * 8,
  duration,
};

export const options = {
  scenarios: { tokens: __ENV.RATE ? openLoop : closedLoop },
  thresholds: { checks: ['rate==1'] },
  summaryTrendStats: ['med', 'p(99)', 'p(99.9)', 'max'],
};

export default function () {
  const answer = http.post(url, body.text, { headers: { 'Content-Type': body.type } });
  check(answer, { 'token received': (it) => it.status === 200 });
}
