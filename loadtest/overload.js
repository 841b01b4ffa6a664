// Overload: calm, a burst far above what the server can do, calm again, all at
// open arrival rates. Refusing is allowed, but only with 503 `busy` and a time
// to come back, and at once; what is admitted must stay quick; and afterwards
// everything must be as it was.
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
const FACTOR = Number(__ENV.FACTOR || 5);
const CALM_S = Number(__ENV.CALM_S || 5);
const BURST_S = Number(__ENV.DURATION_S || 5);
const AFTER_S = Number(__ENV.AFTER_S || 15);
const P99_MS = Number(__ENV.P99_MS || 500);
const REFUSED_P99_MS = Number(__ENV.REFUSED_P99_MS || 250);
const DROPPED_MAX = Number(__ENV.DROPPED_MAX || 0);
const VUS_MAX = Number(__ENV.VUS_MAX || Math.min(2000, RATE * FACTOR));

const HALF = Math.max(1, Math.round(RATE / 2));
const BURST = Math.round(RATE * FACTOR);

const prepared = new SharedArray('redemptions', () => JSON.parse(open(__ENV.REDEMPTIONS)));
// Where each phase begins among them. A phase may start one arrival more than
// its rate says.
const FIRST = { calm: 0, burst: HALF * CALM_S + 1, after: HALF * CALM_S + BURST * BURST_S + 2 };

const admittedTime = new Trend('admitted_time', true);
const refusedTime = new Trend('refused_time', true);
const bundles = new Counter('bundles_received');
const refusals = new Counter('refusals_received');

function phase(rate, from_s, seconds, vus) {
  return {
    executor: 'constant-arrival-rate',
    rate,
    timeUnit: '1s',
    startTime: `${from_s}s`,
    duration: `${seconds}s`,
    preAllocatedVUs: Math.max(10, Math.ceil(vus / 4)),
    maxVUs: vus,
    gracefulStop: '15s',
  };
}

export const options = {
  scenarios: {
    calm: phase(HALF, 0, CALM_S, Math.min(VUS_MAX, HALF + 10)),
    burst: phase(BURST, CALM_S, BURST_S, VUS_MAX),
    after: phase(HALF, CALM_S + BURST_S, AFTER_S, Math.min(VUS_MAX, HALF + 10)),
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate==0'],
    'admitted_time{scenario:calm}': [`p(99)<${P99_MS}`],
    'admitted_time{scenario:burst}': [`p(99)<${P99_MS}`],
    'admitted_time{scenario:after}': [`p(99)<${P99_MS}`],
    'refused_time{scenario:burst}': [`p(99)<${REFUSED_P99_MS}`],
    'bundles_received{scenario:calm}': [`count>=${Math.floor(HALF * CALM_S * 0.95)}`],
    'bundles_received{scenario:burst}': ['count>0'],
    'bundles_received{scenario:after}': [`count>=${Math.floor(HALF * AFTER_S * 0.8)}`],
    dropped_iterations: [`count<=${DROPPED_MAX}`],
  },
  summaryTrendStats: ['min', 'avg', 'med', 'p(95)', 'p(99)', 'max'],
};

export default function () {
  const at = FIRST[exec.scenario.name] + exec.scenario.iterationInTest;
  if (at >= prepared.length) {
    exec.test.abort(`only ${prepared.length} code sets were prepared`);
  }
  const { body, vehicle, functions } = prepared[at];
  const response = http.post(`${URL}/v1/redemptions`, body, {
    headers: { 'Content-Type': 'application/json' },
    timeout: '15s',
    tags: { name: 'redeem' },
    responseCallback: http.expectedStatuses(201, 503),
  });
  if (response.status === 503) {
    refusedTime.add(response.timings.duration);
    refusals.add(1);
    check(response, {
      'a refusal is busy': (r) => json(r) !== null && json(r).code === 'busy',
      'a refusal says when to come back': (r) => Number(r.headers['Retry-After']) >= 1,
    });
    return;
  }
  if (check(response, bundleChecks(vehicle, functions))) {
    admittedTime.add(response.timings.duration);
    bundles.add(1);
  }
}

export function handleSummary(data) {
  const line = (name) => {
    const of = (metric, stat) => value(data, `${metric}{scenario:${name}}`, stat);
    return `${name.padEnd(8)} ${of('bundles_received', 'count')} bundles, p99 ${milliseconds(of('admitted_time', 'p(99)'))}, worst ${milliseconds(of('admitted_time', 'max'))}`;
  };
  return report(`overload: ${HALF}/s, then ${BURST}/s for ${BURST_S} s, then ${HALF}/s`, data, [
    ...['calm', 'burst', 'after'].map(line),
    `refused  ${value(data, 'refusals_received', 'count')}, p99 ${milliseconds(value(data, 'refused_time', 'p(99)'))}`,
    `dropped  ${value(data, 'dropped_iterations', 'count')} arrivals that found no free borrower`,
  ]);
}
