// A smoke run: a few borrowers walk every public step once or a few times, with
// keys made and proofs signed here. It says that the server answers as it
// should; how fast it does so is the other run's question.
//
// Settings come from the environment; README.md lists them. `run` sets them.

import http from 'k6/http';
import exec from 'k6/execution';
import { check, group } from 'k6';
import { bundleChecks, json, milliseconds, report, value } from './lib.js';
import { newTerminal, proof, time } from './phone.js';

const URL = __ENV.URL;
const TOKEN = __ENV.FOB_TOKEN;
const VUS = Number(__ENV.VUS || 3);
const ITERATIONS = Number(__ENV.ITERATIONS || 15);
const FUNCTIONS = [1, 2, 3, 4, 5, 6, 7, 8];
const JSON_BODY = { 'Content-Type': 'application/json' };

export const options = {
  scenarios: {
    smoke: {
      executor: 'shared-iterations',
      vus: VUS,
      iterations: ITERATIONS,
      maxDuration: '60s',
    },
  },
  thresholds: {
    checks: ['rate==1'],
    // Refusals asked for on purpose are expected there, so anything is a fault.
    http_req_failed: ['rate==0'],
    iterations: [`count==${ITERATIONS}`],
    http_req_duration: ['p(95)<1000'],
  },
  summaryTrendStats: ['min', 'avg', 'med', 'p(95)', 'p(99)', 'max'],
};

export default async function () {
  const borrower = await newTerminal();
  const n = exec.scenario.iterationInTest;
  const identity = `renter-${(n % 100) + 1}`;

  group('operations', () => {
    for (const path of ['/healthz', '/readyz', '/v1/trust']) {
      check(get(path), { [`${path} answers 200`]: (r) => r.status === 200 });
    }
  });

  const vehicle = `DEMO-${String((n % 100) + 1).padStart(4, '0')}`;
  const authorization = authorize(vehicle);
  if (authorization === null) return;
  const codeSet = authorization.code_set;
  const names = authorization.functions.map((f) => f.name);

  check(post('/v1/code-sets/preview', { code_set: codeSet }), {
    'preview answers 200': (r) => r.status === 200,
    'preview names the vehicle': (r) => json(r) !== null && json(r).vehicle === vehicle,
    'preview names the functions': (r) => json(r) !== null && json(r).functions.length === names.length,
  });

  const request = async (terminal, nonceOver) => ({
    code_set: codeSet,
    identity: { id: identity },
    proof: await proof(terminal, URL, nonceOver),
  });
  refused(await request(borrower, 'something else'), 422, 'proof_invalid');

  const first = post('/v1/redemptions', await request(borrower, codeSet));
  check(first, bundleChecks(vehicle, names));
  const again = post('/v1/redemptions', await request(borrower, codeSet));
  check(again, {
    'the same redemption again succeeds': (r) => r.status === 200 || r.status === 201,
    'and is byte-identical': (r) => r.body === first.body,
  });

  refused(await request(await newTerminal(), codeSet), 409, 'code_set_redeemed');
  const malformed = { ...(await request(borrower, codeSet)), code_set: codeSet.toLowerCase() };
  refused(malformed, 400, 'code_set_malformed');
  const wrongCodes = { code_set: unknown(codeSet) };
  refusal(post('/v1/code-sets/preview', wrongCodes, expecting(404)), 404, 'code_set_unknown');
  const untrusted = http.post(`${URL}/v1/authorizations`, '{}', {
    headers: JSON_BODY,
    ...expecting(401),
  });
  refusal(untrusted, 401, 'unauthenticated');
}

function authorize(vehicle) {
  const hour = 3600 * 1000;
  const body = {
    vehicle,
    functions: FUNCTIONS,
    not_before: time(Date.now()),
    not_after: time(Date.now() + hour),
  };
  const response = http.post(`${URL}/v1/authorizations`, JSON.stringify(body), {
    headers: { ...JSON_BODY, Authorization: `Bearer ${TOKEN}` },
    tags: { name: 'authorize' },
  });
  const good = check(response, {
    'authorization answers 201': (r) => r.status === 201,
    'it gives a code set': (r) => json(r) !== null && String(json(r).code_set).startsWith('FOB1'),
    'it names eight functions': (r) =>
      json(r) !== null && Array.isArray(json(r).functions) && json(r).functions.length === FUNCTIONS.length,
  });
  if (!good) console.warn(`authorization answered ${response.status}: ${response.body}`);
  return good ? response.json() : null;
}

// The same code set with another secret: the id's 16 bytes and the heads before
// the secret end within the first 31 digits, the secret reaches beyond digit 50.
function unknown(codeSet) {
  const at = 4 + 40;
  const digit = codeSet[at] === '0' ? '1' : '0';
  return codeSet.slice(0, at) + digit + codeSet.slice(at + 1);
}

// --- Requests ---------------------------------------------------------------

function expecting(status) {
  return { responseCallback: http.expectedStatuses(status) };
}

function get(path) {
  return http.get(URL + path, { tags: { name: path } });
}

function post(path, body, params) {
  return http.post(URL + path, JSON.stringify(body), {
    headers: JSON_BODY,
    tags: { name: path },
    ...params,
  });
}

function refused(body, status, code) {
  refusal(post('/v1/redemptions', body, expecting(status)), status, code);
}

function refusal(response, status, code) {
  const body = json(response);
  const good = check(response, {
    [`refused as ${code}`]: (r) => r.status === status && body !== null && body.code === code,
    [`${code} is a problem document`]: (r) =>
      String(r.headers['Content-Type']).startsWith('application/problem+json') &&
      body !== null &&
      body.type === `urn:fob:refusal:${code}`,
  });
  if (!good) console.warn(`${code} expected, ${response.status}: ${response.body}`);
}

export function handleSummary(data) {
  return report(`smoke: ${ITERATIONS} walks by ${VUS} borrowers`, data, [
    `${value(data, 'http_reqs', 'count')} requests, ${value(data, 'checks', 'passes')} checks passed, ${value(data, 'checks', 'fails')} failed`,
    `latency  median ${milliseconds(value(data, 'http_req_duration', 'med'))}, p95 ${milliseconds(value(data, 'http_req_duration', 'p(95)'))}`,
  ]);
}
