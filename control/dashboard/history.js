/* SPDX-License-Identifier: Apache-2.0
 * The last ten minutes, a sample a second: what the page remembers, since the relay tells counters
 * and nothing of the past. Rates are differences of two samples by the relay's own clock; where it
 * was restarted, or could not be reached, there is a gap. */

const HISTORY = 600; /* samples */
const MINUTE = 60;

/* "server.messages_accepted"; names within a group may have dots of their own. */
function number(status, path) {
  const dot = path.indexOf('.');
  const value = (status[path.slice(0, dot)] || {})[path.slice(dot + 1)];
  return value === undefined ? null : value;
}

const rate = path => (status, before, seconds) =>
  before === null ? null : (number(status, path) - number(before, path)) / seconds;
const rates =
  (...paths) =>
  (status, before, seconds) =>
    before === null ? null : sum(paths.map(path => number(status, path) - number(before, path))) / seconds;
const gauge = path => status => number(status, path);

/* Of each core, the part of the time that it was busy; it told of itself a little before the relay looked at its clock. */
const loads = (status, before, seconds) =>
  (status.per_core || []).map((core, i) =>
    Math.min(1, (core.busy_us - ((before.per_core || [])[i] || core).busy_us) / 1e6 / seconds),
  );

const LATENCIES = {accept: 'accept', delivery: 'delivery', attempt: 'attempt'};
const QUANTILES = {p50: 0.5, p95: 0.95, p99: 0.99};

const series = {
  accepted: rate('server.messages_accepted'),
  delivered: rate('client.accepted'),
  received: rate('flow.octets_received'),
  sent: rate('flow.octets_sent'),
  waiting: gauge('queue.deliveries_waiting'),
  ready: status => number(status, 'queue.deliveries_ready') + number(status, 'queue.deliveries_active'),
  held: gauge('queue.deliveries_held'),
  sessions: gauge('server.open'),
  connections: gauge('client.open'),
  idle: gauge('client.idle'),
  deferrals: rate('queue.deferrals'),
  failures: rate('queue.failed_recipients'),
  loadMost: (status, before, seconds) =>
    before === null || loads(status, before, seconds).length === 0 ? null : Math.max(...loads(status, before, seconds)),
  loadMean: (status, before, seconds) =>
    before === null || loads(status, before, seconds).length === 0
      ? null
      : sum(loads(status, before, seconds)) / status.cores,
  rejected: rates('server.messages_rejected', 'server.recipients_rejected'),
  flush: (status, before) =>
    before === null || number(status, 'spool.syncs') === number(before, 'spool.syncs')
      ? null
      : (number(status, 'spool.sync_time_us_total') - number(before, 'spool.sync_time_us_total')) /
        (number(status, 'spool.syncs') - number(before, 'spool.syncs')),
};
for (const name of Object.keys(LATENCIES)) {
  for (const [label, part] of Object.entries(QUANTILES)) series[name + label] = () => quantile(name, part);
}

const history = {
  time: [],
  values: Object.fromEntries(Object.keys(series).map(name => [name, []])),
  minute: [] /* {at, status}: of the last minute, the newest last */,
};

/* By the relay's clock: an answer may have waited on its way. */
const secondsBetween = (before, now) => (now.uptime_us - before.uptime_us) / 1e6;

/* The newest status, and the oldest of the last minute with the seconds between them; null until there are two. */
function lastMinute() {
  const {minute} = history;
  if (minute.length < 2) return null;
  const first = minute[0],
    last = minute[minute.length - 1];
  return {status: last.status, before: first.status, seconds: secondsBetween(first.status, last.status)};
}

/* Over the last minute: the time that this part of all did not exceed, in microseconds; null: nothing happened, or it is not told. */
function quantile(name, part) {
  const span = lastMinute();
  const now = span === null ? undefined : (span.status.latency || {})[name],
    before = span === null ? undefined : (span.before.latency || {})[name];
  if (now === undefined || before === undefined) return null;
  const counts = now.counts.map((count, i) => count - before.counts[i]),
    total = sum(counts);
  if (total === 0) return null;
  let seen = 0;
  const bucket = counts.findIndex(count => (seen += count) >= total * part);
  return now.bounds_us[Math.min(bucket, now.bounds_us.length - 1)];
}

function historyAdd(at, values) {
  history.time.push(at);
  for (const name of Object.keys(series)) history.values[name].push(values === null ? null : values(name));
  if (history.time.length <= HISTORY) return;
  history.time.shift();
  for (const name of Object.keys(series)) history.values[name].shift();
}

/* isGap: the relay could not be reached in between. True: it was restarted since the last sample. */
function sample(status, at, isGap) {
  const {minute} = history;
  const last = minute.length === 0 ? null : minute[minute.length - 1];
  if (last !== null && !isGap && last.status.pid === status.pid && last.status.uptime_us === status.uptime_us)
    return false; /* the same answer once more (relay.js) */
  const isNew = last !== null && (last.status.pid !== status.pid || last.status.uptime_s > status.uptime_s);
  if (isNew) minute.length = 0;
  minute.push({at, status});
  while (minute.length > 2 && minute[0].at < at - MINUTE - 0.5) minute.shift();
  if (last !== null && (isNew || isGap)) historyAdd(at - 0.001, null);
  const seconds = last === null || isNew || isGap ? 0 : secondsBetween(last.status, status);
  historyAdd(at, name => series[name](status, seconds > 0 ? last.status : null, seconds));
  return isNew;
}

/* How many in the last minute; null: not known yet. */
function inLastMinute(path) {
  const span = lastMinute();
  return span === null ? null : number(span.status, path) - number(span.before, path);
}

const latest = name => {
  const values = history.values[name];
  return values.length === 0 ? null : values[values.length - 1];
};
