/* SPDX-License-Identifier: Apache-2.0
 * Questions and orders to the relay that served this page, and nobody else. The token is kept for
 * as long as the tab. Errors are of three kinds: Denied (no token, or not this one), Unreachable,
 * and the relay's own refusal, an Error with its words. */

const ANSWER_TIME_MS = 20000;
const AGE_MS = 500; /* who else looks on may have asked the same so long ago; never from before an order */

class Denied extends Error {}
class Unreachable extends Error {}

const relay = {token: sessionStorage.getItem('angarium-token') || '', role: null};

const isAdmin = () => relay.role === 'admin';

function tokenKeep(token) {
  relay.token = token;
  if (token === '') sessionStorage.removeItem('angarium-token');
  else sessionStorage.setItem('angarium-token', token);
}

async function request(path, options) {
  const headers = {...options.headers};
  let answer, body;
  if (relay.token !== '') headers.Authorization = 'Bearer ' + relay.token;
  try {
    answer = await fetch('/api/v1/' + path, {
      ...options,
      headers,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    });
    body = await answer.json();
  } catch (error) {
    throw new Unreachable('the relay cannot be reached');
  }
  if (answer.status === 401) throw new Denied(body.error);
  if (answer.status === 503) throw new Unreachable(body.error);
  if (body.ok !== true) throw new Error(body.error || 'the relay says ' + answer.status);
  return body;
}

/* ask('queue list', {filter: 'domain=example.org', limit: 5}) */
function ask(verb, members = {}) {
  const query = new URLSearchParams({...members, max_age_ms: AGE_MS}).toString();
  return request(verb.replaceAll(' ', '/') + '?' + query, {
    method: 'GET',
    signal: AbortSignal.timeout(ANSWER_TIME_MS),
  });
}

/* It may take minutes, and would end where it is if we left. */
function order(verb, members) {
  return request(verb.replaceAll(' ', '/'), {
    method: 'POST',
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify(members),
  });
}
