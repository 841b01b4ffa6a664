// A borrower's terminal: a P-256 key and the proofs it signs, made by k6 itself.

import { sha256 } from 'k6/crypto';
import { b64encode } from 'k6/encoding';

export async function newTerminal() {
  const ecdsa = { name: 'ECDSA', namedCurve: 'P-256' };
  const pair = await crypto.subtle.generateKey(ecdsa, true, ['sign', 'verify']);
  // The raw form is 04 ‖ x ‖ y. k6's own JWK export would leave out leading
  // zero bytes, which RFC 7518 does not allow.
  const point = await crypto.subtle.exportKey('raw', pair.publicKey);
  const part = (from) => b64encode(point.slice(from, from + 32), 'rawurl');
  return { privateKey: pair.privateKey, jwk: { kty: 'EC', crv: 'P-256', x: part(1), y: part(33) } };
}

// A compact JWS for the server at `url` over the text `nonceOver`. WebCrypto's
// ECDSA signature is r‖s.
export async function proof(terminal, url, nonceOver) {
  const header = { alg: 'ES256', typ: 'openid4vci-proof+jwt', jwk: terminal.jwk };
  const claims = {
    aud: url,
    iat: Math.floor(Date.now() / 1000),
    nonce: sha256(nonceOver, 'base64rawurl'),
  };
  const signed = [header, claims].map((part) => b64encode(JSON.stringify(part), 'rawurl')).join('.');
  const ecdsa = { name: 'ECDSA', hash: { name: 'SHA-256' } };
  const signature = await crypto.subtle.sign(ecdsa, terminal.privateKey, ascii(signed));
  return `${signed}.${b64encode(signature, 'rawurl')}`;
}

function ascii(text) {
  return Uint8Array.from([...text], (char) => char.charCodeAt(0));
}

// RFC 3339 in whole seconds.
export function time(ms) {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}
