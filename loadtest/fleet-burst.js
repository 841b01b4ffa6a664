// A fleet's burst: RATE requests a second to `POST /v1/batches`, each with
// ORDERS orders as lines of JSON: authorization and redemption in one, for
// registered terminals. Every order must be issued, in its place, with the right
// bundle; and a request that is sent again must get the same bundles.
//
// Settings come from the environment; README.md lists them. `run` sets them.

import http from 'k6/http';
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { SharedArray } from 'k6/data';
import { bundleHasShape, keysMatch, milliseconds, report, value } from './lib.js';
import { time } from './phone.js';

const URL = __ENV.URL;
const TOKEN = __ENV.FOB_TOKEN;
const RATE = Number(__ENV.RATE || 2);
const DURATION_S = Number(__ENV.DURATION_S || 20);
const ORDERS = Number(__ENV.ORDERS || 100);
const SIGNING = __ENV.SIGNING;
const P95_MS = Number(__ENV.P95_MS || 2000);
const P99_MS = Number(__ENV.P99_MS || 4000);
const DROPPED_MAX = Number(__ENV.DROPPED_MAX || 0);
const VUS_MAX = Number(__ENV.VUS_MAX || Math.max(10, RATE * 5));
// One request of so many is sent twice.
const AGAIN_ONE_IN = 10;

const VEHICLES = 100;
const FUNCTIONS = [
  'doors.unlock',
  'doors.lock',
  'engine.start',
  'trunk.open',
  'windows.control',
  'climate.control',
  'locate.signal',
  'charge_port.open',
];

const terminals = new SharedArray('terminals', () => JSON.parse(open(__ENV.TERMINALS)));
// Keys of this run are used by no other, even against a server that goes on living.
const RUN = `${Date.now()}`;

const batchTime = new Trend('batch_time', true);
const bundles = new Counter('bundles_received');
const batches = new Counter('batches_sent');

export const options = {
  scenarios: {
    burst: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: `${DURATION_S}s`,
      preAllocatedVUs: Math.min(VUS_MAX, 10),
      maxVUs: VUS_MAX,
      gracefulStop: '30s',
    },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    batch_time: [`p(95)<${P95_MS}`, `p(99)<${P99_MS}`],
    dropped_iterations: [`count<=${DROPPED_MAX}`],
    batches_sent: [`count>=${Math.max(1, Math.floor(RATE * DURATION_S * 0.95))}`],
  },
  summaryTrendStats: ['min', 'avg', 'med', 'p(95)', 'p(99)', 'max'],
};

export default function () {
  const n = exec.scenario.iterationInTest;
  const orders = Array.from({ length: ORDERS }, (_, i) => order(n, i));
  const body = orders.map((one) => JSON.stringify(one)).join('\n') + '\n';
  const first = send(n, body);
  batchTime.add(first.timings.duration);
  batches.add(1);
  const answers = lines(first);
  const issued = answers.filter((answer) => answer.status === 'issued');
  // Answers may come in any order; a line that is none of ours is nobody's.
  const asked = (answer) => orders[answer.line - 1] || {};
  bundles.add(issued.length);
  const good = check(first, {
    'status is 200': (r) => r.status === 200,
    'one line for each order': () => answers.length === ORDERS,
    'every order is issued': () => issued.length === ORDERS,
    'lines are numbered and named': () =>
      new Set(answers.map((answer) => answer.line)).size === ORDERS &&
      answers.every((answer) => asked(answer).ref === answer.ref),
    'bundles have their shape': () =>
      issued.every((answer) => bundleHasShape(answer.bundle, asked(answer).vehicle)),
    'one key for each function': () => issued.every((answer) => keysMatch(answer.bundle, FUNCTIONS)),
    'bundles are all different': () =>
      new Set(issued.map((answer) => (answer.bundle || {}).bundle)).size === issued.length,
  });
  if (!good) {
    console.warn(`batch ${n} answered ${first.status}: ${String(first.body).slice(0, 300)}`);
  } else if (n % AGAIN_ONE_IN === 0) {
    const again = new Set(lines(send(n, body)).map((answer) => JSON.stringify(answer.bundle)));
    check(again, {
      'a batch sent again gets the same bundles': (got) =>
        issued.every((answer) => got.has(JSON.stringify(answer.bundle))),
    });
  }
}

function order(n, i) {
  const at = n * ORDERS + i;
  const now = Date.now();
  const hour = 3600 * 1000;
  const one = {
    ref: `order-${at}`,
    vehicle: `DEMO-${String((at % VEHICLES) + 1).padStart(4, '0')}`,
    functions: FUNCTIONS,
    not_before: time(now),
    not_after: time(now + hour),
    recipient: terminals[at % terminals.length],
  };
  return SIGNING ? { ...one, signing: SIGNING } : one;
}

function send(n, body) {
  return http.post(`${URL}/v1/batches`, body, {
    headers: {
      'Content-Type': 'application/x-ndjson',
      Authorization: `Bearer ${TOKEN}`,
      'Idempotency-Key': `${RUN}-${n}`,
    },
    timeout: '60s',
    tags: { name: 'batch' },
  });
}

// The answer's lines, as far as they are JSON.
function lines(response) {
  const parsed = (text) => {
    try {
      return [JSON.parse(text)];
    } catch (_) {
      return [];
    }
  };
  return String(response.body)
    .split('\n')
    .filter((text) => text !== '')
    .flatMap(parsed);
}

export function handleSummary(data) {
  const of = (name) => value(data, 'batch_time', name);
  const seconds = data.state.testRunDurationMs / 1000;
  const count = value(data, 'bundles_received', 'count');
  const keys = count * FUNCTIONS.length;
  return report(`fleet-burst: ${RATE}/s of ${ORDERS} orders for ${DURATION_S} s`, data, [
    `${value(data, 'batches_sent', 'count')} batches, ${count} bundles, ${(keys / seconds).toFixed(0)} keys/s`,
    `latency  median ${milliseconds(of('med'))}, p95 ${milliseconds(of('p(95)'))}, p99 ${milliseconds(of('p(99)'))}, worst ${milliseconds(of('max'))}, of a whole batch`,
    `dropped  ${value(data, 'dropped_iterations', 'count')} arrivals that found no free client`,
  ]);
}
