/* SPDX-License-Identifier: Apache-2.0
 * Orders. Each is counted first (dry_run), asks for a reason, and goes only when its button was
 * pressed. Viewers are not shown any; the relay would refuse them anyway. */

/* title: what the dialogue is called; reason: needed; durations: the first is preset, '' is for ever */
const SUSPEND_TIMES = ['1h', '15m', '4h', '1d', '7d'];
const acts = {
  'site suspend': {
    title: 'Suspend',
    what: 'No mail goes to this site until then, or until it is resumed.',
    reason: true,
    durations: SUSPEND_TIMES,
  },
  'site resume': {title: 'Resume', what: 'Its mail may go now: suspensions, pauses and what was learned against it end.'},
  'source suspend': {
    title: 'Suspend',
    what: 'No mail goes from this source until then, or until it is resumed.',
    reason: true,
    durations: SUSPEND_TIMES,
  },
  'source resume': {title: 'Resume', what: 'Mail goes from this source again; a rest ends, too.'},
  retry: {title: 'Retry', what: 'What waits is tried now.', hasReason: true},
  hold: {
    title: 'Hold',
    what: 'No attempt until it is released. It still grows older and expires.',
    hasReason: true,
    durations: ['', '1h', '4h', '1d', '7d'],
  },
  release: {title: 'Release', what: 'What is held may go again.', hasReason: true},
  bounce: {
    title: 'Bounce',
    what: 'Goes back to the senders, with the reason. This cannot be taken back.',
    reason: true,
    isDanger: true,
  },
  delete: {
    title: 'Delete',
    what: 'Is gone, and nobody is told. This cannot be taken back.',
    reason: true,
    isDanger: true,
  },
};
const MAIL_ACTS = ['retry', 'hold', 'release', 'bounce', 'delete'];
const TIME_WORDS = {
  '': 'until it is released',
  '15m': '15 minutes',
  '1h': 'an hour',
  '4h': '4 hours',
  '1d': 'a day',
  '7d': 'a week',
};

/* `number` tells one dialogue from the next: an order may outlive its own. */
const acting = {number: 0, verb: null, members: null, onDone: null};

function actButton(label, onclick, isDanger = false) {
  return element('button', {type: 'button', class: 'small' + (isDanger ? ' bad' : ''), onclick}, label);
}

/* A cell that keeps its button as long as it says the same. */
const kept = new Map();
function buttonCell(key, label, onclick) {
  const known = kept.get(key);
  if (known === undefined || known.textContent !== label) kept.set(key, actButton(label, onclick));
  return right(kept.get(key));
}
const siteButtonCell = site =>
  site.suspended.length > 0
    ? buttonCell('site ' + site.name, 'Resume', () => actAsk('site resume', {id: site.name}))
    : buttonCell('site ' + site.name, 'Suspend', () => actAsk('site suspend', {id: site.name}));
const sourceButtonCell = source =>
  source.suspended || source.rests.length > 0
    ? buttonCell('source ' + source.source, 'Resume', () => actAsk('source resume', {id: source.source}))
    : buttonCell('source ' + source.source, 'Suspend', () => actAsk('source suspend', {id: source.source}));

function said(text) {
  $('said').textContent = text;
  clearTimeout(said.timer);
  said.timer = setTimeout(() => {
    $('said').textContent = '';
  }, 8000);
}

function actMembers(isDry) {
  const act = acts[acting.verb],
    members = {...acting.members};
  const reason = $('act-reason').value.trim();
  if (reason !== '') members.reason = reason;
  else if (isDry && act.reason) members.reason = 'to be counted';
  if (act.durations !== undefined && $('act-duration').value !== '') members.duration = $('act-duration').value;
  if (isDry) members.dry_run = true;
  return members;
}

function counted(answer, verb) {
  if (verb.startsWith('source')) return many(answer.rows.length, 'core');
  return verb.startsWith('site')
    ? many(answer.matched, 'site and source', 'sites and sources')
    : many(answer.matched, 'recipient');
}

async function actCount() {
  const {number, verb} = acting;
  try {
    const answer = await order(verb, actMembers(true));
    if (acting.number !== number) return;
    $('act-count').textContent = `This is about ${counted(answer, verb)}.`;
    $('act-go').disabled = false;
  } catch (error) {
    if (acting.number === number) $('act-error').textContent = error.message;
  }
}

/* members: id, or filter */
function actAsk(verb, members, onDone = null) {
  const act = acts[verb];
  Object.assign(acting, {number: acting.number + 1, verb, members, onDone});
  $('act-title').textContent = `${act.title}: ${members.id || members.filter}`;
  $('act-what').textContent = act.what;
  $('act-count').textContent = 'Counting …';
  $('act-error').textContent = '';
  $('act-reason').value = '';
  $('act-reason').required = act.reason === true;
  $('act-reason-label').hidden = act.reason !== true && act.hasReason !== true;
  $('act-duration-label').hidden = act.durations === undefined;
  $('act-duration').replaceChildren(
    ...(act.durations || []).map(value => element('option', {value}, TIME_WORDS[value])),
  );
  $('act-go').textContent = act.title;
  $('act-go').className = act.isDanger ? 'main danger' : 'main';
  $('act-go').disabled = true;
  $('act').showModal();
  ($('act-reason-label').hidden ? $('act-cancel') : $('act-reason')).focus();
  actCount();
}

function actSaid(verb, answer) {
  said(
    `${acts[verb].title}: ${counted(answer, verb)}` +
      (answer.in_flight > 0 ? `, ${exact(answer.in_flight)} under way` : '') +
      (answer.order > 0 ? ` (order ${answer.order})` : ''),
  );
}

async function actGo(event) {
  const {number, verb, onDone} = acting,
    count = $('act-count').textContent;
  event.preventDefault();
  $('act-go').disabled = true;
  $('act-error').textContent = '';
  $('act-count').textContent = 'Under way …';
  try {
    const answer = await order(verb, actMembers(false));
    if (acting.number === number) $('act').close();
    actSaid(verb, answer);
    refreshSoon();
    if (onDone !== null) onDone();
  } catch (error) {
    if (acting.number !== number) {
      said(error.message);
      return;
    }
    $('act-count').textContent = count;
    $('act-error').textContent = error.message;
    $('act-go').disabled = false;
  }
}

function actsStart() {
  $('act').querySelector('form').addEventListener('submit', actGo);
  $('act-cancel').addEventListener('click', () => $('act').close()); /* what is under way goes on */
  $('act').addEventListener('close', () => {
    acting.number++;
  });
}
