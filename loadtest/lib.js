// What all runs share: how a bundle must look, and how a summary is printed.

const UUID7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const BASE64URL = /^[A-Za-z0-9_-]{200,}$/;
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;

// The checks of one answer to a redemption. `vehicle` and `functions` (names)
// are what was authorized.
export function bundleChecks(vehicle, functions) {
  return {
    'status is 201': (r) => r.status === 201,
    'bundle has its shape': (r) => bundleHasShape(parsed(r), vehicle),
    'one key for each function': (r) => keysMatch(parsed(r), functions),
    'key ids are distinct': (r) => distinct(keysOf(r).map((k) => k.id)) === functions.length,
    'keys are distinct': (r) => distinct(keysOf(r).map((k) => k.key)) === functions.length,
  };
}

// The last answer's JSON is kept, so five checks of one answer parse it once.
let last = { response: null, body: null };

function parsed(response) {
  if (last.response !== response) {
    last = { response, body: json(response) };
  }
  return last.body;
}

// The body as JSON, or null: a check must fail, not throw.
export function json(response) {
  try {
    return response.json();
  } catch (_) {
    return null;
  }
}

function keysOf(response) {
  const body = parsed(response);
  return body && Array.isArray(body.keys) ? body.keys : [];
}

// Whether `body` is a bundle for `vehicle`: ids, version, and each of its keys.
export function bundleHasShape(body, vehicle) {
  return (
    Boolean(body) &&
    UUID7.test(body.bundle) &&
    UUID7.test(body.authorization) &&
    body.version === 1 &&
    body.vehicle === vehicle &&
    Array.isArray(body.keys) &&
    body.keys.every(
      (k) =>
        UUID7.test(k.id) &&
        BASE64URL.test(k.key) &&
        TIME.test(k.not_before) &&
        TIME.test(k.not_after) &&
        k.status === 'valid',
    )
  );
}

// Whether it holds one key for each of `functions` (names).
export function keysMatch(body, functions) {
  if (!body || !Array.isArray(body.keys)) return false;
  const found = body.keys.map((k) => k.function).sort();
  const wanted = functions.slice().sort();
  return found.length === wanted.length && found.every((name, at) => name === wanted[at]);
}

function distinct(values) {
  return new Set(values).size;
}

// The report of a run: a few lines for people, and everything as JSON into the
// file named by SUMMARY, if there is one.
export function report(title, data, lines) {
  const disk = __ENV.FSYNC_MS ? [`disk     ${__ENV.FSYNC_MS} ms for an fsync, measured before`] : [];
  const text = [title, ...lines, ...disk, ...verdicts(data)].join('\n  ') + '\n';
  const out = { stdout: text };
  if (__ENV.SUMMARY) {
    const whole = { title, fsync_ms: Number(__ENV.FSYNC_MS) || null, ...data };
    out[__ENV.SUMMARY] = JSON.stringify(whole, null, 1) + '\n';
  }
  return out;
}

function verdicts(data) {
  const lines = [];
  for (const [metric, { thresholds }] of Object.entries(data.metrics)) {
    for (const [rule, { ok }] of Object.entries(thresholds || {})) {
      lines.push(`${ok ? 'kept  ' : 'BROKEN'}  ${metric} ${rule}`);
    }
  }
  for (const { name, passes, fails } of allChecks(data.root_group)) {
    if (fails > 0) lines.push(`FAILED  ${name}: ${fails} of ${passes + fails}`);
  }
  return lines;
}

function allChecks(group) {
  return group.checks.concat(...group.groups.map(allChecks));
}

// One value of one metric, or 0 where the run never touched it.
export function value(data, metric, name) {
  const found = data.metrics[metric];
  return found && found.values[name] !== undefined ? found.values[name] : 0;
}

export function milliseconds(number) {
  return `${number.toFixed(1)} ms`;
}
