/* SPDX-License-Identifier: Apache-2.0
 * The lists of the page: queue, sites, sources, last replies, each asked for now and then (main.js).
 * None is longer than what is shown of it, so that the page costs the same with ten million messages
 * in the queue as with ten. */

const QUEUE_ROWS = 15;
const SITE_ROWS = 15;
const SITE_LOOK = 200; /* rows of `site show`: one for each core that knows the site */
const SITE_EXTRA = 5; /* of the sites with the most mail, looked at by name when they are not among those */
const SOURCE_ROWS = 100;
const REPLY_SITES = 6; /* sites whose last replies are looked at, */
const REPLY_LOOK = 10; /* and messages of each */
const REPLY_ROWS = 10;

/* ---- the queue ---- */

const GROUPS = {site: 'site', domain: 'domain', source: 'pool', class: 'class', sender_domain: 'sender'};
const AGES = ['5 m', '10 m', '20 m', '40 m', '80 m', '160 m', '320 m', '640 m', '21 h', 'older'];

const queue = {by: 'site', top: []};

/* What a row of the summary opens. Names that stand for many cannot be opened. */
function groupOpen(by, name) {
  if (name === '' || name === '(others)') return undefined;
  if (by === 'site' || by === 'domain') return () => drillTo(by, name);
  return () => drillTo('mail', name === '<>' ? 'sender=<>' : `${by}=${name}`);
}

function queueRow(row, by, largest) {
  const cells = [{text: row.name, class: 'name'}, right(exact(row.total))];
  for (const count of row.ages)
    cells.push({
      text: count === 0 ? '' : brief(count),
      class: 'n',
      heat: count === 0 ? 0 : 0.06 + 0.4 * Math.sqrt(count / largest),
    });
  return {key: row.name, cells, open: groupOpen(by, row.name)};
}

async function queueRefresh() {
  const by = queue.by;
  const answer = await ask('queue summary', {by, limit: QUEUE_ROWS});
  if (by !== queue.by) return;
  if (by === 'site') queue.top = answer.rows.map(row => row.name).filter(name => name !== '' && name !== '(others)');
  const largest = Math.max(1, ...answer.rows.flatMap(row => row.ages));
  const rows = answer.rows.map(row => queueRow(row, by, largest));
  if (rows.length > 0)
    rows.push({
      key: '\n',
      cells: [
        {text: answer.groups > rows.length ? `all ${exact(answer.groups)}` : 'all', class: 'name muted'},
        {text: exact(answer.total), class: 'n muted'},
        ...answer.ages.map(count => ({text: count === 0 ? '' : brief(count), class: 'n muted'})),
      ],
    });
  tableFill(
    $('queue'),
    [
      GROUPS[by],
      right(by === 'sender_domain' ? 'messages' : 'deliveries'),
      ...AGES.map(text => ({text, class: 'n', title: 'age: up to this'})),
    ],
    rows,
    'The queue is empty.',
  );
  $('queue-note').textContent =
    answer.groups > QUEUE_ROWS ? `the ${QUEUE_ROWS} with the most of ${exact(answer.groups)}` : '';
}

/* ---- sites ---- */

const ORDER_WORDS = {suspended: 'suspended', set: 'slowed', skips: 'skips a host', returned: 'mail is returned'};

const isNarrowed = why => why === 'halved after a refusal' || why === 'one after no host answered';

/* Of what the cores know, one of each site and source. */
function partsJoin(rows) {
  const parts = new Map();
  for (const row of rows) {
    const part = parts.get(row.key) || {
      name: row.site,
      source: row.source,
      connections: 0,
      max: row.connections_max,
      allowed: null,
      why: '',
      failures: 0,
      paused: 0,
      suspended: false,
      orders: [],
      used: 0,
      rate: row.rates,
    };
    part.connections += row.connections;
    part.failures = Math.max(part.failures, row.failures);
    part.paused = Math.max(part.paused, row.paused_us);
    part.suspended = part.suspended || row.suspended;
    if (row.home) Object.assign(part, {allowed: row.connections_allowed, why: row.allowed_reason, orders: row.orders});
    if (row.home && row.binding !== undefined)
      Object.assign(part, {rate: `${exact(row.binding_used)} of ${row.binding}`, used: row.binding_used});
    parts.set(row.key, part);
  }
  return [...parts.values()];
}

/* And of those, one of each site; the rate that is used most stands for all. */
function sitesJoin(rows) {
  const sites = new Map();
  for (const part of partsJoin(rows)) {
    const site = sites.get(part.name) || {name: part.name, parts: []};
    site.parts.push(part);
    sites.set(part.name, site);
  }
  for (const site of sites.values()) {
    const {parts} = site;
    parts.sort((a, b) => a.source.localeCompare(b.source));
    site.connections = sum(parts.map(part => part.connections));
    site.allowed = parts.some(part => part.allowed !== null) ? sum(parts.map(part => part.allowed || 0)) : null;
    site.max = sum(parts.map(part => part.max));
    site.rate = parts.reduce((most, part) => (part.used > most.used ? part : most)).rate;
    site.suspended = parts.filter(part => part.suspended);
    site.paused = parts.filter(part => !part.suspended && part.paused > 0).sort((a, b) => b.paused - a.paused);
    site.ordered = parts.filter(part => part.orders.length > 0);
    site.narrowed = parts.filter(part => isNarrowed(part.why));
  }
  return [...sites.values()];
}

function siteState(site) {
  const of = some =>
    some.length === site.parts.length ? '' : `, from ${some.map(part => part.source || 'default').join(', ')}`;
  const [suspended] = site.suspended,
    [paused] = site.paused,
    [ordered] = site.ordered,
    [narrowed] = site.narrowed;
  if (suspended !== undefined) {
    const given = suspended.orders.find(order => order.does === 'suspended');
    return {
      text:
        'suspended' +
        (given === undefined
          ? ` for ${duration(suspended.paused)}`
          : `: ${given.reason} (${given.by}, ${duration(given.left_us)} left)`) +
        of(site.suspended),
      class: 'bad',
    };
  }
  if (paused !== undefined)
    return {
      text: `pauses for ${duration(paused.paused)} after ${many(paused.failures, 'failure')}` + of(site.paused),
      class: 'warn',
    };
  if (ordered !== undefined)
    return {
      text:
        ordered.orders
          .map(order => `${ORDER_WORDS[order.does] || order.does}: ${order.reason} (${order.by})`)
          .join('; ') + of(site.ordered),
      class: 'warn',
    };
  if (narrowed !== undefined) return {text: narrowed.why + of(site.narrowed), class: 'warn'};
  return {text: site.parts[0].why || 'open', class: 'muted'};
}

/* Trouble first, then those with the most mail, then those with the most connections. */
function siteRank(site) {
  const at = queue.top.indexOf(site.name);
  return (
    (site.suspended.length > 0 ? 4e6 : site.paused.length > 0 ? 3e6 : site.ordered.length > 0 ? 2e6 : 0) +
    (at >= 0 ? 1e6 - at * 1e4 : 0) +
    Math.min(site.connections, 9999)
  );
}

async function sitesRefresh() {
  const answer = await ask('site show', {limit: SITE_LOOK});
  const rows = [...answer.rows],
    seen = new Set(rows.map(row => row.site));
  for (const name of answer.has_more ? queue.top.filter(one => !seen.has(one)).slice(0, SITE_EXTRA) : [])
    rows.push(...(await ask('site show', {id: name, limit: SITE_LOOK})).rows);
  const sites = sitesJoin(rows).sort((a, b) => siteRank(b) - siteRank(a));
  const shown = sites.slice(0, SITE_ROWS);
  const columns = ['site', 'from', right('connections'), right('allowed now'), right('at most'), 'rate', 'state'];
  if (isAdmin()) columns.push('');
  tableFill(
    $('sites'),
    columns,
    shown.map(site => {
      const cells = [
        {text: site.name, class: 'name'},
        site.parts.length > 3
          ? `${site.parts.length} sources`
          : site.parts.map(part => part.source || 'default').join(', '),
        right(exact(site.connections)),
        right(exact(site.allowed)),
        right(exact(site.max)),
        site.rate || 'none',
        siteState(site),
      ];
      if (isAdmin()) cells.push(siteButtonCell(site));
      return {key: site.name, cells, open: () => drillTo('site', site.name)};
    }),
    'No site was sent to since the start.',
  );
  $('sites-note').textContent = answer.has_more
    ? `of the first ${SITE_LOOK} that the cores know; / finds the others`
    : sites.length > SITE_ROWS
      ? `${SITE_ROWS} of ${sites.length}, those with trouble first`
      : '';
}

/* ---- sources ---- */

const REST_WORDS = {
  broken: 'nothing leaves from its address',
  refused: 'sites refuse it',
  unreached: 'it reaches none of several sites that others reach',
};

/* Suspensions and rests are shared by the cores; of what is each core's own, the longest and the most. */
function sourcesJoin(rows) {
  const sources = new Map();
  for (const row of rows) {
    const source = sources.get(row.source) || {...row};
    source.suspended = source.suspended || row.suspended;
    source.broken = source.broken || row.broken;
    source.left_us = Math.max(source.left_us, row.left_us);
    source.failures = Math.max(source.failures, row.failures);
    source.reason = source.reason || row.reason;
    if (row.rests !== undefined && row.rests.length > source.rests.length) source.rests = row.rests;
    sources.set(row.source, source);
  }
  return [...sources.values()];
}

const isUsed = source => !source.suspended && !source.broken;
const restText = rest =>
  `${rest.part === 'all' ? '' : rest.part + ': '}${REST_WORDS[rest.cause] || rest.cause}; rests for ${duration(rest.left_us)} more`;

function warmupText(source) {
  if (source.warmup_days === undefined) return '';
  return source.warmup_day === 0 || source.warmup_day === undefined
    ? 'its warm-up has not begun'
    : `warms up, day ${source.warmup_day} of ${source.warmup_days}: ${exact(source.warmup_limit)} a day at each site`;
}

function sourceState(source) {
  if (source.suspended) return {text: `suspended: ${source.reason} (${duration(source.left_us)} left)`, class: 'bad'};
  if ((source.rests || []).length > 0)
    return {text: source.rests.map(restText).join('. '), class: source.broken ? 'bad' : 'warn'};
  if (source.broken) return {text: `rests for ${duration(source.left_us)} more: ${source.reason}`, class: 'bad'};
  return {text: warmupText(source) || 'in use', class: source.warmup_days === undefined ? 'good' : 'warn'};
}

async function sourcesRefresh() {
  const answer = await ask('source show', {limit: SOURCE_ROWS});
  const sources = sourcesJoin(answer.rows);
  const unused = sources.filter(source => !isUsed(source)).length;
  const columns = ['source', 'addresses', 'state'];
  if (isAdmin()) columns.push('');
  sources.sort((a, b) => isUsed(a) - isUsed(b) || a.source.localeCompare(b.source));
  tableFill(
    $('sources'),
    columns,
    sources.slice(0, SOURCE_ROWS).map(source => {
      const cells = [
        {text: source.source, class: 'name'},
        source.addresses.join(', ') || 'of the host',
        sourceState(source),
      ];
      if (isAdmin()) cells.push(sourceButtonCell(source));
      return {key: source.source, cells, open: () => drillTo('source', source.source)};
    }),
    'The relay has no sources.',
  );
  $('sources-note').textContent = unused > 0 ? `${unused} of ${sources.length} not in use` : '';
}

/* ---- last replies ---- */

/* Replies that differ in numbers alone (a time, a queue id) are one reason. */
const replyKind = reply => reply.replace(/[0-9a-f]{8,}/gi, '…').replace(/(?<![\d.])\d{4,}/g, '…');

async function repliesRefresh() {
  const kinds = new Map();
  let seen = 0;
  for (const site of queue.top.slice(0, REPLY_SITES)) {
    const answer = await ask('queue list', {filter: `site=${site} state=waiting`, limit: REPLY_LOOK});
    for (const row of answer.rows) {
      seen++;
      if (row.last_reply === '') continue;
      const key = site + '\n' + replyKind(row.last_reply);
      const kind = kinds.get(key) || {site, reply: row.last_reply, count: 0, id: row.id, next: row.next_try_us};
      kind.count++;
      kind.next = Math.min(kind.next, row.next_try_us);
      kinds.set(key, kind);
    }
  }
  const rows = [...kinds.entries()].sort((a, b) => b[1].count - a[1].count).slice(0, REPLY_ROWS);
  tableFill(
    $('replies'),
    ['site', 'reply', right('of those seen'), right('next try')],
    rows.map(([key, kind]) => ({
      key,
      cells: [
        {text: kind.site, class: 'name'},
        {text: kind.reply, class: 'reply mono'},
        right(exact(kind.count)),
        right(nextTry(kind.next)),
      ],
      open: () => drillTo('message', kind.id),
    })),
    'No mail that waits was answered.',
  );
  $('replies-note').textContent =
    seen > 0
      ? `of ${seen} messages that wait, at the ${Math.min(REPLY_SITES, queue.top.length)} sites with the most`
      : '';
}

const nextTry = at => (at > Date.now() * 1000 ? 'in ' + duration(at - Date.now() * 1000) : 'due');
