/* SPDX-License-Identifier: Apache-2.0
 * From a site to its mail, to one message, to why it does not go. What is open stands in the
 * address behind the #, so that the browser's way back works, and a colleague can be sent there. */

const MAIL_ROWS = 50;
const EXPLAIN_SITES = 3; /* of a message that goes to several */
const MESSAGE_ID = /^[a-z2-7]{26}$/i;

const drill = {kind: null, name: null, state: ''};

function drillTo(kind, name) {
  location.hash = `#/${kind}/${encodeURIComponent(name)}`;
}

function drillClose() {
  if (location.hash !== '') window.history.pushState(null, '', location.pathname);
  drill.kind = null;
  if ($('drill').open) $('drill').close();
}

/* What was typed: a message, mail by terms, or a name. */
function findOpen(text) {
  if (text === '') return;
  if (MESSAGE_ID.test(text)) drillTo('message', text);
  else drillTo(text.includes('=') ? 'mail' : 'site', text);
}

/* ---- explain ---- */

function limitText(limit) {
  const name = limit.limit + (limit.rate === undefined ? '' : ' ' + limit.rate);
  const next =
    limit.bars && limit.next_us > 0
      ? `, the next in ${duration(limit.next_us)}`
      : limit.bars && limit.max !== undefined
        ? ', the next as mail ends'
        : '';
  if (limit.max === undefined) return `${name} for ${duration(limit.next_us)} more`;
  const show = limit.limit === 'memory for bodies' ? octets : exact;
  return `${name}: ${show(limit.used)} of ${show(limit.max)}${next}`;
}

function orderLine(order, onDone) {
  const settings = [
    order.connections === undefined ? '' : `${order.connections} connections`,
    order.rate || '',
    order.host || '',
  ]
    .filter(text => text !== '')
    .join(', ');
  const line = element(
    'span',
    {},
    `${ORDER_WORDS[order.does] || order.does}${settings === '' ? '' : ' ' + settings}: ${order.reason} (${order.by}, ${duration(order.left_us)} left) `,
  );
  if (isAdmin()) line.append(actButton('Take back', () => actAsk('site resume', {id: String(order.order)}, onDone)));
  return line;
}

function explainedSite(site, onDone) {
  const rows = [];
  const binding = site.limits.filter(limit => limit.binds);
  for (const limit of binding) rows.push(['binds', element('b', {}, limitText(limit))]);
  if (binding.length === 0) rows.push(['binds', 'nothing: mail goes as it comes']);
  for (const limit of site.limits.filter(one => !one.binds))
    rows.push([limit.bars ? 'also' : 'limit', limitText(limit)]);
  for (const order of site.orders) rows.push([`order ${order.order}`, orderLine(order, onDone)]);
  for (const host of site.dead) rows.push(['host', `${host.address} is tried last for ${duration(host.left_us)} more`]);
  return element(
    'div',
    {},
    element('h3', {}, `${site.site} from ${site.source || 'default'}`),
    element(
      'div',
      {class: 'facts'},
      ...rows.flatMap(([term, text]) => [element('span', {class: 'muted'}, term), element('span', {}, text)]),
    ),
  );
}

function explainedMail(mail) {
  return element(
    'p',
    {class: 'muted'},
    `${mail.class_name === String(mail.class) ? 'Mail' : 'Class ' + mail.class_name}: ${exact(mail.ready)} ready, ${exact(mail.active)} under way, ${exact(mail.held)} held, ${exact(mail.waiting)} waiting` +
      (mail.next_us === undefined ? '' : `, the first in ${duration(mail.next_us)}`) +
      (mail.unseen > 0 ? `, ${exact(mail.unseen)} more` : ''),
  );
}

/* Of a name, and of the sites that it leads to. */
async function explainMake(name, onDone) {
  try {
    const answer = await ask('explain', {id: name});
    const sites = answer.sites.map(site => explainedSite(site, onDone));
    for (const other of answer.goes_to.filter(site => site !== name).slice(0, EXPLAIN_SITES)) {
      const more = await ask('explain', {id: other});
      sites.push(...more.sites.map(site => explainedSite(site, onDone)));
    }
    return [...answer.mail.map(explainedMail), element('div', {class: 'explained'}, ...sites)];
  } catch (error) {
    if (error instanceof Denied || error instanceof Unreachable) throw error;
    return [element('p', {class: 'muted'}, error.message)];
  }
}

/* ---- mail ---- */

const age = row => duration(Date.now() * 1000 - row.arrived_us);
const sender = row => (row.sender === '' ? '<>' : row.sender);

function mailTable(answer) {
  const table = element('table', {class: 'cards'});
  tableFill(
    table,
    ['recipient', 'state', right('age'), right('tries'), right('next'), 'last reply', 'sender'],
    answer.rows.map(row => ({
      key: row.id + row.recipient,
      cells: [
        {text: row.recipient, class: 'name'},
        {text: row.state, class: 'still'},
        right(age(row)),
        right(exact(row.attempts)),
        right(row.state === 'waiting' ? nextTry(row.next_try_us) : ''),
        {text: row.last_reply, class: 'reply mono'},
        {text: sender(row), class: 'name'},
      ],
      open: () => drillTo('message', row.id),
    })),
    'No such mail in the queue.',
  );
  return [
    element('div', {class: 'scroll'}, table),
    element('p', {class: 'muted'}, answer.has_more ? `The first ${MAIL_ROWS}; there are more.` : ''),
  ];
}

const STATES = {'': 'all', waiting: 'waiting', ready: 'due', active: 'under way', held: 'held'};

function mailHead(title) {
  const head = element('div', {class: 'head'}, element('h3', {}, title));
  head.append(
    switchMake('State', STATES, drill.state, state => {
      drill.state = state;
      drillShow();
    }),
  );
  return head;
}

function mailActs(filter) {
  return MAIL_ACTS.map(verb =>
    actButton(acts[verb].title + ' …', () => actAsk(verb, {filter}, drillShow), acts[verb].isDanger),
  );
}

const terms = (...list) => list.filter(term => term !== '').join(' ');

const listMail = filter =>
  ask('queue list', {filter: terms(filter, drill.state === '' ? '' : 'state=' + drill.state), limit: MAIL_ROWS});

/* ---- what can be open ---- */

const views = {
  /* A site, or a domain that was not resolved yet: by the name of either. */
  async site(name) {
    const filter = `site=${name}`;
    const explained = await explainMake(name, drillShow);
    return {
      body: [...explained, mailHead('Mail'), ...mailTable(await listMail(filter))],
      acts: [
        actButton('Suspend site …', () => actAsk('site suspend', {id: name}, drillShow)),
        actButton('Resume site …', () => actAsk('site resume', {id: name}, drillShow)),
        ...mailActs(filter),
      ],
    };
  },
  async domain(name) {
    const filter = `domain=${name}`;
    const explained = await explainMake(name, drillShow);
    return {body: [...explained, mailHead('Mail'), ...mailTable(await listMail(filter))], acts: mailActs(filter)};
  },
  async mail(filter) {
    return {body: [mailHead('Mail'), ...mailTable(await listMail(filter))], acts: mailActs(filter)};
  },
  async source(name) {
    const [source] = sourcesJoin((await ask('source show', {id: name})).rows);
    const facts = [
      ['State', sourceState(source).text, sourceState(source).class],
      ['Addresses', source.addresses.join(', ') || 'the host chooses'],
      ['Says in EHLO', source.hello],
    ];
    if (warmupText(source) !== '') facts.push(['Warm-up', warmupText(source)]);
    const list = element('dl'),
      body = [list];
    factsFill(list, facts);
    for (const rest of source.rests || []) {
      body.push(
        element('h3', {}, restText(rest)),
        element(
          'p',
          {class: 'muted'},
          `For ${duration(rest.since_us)}, time ${rest.times} in a row; ${many(rest.sites, 'site')} said so`,
        ),
        element(
          'div',
          {class: 'facts'},
          ...rest.evidence.flatMap(row => [
            element('span', {}, `${row.site}, ${duration(row.ago_us)} ago`),
            element('span', {class: 'mono'}, row.said),
          ]),
        ),
      );
    }
    return {
      body,
      acts: [
        actButton('Suspend source …', () => actAsk('source suspend', {id: name}, drillShow)),
        actButton('Resume source …', () => actAsk('source resume', {id: name}, drillShow)),
      ],
    };
  },
  async message(id) {
    const answer = await ask('queue show', {id});
    const first = answer.rows[0],
      body = [];
    const facts = [
      ['From', sender(first)],
      ['Arrived', `${new Date(first.arrived_us / 1000).toLocaleString()}, ${age(first)} ago`],
      ['Expires', `in ${duration(first.expires_us - Date.now() * 1000)}`],
      ['Size', octets(first.size)],
      ...(first.class_name === String(first.class) ? [] : [['Class', first.class_name]]),
      ['Source', first.source || 'default'],
    ];
    if (first.user) facts.push(['Logged in as', first.user]);
    const list = element('dl');
    factsFill(list, facts);
    const table = element('table', {class: 'cards'});
    tableFill(
      table,
      ['recipient', 'state', right('tries'), right('next'), 'site', 'last reply'],
      answer.rows.map(row => ({
        key: row.recipient,
        open: row.site === '' ? () => drillTo('domain', row.domain) : () => drillTo('site', row.site),
        cells: [
          {text: row.recipient, class: 'name'},
          {text: row.state + (row.order === undefined ? '' : ` by order ${row.order}`), class: 'still'},
          right(exact(row.attempts)),
          right(row.state === 'waiting' ? nextTry(row.next_try_us) : ''),
          row.site || row.domain,
          {text: row.last_reply, class: 'reply mono'},
        ],
      })),
      '',
    );
    body.push(list, element('div', {class: 'scroll'}, table), element('h3', {}, 'Why it does not go'));
    const names = [
      ...new Set(
        answer.rows
          .filter(row => ['waiting', 'ready', 'active', 'held'].includes(row.state))
          .map(row => row.site || row.domain),
      ),
    ];
    for (const name of names.slice(0, EXPLAIN_SITES)) body.push(...(await explainMake(name, drillShow)));
    return {body, acts: mailActs(`id=${id}`)};
  },
};

/* Shows what the address says; asks anew when that is open already. Acts stay, as the focus may be on one. */
async function drillShow() {
  const {kind, name} = drill;
  if (kind === null) return;
  try {
    const view = await views[kind](name);
    if (drill.kind !== kind || drill.name !== name) return;
    if ($('drill-acts').childElementCount === 0 && isAdmin()) $('drill-acts').replaceChildren(...view.acts);
    $('drill-body').replaceChildren(...view.body);
    document.querySelectorAll('#drill-body tbody').forEach(body => tabStop(body, null));
  } catch (error) {
    if (drill.kind === kind && drill.name === name)
      $('drill-body').replaceChildren(element('p', {class: 'bad'}, error.message));
  }
}

/* What is open is kept fresh, unless somebody reads or walks in it. */
async function drillRefresh() {
  const isInUse = $('drill-body').contains(document.activeElement) || String(getSelection()) !== '' || $('act').open;
  if (drill.kind !== null && !isInUse) await drillShow();
}

function drillFollow() {
  const match = /^#\/(site|domain|mail|message|source)\/(.+)$/.exec(location.hash);
  let name = null;
  try {
    name = match === null ? null : decodeURIComponent(match[2]);
  } catch (error) {
    name = null; /* no name can be read from this address */
  }
  if (name === null || relay.role === null) {
    drill.kind = null;
    if ($('drill').open) $('drill').close();
    return;
  }
  Object.assign(drill, {kind: match[1], name, state: ''});
  $('drill-title').textContent = name;
  $('drill-acts').replaceChildren();
  $('drill-body').replaceChildren(element('p', {class: 'muted'}, 'Looking …'));
  if (!$('drill').open) $('drill').showModal();
  $('drill').scrollTop = 0;
  drillShow();
}

function drillStart() {
  window.addEventListener('hashchange', drillFollow);
  $('drill-back').addEventListener('click', () => window.history.back());
  $('drill-close').addEventListener('click', drillClose);
  $('drill').addEventListener('cancel', event => {
    event.preventDefault();
    drillClose();
  });
}
