/* SPDX-License-Identifier: Apache-2.0
 * What stands on the page from the newest status: tiles, what is wrong, reasons, cores, spool, DNS. */

/* ---- tiles ---- */

const inMinute = path => exact(inLastMinute(path));

function deferredPart() {
  const deferred = inLastMinute('queue.deferrals') || 0,
    delivered = inLastMinute('client.accepted') || 0;
  return percent(deferred, deferred + delivered);
}

const tiles = [
  [
    'In',
    () => brief(latest('accepted')) + '/s',
    s => `${brief(number(s, 'server.messages_accepted'))} since the start`,
  ],
  ['Delivered', () => brief(latest('delivered')) + '/s', s => `${brief(number(s, 'client.accepted'))} since the start`],
  [
    'In the queue',
    s => brief(number(s, 'queue.messages')),
    s => `${brief(number(s, 'queue.deliveries_active'))} under way, ${brief(number(s, 'queue.deliveries_held'))} held`,
  ],
  ['Deferred', () => brief(latest('deferrals')) + '/s', () => `${deferredPart()} in 1 m`],
  ['Clients', s => brief(number(s, 'server.open')), () => `${inMinute('server.refused')} turned away in 1 m`],
  ['Next hops', s => brief(number(s, 'client.open')), () => `${inMinute('flow.connect_failed')} failed in 1 m`],
  ['Busiest core', () => percent(latest('loadMost'), 1), s => `of ${s.cores}; mean ${percent(latest('loadMean'), 1)}`],
  [
    'Spool',
    s => percent(number(s, 'spool.octets_used'), number(s, 'spool.octets_max')),
    s => `of ${octets(number(s, 'spool.octets_max'))}`,
  ],
];

function tilesShow(status) {
  const place = $('tiles');
  if (place.childElementCount === 0) {
    place.append(
      ...tiles.map(([title]) =>
        element('div', {class: 'tile'}, element('span', {}, title), element('b'), element('span')),
      ),
    );
  }
  tiles.forEach(([, value, more], i) => {
    const [, shown, note] = place.children[i].children;
    shown.textContent = value(status);
    note.textContent = more(status);
  });
}

/* ---- what is wrong ---- */

const warnings = [
  ['warn', s => number(s, 'server.closed'), () => 'No mail is taken: angarium drain.'],
  [
    'bad',
    s => number(s, 'spool.is_failed'),
    n => `The disk of ${n} core${n > 1 ? 's' : ''} has failed: no mail is taken there.`,
  ],
  [
    'bad',
    s => number(s, 'spool.is_full'),
    n => `The spool of ${n} core${n > 1 ? 's is' : ' is'} full: new mail is answered 452.`,
  ],
  [
    'bad',
    s => number(s, 'queue.stuck') + number(s, 'shards.invariant_violations'),
    () => 'Messages without a next event: this is a fault of the relay, please report it.',
  ],
  [
    'warn',
    s => number(s, 'queue.unreadable'),
    n => `${many(n, 'message')} cannot be read: the log has their names (envelope_not_read).`,
  ],
  ['warn', s => number(s, 'spool.damaged_messages'), n => `Damage on the disk: ${many(n, 'message')} since the start.`],
  [
    'warn',
    s => number(s, 'records.dropped'),
    n => `${exact(n)} records were dropped: the file is too slow, or its disk is full.`,
  ],
];

const session = {restarted: null, unreachable: null};

function noticesShow(status) {
  const rows = [];
  if (session.unreachable !== null)
    rows.push([
      'bad',
      `The relay cannot be reached since ${session.unreachable}. What is shown is from before; trying again every second.`,
    ]);
  if (session.restarted !== null)
    rows.push(['warn', `The relay was restarted at ${session.restarted}: counters began anew.`]);
  if (status !== null) {
    for (const [kind, measure, text] of warnings) {
      const n = measure(status);
      if (n > 0) rows.push([kind, text(n)]);
    }
  }
  const text = JSON.stringify(rows);
  if ($('notices').dataset.shown === text) return;
  $('notices').dataset.shown = text;
  $('notices').replaceChildren(...rows.map(([kind, words]) => element('p', {class: kind}, words)));
}

/* ---- from the status ---- */

const reasons = [
  ['Next hop', 'deferred: a 4xx or no answer, tried again', 'queue.deferrals'],
  ['Next hop', 'replies 4xx', 'client.deferred'],
  ['Next hop', 'replies 5xx', 'client.refused'],
  ['Next hop', 'connections that could not be made', 'flow.connect_failed'],
  ['Next hop', 'TLS handshakes failed', 'client.tls_failures'],
  ['Next hop', 'lost behind the end of data', 'client.uncertain'],
  ['Next hop', 'replies that did not fit', 'client.desynchronised'],
  ['Queue', 'recipients failed for good', 'queue.failed_recipients'],
  ['Queue', 'of those, grown too old', 'queue.expired_recipients'],
  ['Queue', 'deleted by an operator', 'queue.deleted_recipients'],
  ['Queue', 'notifications written', 'queue.dsns'],
  ['Queue', 'notifications of delay', 'queue.delays_told'],
  ['Client', 'messages refused at their end', 'server.messages_rejected'],
  ['Client', 'recipients refused', 'server.recipients_rejected'],
  ['Client', 'connections turned away', 'server.refused'],
  ['Client', 'silent for too long', 'server.timeouts'],
  ['Client', 'did not wait where it must', 'server.desynchronised'],
  ['Brake', 'connections of a network at a time', 'server.brakes.connections'],
  ['Brake', 'connections of a network in a minute', 'server.brakes.connection_rate'],
  ['Brake', 'messages of a network', 'server.brakes.messages'],
  ['Brake', 'recipients of a network', 'server.brakes.recipients'],
  ['Brake', 'too many refused recipients', 'server.brakes.refused'],
  ['Brake', 'too many errors', 'server.brakes.errors'],
  ['DKIM', 'header cannot be read', 'server.dkim.malformed'],
  ['DKIM', 'header too large', 'server.dkim.oversized'],
  ['DKIM', 'signature failed', 'server.dkim.failed'],
];

function reasonsShow(status) {
  const rows = reasons
    .filter(([, , path]) => number(status, path) > 0)
    .map(([where, what, path]) => ({
      key: path,
      cells: [
        {text: where, class: 'muted still'},
        what,
        right(exact(inLastMinute(path))),
        right(exact(number(status, path))),
      ],
    }));
  tableFill(
    $('reasons'),
    ['', '', right('last minute'), right('since the start')],
    rows,
    'Nothing was deferred or refused since the start.',
  );
}

function coresShow(status) {
  const {minute} = history;
  const rows = status.per_core || [],
    from = minute[Math.max(0, minute.length - 4)],
    seconds = secondsBetween(from.status, status);
  const change = (row, i, name) =>
    seconds > 0 && from.status.per_core && i < from.status.per_core.length
      ? (row[name] - from.status.per_core[i][name]) / seconds
      : null;
  const busy = (row, i) => (seconds > 0 ? change(row, i, 'busy_us') / 1e6 : null);
  tableFill(
    $('cores'),
    ['core', 'busy', right('in'), right('delivered'), right('clients'), right('next hops'), right('queued')],
    rows.map((row, i) => ({
      key: String(i),
      cells: [
        String(i),
        {text: busy(row, i) === null ? '–' : percent(busy(row, i), 1), bar: busy(row, i), class: 'still'},
        right(brief(change(row, i, 'messages')) + '/s'),
        right(brief(change(row, i, 'deliveries')) + '/s'),
        right(brief(row.sessions)),
        right(brief(row.connections)),
        right(brief(row.queued)),
      ],
    })),
    'The relay tells nothing of its cores.',
  );
}

/* rows: [term, text, class] */
function factsFill(list, rows) {
  while (list.childElementCount > 2 * rows.length) list.lastChild.remove();
  rows.forEach(([term, text, kind], i) => {
    if (list.children[2 * i] === undefined) list.append(element('dt'), element('dd'));
    list.children[2 * i].textContent = term;
    list.children[2 * i + 1].textContent = text;
    list.children[2 * i + 1].className = kind || '';
  });
}

function spoolShow(status) {
  const n = path => number(status, path);
  const span = lastMinute(),
    per = path => (span === null ? null : inLastMinute(path) / span.seconds);
  const flushes = inLastMinute('spool.syncs');
  const state = n('spool.is_failed') > 0 ? 'a disk has failed' : n('spool.is_full') > 0 ? 'full' : 'takes mail';
  factsFill($('spool'), [
    ['State', state, state === 'takes mail' ? 'good' : 'bad'],
    [
      'In use',
      `${octets(n('spool.octets_used'))} of ${octets(n('spool.octets_max'))} (${percent(n('spool.octets_used'), n('spool.octets_max'))})`,
    ],
    [
      'Messages',
      `${exact(n('spool.messages_live'))} on the disk, ${exact(n('spool.messages_recovered'))} found at the start`,
    ],
    [
      'Flushes',
      flushes === null
        ? '–'
        : `${brief(per('spool.syncs'))}/s, ${duration(flushes > 0 ? inLastMinute('spool.sync_time_us_total') / flushes : null)} each, ${flushes > 0 ? (inLastMinute('spool.commits') / flushes).toFixed(1) : '–'} messages in one`,
    ],
    ['Written', `${octets(per('spool.octets_written'))}/s`],
    [
      'Failures',
      `${exact(n('spool.sync_failures'))} flushes, ${exact(n('spool.voids'))} messages given up for them`,
      n('spool.sync_failures') > 0 ? 'bad' : '',
    ],
    [
      'Damage',
      `${exact(n('spool.damaged_messages'))} messages, ${exact(n('spool.repaired_messages'))} of them mended; ${octets(n('spool.scrubbed_octets'))} looked through`,
      n('spool.damaged_messages') > 0 ? 'warn' : '',
    ],
    ['Bodies in memory', octets(n('queue.body_memory'))],
  ]);
}

function dnsShow(status) {
  const n = path => number(status, path);
  const span = lastMinute(),
    per = path => (span === null ? null : inLastMinute(path) / span.seconds);
  const hits = inLastMinute('dns.hits'),
    misses = inLastMinute('dns.misses');
  factsFill($('dns'), [
    [
      'From the cache',
      hits === null ? '–' : `${percent(hits, hits + misses)} of ${brief(per('dns.hits') + per('dns.misses'))}/s`,
    ],
    [
      'Queries',
      `${brief(per('dns.queries_udp'))}/s over UDP, ${brief(per('dns.queries_tcp'))}/s over TCP, ${exact(n('dns.outstanding'))} under way`,
    ],
    [
      'Without an answer',
      `${exact(inLastMinute('dns.timeouts'))} in a minute, ${exact(n('dns.timeouts'))} since the start`,
      inLastMinute('dns.timeouts') > 0 ? 'warn' : '',
    ],
    [
      'Failures',
      `${exact(inLastMinute('dns.servfail'))} in a minute, ${exact(n('dns.servfail'))} since the start`,
      inLastMinute('dns.servfail') > 0 ? 'warn' : '',
    ],
    ['Past their time', `${exact(n('dns.stale_served'))} answers were given, as no resolver answers`],
    ['Kept', `${exact(n('dns.entries'))} answers`],
  ]);
}

function statusShow(status) {
  coresShow(status);
  tilesShow(status);
  noticesShow(status);
  chartsDraw();
  reasonsShow(status);
  spoolShow(status);
  dnsShow(status);
  $('about').textContent =
    `${status.version} · up ${duration(status.uptime_s * 1e6)} · ${status.cores} core${status.cores > 1 ? 's' : ''}`;
}
