// Redemption under an open arrival rate: RATE new redemptions start every
// second for DURATION, whether or not earlier ones have been answered, so a slow
// server shows as latency and dropped iterations and not as a lower rate. Every
// iteration redeems one prepared code set, once, and checks the bundle it gets.
//
// Settings come from the environment; README.md lists them. `run` sets them.

import http from 'k6/http';
import exec from 'k6/execution';
import { check } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { SharedArray } from 'k6/data';
import { bundleChecks, json, milliseconds, report, value } from './lib.js';

const URL = __ENV.URL;
const RATE = Number(__ENV.RATE || 100);
const DURATION_S = Number(__ENV.DURATION_S || 20);
const P95_MS = Number(__ENV.P95_MS || 250);
const P99_MS = Number(__ENV.P99_MS || 500);
const DROPPED_MAX = Number(__ENV.DROPPED_MAX || 0);
const VUS_MAX = Number(__ENV.VUS_MAX || Math.min(1000, RATE));

const prepared = new SharedArray('redemptions', () => JSON.parse(open(__ENV.REDEMPTIONS)));

const keysReceived = new Counter('keys_received');
const redemptionTime = new Trend('redemption_time', true);
// Declared here too, so that its threshold is judged at zero as well.
const spent = new Counter('code_sets_spent');

export const options = {
  scenarios: {
    redeem: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      duration: `${DURATION_S}s`,
      preAllocatedVUs: Math.min(VUS_MAX, Math.max(10, Math.ceil(RATE / 4))),
      maxVUs: VUS_MAX,
      gracefulStop: '10s',
    },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    redemption_time: [`p(95)<${P95_MS}`, `p(99)<${P99_MS}`],
    dropped_iterations: [`count<=${DROPPED_MAX}`],
    code_sets_spent: [`count>=${Math.max(1, Math.floor(RATE * DURATION_S * 0.95))}`],
  },
  summaryTrendStats: ['min', 'avg', 'med', 'p(95)', 'p(99)', 'max'],
};

export default function () {
  const at = exec.scenario.iterationInTest;
  if (at >= prepared.length) {
    exec.test.abort(`only ${prepared.length} code sets were prepared`);
  }
  const { body, vehicle, functions } = prepared[at];
  const response = http.post(`${URL}/v1/redemptions`, body, {
    headers: { 'Content-Type': 'application/json' },
    timeout: '10s',
    tags: { name: 'redeem' },
  });
  redemptionTime.add(response.timings.duration);
  spent.add(1);
  check(response, bundleChecks(vehicle, functions));
  if (response.status === 201) {
    const bundle = json(response);
    keysReceived.add(bundle && Array.isArray(bundle.keys) ? bundle.keys.length : 0);
  } else {
    console.warn(`redemption ${at} answered ${response.status}: ${String(response.body).slice(0, 200)}`);
  }
}

export function handleSummary(data) {
  const of = (name) => value(data, 'redemption_time', name);
  const seconds = data.state.testRunDurationMs / 1000;
  const keys = value(data, 'keys_received', 'count');
  return report(`redeem: ${RATE}/s for ${DURATION_S} s`, data, [
    `${value(data, 'code_sets_spent', 'count')} redemptions, ${keys} keys, ${(keys / seconds).toFixed(0)} keys/s`,
    `latency  median ${milliseconds(of('med'))}, p95 ${milliseconds(of('p(95)'))}, p99 ${milliseconds(of('p(99)'))}, worst ${milliseconds(of('max'))}`,
    `dropped  ${value(data, 'dropped_iterations', 'count')} arrivals that found no free borrower`,
  ]);
}
