// Soak: a moderate open rate for long. Each arrival is a whole life of a code
// set: authorized with the fleet's token, redeemed with a proof signed here, and
// one in ten redeemed again and read back. Nothing may fail, and the latencies of
// the end must be those of the beginning. `run` judges the server's memory.
//
// Settings come from the environment; README.md lists them. `run` sets them.

import http from 'k6/http';
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { bundleChecks, json, milliseconds, report, value } from './lib.js';
import { newTerminal, proof, time } from './phone.js';

const URL = __ENV.URL;
const TOKEN = __ENV.FOB_TOKEN;
const RATE = Number(__ENV.RATE || 50);
const DURATION_S = Number(__ENV.DURATION_S || 600);
const SIGNING = __ENV.SIGNING;
const P95_MS = Number(__ENV.P95_MS || 250);
const P99_MS = Number(__ENV.P99_MS || 500);
const DROPPED_MAX = Number(__ENV.DROPPED_MAX || 0);
const VUS_MAX = Number(__ENV.VUS_MAX || Math.min(1000, RATE * 4));
const FUNCTIONS = [1, 2, 3, 4, 5, 6, 7, 8];
const DEMO = 100;
const AGAIN_ONE_IN = 10;

const redemptionTime = new Trend('redemption_time', true);
const bundles = new Counter('bundles_received');

export const options = {
  scenarios: {
    soak: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: `${DURATION_S}s`,
      preAllocatedVUs: Math.min(VUS_MAX, Math.max(10, RATE)),
      maxVUs: VUS_MAX,
      gracefulStop: '30s',
    },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    redemption_time: [`p(95)<${P95_MS}`, `p(99)<${P99_MS}`],
    'redemption_time{part:first}': [`p(99)<${P99_MS}`],
    'redemption_time{part:last}': [`p(99)<${P99_MS}`],
    dropped_iterations: [`count<=${DROPPED_MAX}`],
    bundles_received: [`count>=${Math.max(1, Math.floor(RATE * DURATION_S * 0.95))}`],
  },
  summaryTrendStats: ['min', 'avg', 'med', 'p(95)', 'p(99)', 'max'],
};

// Each borrower's terminal, made once.
let terminal = null;

export default async function () {
  terminal = terminal || (await newTerminal());
  const n = exec.scenario.iterationInTest;
  const vehicle = `DEMO-${String((n % DEMO) + 1).padStart(4, '0')}`;
  const made = authorize(vehicle);
  if (made === null) return;
  const names = made.functions.map((f) => f.name);
  const body = JSON.stringify({
    code_set: made.code_set,
    identity: { id: `renter-${(n % DEMO) + 1}` },
    proof: await proof(terminal, URL, made.code_set),
  });
  const first = redeem(body);
  redemptionTime.add(first.timings.duration, { part: part() });
  if (check(first, bundleChecks(vehicle, names))) bundles.add(1);
  if (n % AGAIN_ONE_IN !== 0 || first.status !== 201) return;
  check(redeem(body), { 'the same redemption again is byte-identical': (r) => r.body === first.body });
  const read = http.get(`${URL}/v1/bundles/${json(first).bundle}`, {
    headers: { Authorization: `Bearer ${TOKEN}` },
    tags: { name: 'read' },
  });
  check(read, { 'and so is the bundle read back': (r) => r.body === first.body });
}

// The first and the last tenth of the run, to be compared.
function part() {
  const share = exec.scenario.progress;
  if (share < 0.1) return 'first';
  return share > 0.9 ? 'last' : 'between';
}

function authorize(vehicle) {
  const now = Date.now();
  const hour = 3600 * 1000;
  const body = { vehicle, functions: FUNCTIONS, not_before: time(now), not_after: time(now + hour) };
  if (SIGNING) body.signing = SIGNING;
  const response = http.post(`${URL}/v1/authorizations`, JSON.stringify(body), {
    headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${TOKEN}` },
    timeout: '15s',
    tags: { name: 'authorize' },
  });
  const good = check(response, { 'authorization answers 201': (r) => r.status === 201 });
  if (!good) console.warn(`authorization answered ${response.status}: ${response.body}`);
  return good ? response.json() : null;
}

function redeem(body) {
  return http.post(`${URL}/v1/redemptions`, body, {
    headers: { 'Content-Type': 'application/json' },
    timeout: '15s',
    tags: { name: 'redeem' },
  });
}

export function handleSummary(data) {
  const p99 = (name) => milliseconds(value(data, name, 'p(99)'));
  return report(`soak: ${RATE}/s for ${DURATION_S} s`, data, [
    `${value(data, 'bundles_received', 'count')} bundles`,
    `latency  p99 ${p99('redemption_time')}; of the first tenth ${p99('redemption_time{part:first}')}, of the last ${p99('redemption_time{part:last}')}`,
    `dropped  ${value(data, 'dropped_iterations', 'count')} arrivals that found no free borrower`,
  ]);
}
