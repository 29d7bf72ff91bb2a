/* SPDX-License-Identifier: Apache-2.0
 * The course of the page: who may look, the status once a second, the lists in turn, one at a time
 * and each after ten times as long as its answer took, so that a page that is left open is no
 * burden. A page in the background asks for the status alone. */

const STATUS_MS = 1000;

/* ---- theme ---- */

const dark = matchMedia('(prefers-color-scheme: dark)');

function themeApply() {
  const chosen = localStorage.getItem('angarium-theme');
  document.documentElement.dataset.theme = chosen || (dark.matches ? 'dark' : 'light');
  chartsMake();
}

function themeSwitch() {
  localStorage.setItem('angarium-theme', document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
  themeApply();
}

/* ---- token ---- */

function tokenAsk(why) {
  relay.role = null;
  $('token-refused').textContent = why;
  $('link').textContent = 'no token';
  $('link').className = 'warn';
  for (const id of ['act', 'help-text', 'drill']) if ($(id).open) $(id).close();
  if (!$('ask-token').open) $('ask-token').showModal();
}

async function enter() {
  let role;
  try {
    role = (await ask('role')).role;
  } catch (error) {
    linkLost();
    setTimeout(enter, STATUS_MS);
    return;
  }
  if (role === 'none') {
    const hadToken = relay.token !== '';
    tokenKeep('');
    tokenAsk(hadToken ? 'The relay refuses this token.' : '');
    return;
  }
  relay.role = role;
  if ($('ask-token').open) $('ask-token').close();
  $('leave').hidden = relay.token === '';
  linkFound();
  await statusAsk();
  drillFollow();
  refreshSoon();
}

function tokenTaken(event) {
  const token = $('token').value.trim();
  event.preventDefault();
  $('token').value = '';
  if (!/^[\x21-\x7e]{16,512}$/.test(token)) {
    $('token-refused').textContent = 'A token has 16 to 512 characters, and no blanks.';
    return;
  }
  tokenKeep(token);
  enter();
}

/* ---- asking ---- */

function linkLost() {
  if (session.unreachable === null) session.unreachable = clock();
  $('link').textContent = 'not reached';
  $('link').className = 'bad';
  $('main').classList.add('stale');
  noticesShow(null);
}

function linkFound() {
  session.unreachable = null;
  $('link').textContent = isAdmin() ? 'live, admin' : 'live, viewer';
  $('link').className = 'good';
  $('main').classList.remove('stale');
}

function failed(error) {
  if (error instanceof Denied) {
    tokenKeep('');
    tokenAsk('The relay no longer takes this token.');
  } else if (error instanceof Unreachable) {
    linkLost();
  } else {
    said(error.message);
  }
}

async function statusAsk() {
  try {
    const status = await ask('status'),
      wasLost = session.unreachable !== null;
    linkFound();
    if (sample(status, Date.now() / 1000, wasLost)) session.restarted = clock();
    statusShow(status);
  } catch (error) {
    failed(error);
  }
}

async function statusTurn() {
  const begun = performance.now();
  if (relay.role !== null) await statusAsk();
  setTimeout(statusTurn, Math.max(100, STATUS_MS - (performance.now() - begun)));
}

/* In turn; `due` is when each is wanted next. */
const lists = [
  {refresh: queueRefresh, everyMs: 2000, due: 0},
  {refresh: sitesRefresh, everyMs: 3000, due: 0},
  {refresh: sourcesRefresh, everyMs: 5000, due: 0},
  {refresh: repliesRefresh, everyMs: 6000, due: 0},
  {refresh: drillRefresh, everyMs: 5000, due: 0},
];

function refreshSoon() {
  for (const list of lists) list.due = 0;
}

async function listsTurn() {
  for (const list of lists) {
    if (relay.role === null || session.unreachable !== null || document.hidden || performance.now() < list.due)
      continue;
    const begun = performance.now();
    list.due = Infinity;
    try {
      await list.refresh();
    } catch (error) {
      if (!(error instanceof Unreachable)) failed(error); /* else the status will tell, or the relay was busy */
    }
    const wait = Math.max(list.everyMs, 10 * (performance.now() - begun));
    if (list.due === Infinity) list.due = performance.now() + wait;
  }
  setTimeout(listsTurn, 200);
}

/* ---- keys ---- */

const keys = {'/': () => $('find').focus(), '?': () => $('help-text').showModal(), t: themeSwitch};

function onKey(event) {
  const isText = event.target.closest('input, select, textarea') !== null;
  if (event.key === 'Escape' && event.target === $('find')) $('find').blur();
  if (isText || event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]') !== null)
    return;
  const act = keys[event.key];
  if (act === undefined) return;
  event.preventDefault();
  act();
}

function start() {
  switchFill($('queue-by'), GROUPS, queue.by, by => {
    queue.by = by;
    lists[0].due = 0;
  });
  themeApply();
  dark.addEventListener('change', themeApply);
  $('theme').addEventListener('click', themeSwitch);
  $('help').addEventListener('click', keys['?']);
  $('leave').addEventListener('click', () => {
    tokenKeep('');
    location.reload();
  });
  $('goto').addEventListener('submit', event => {
    event.preventDefault();
    findOpen($('find').value.trim());
  });
  $('ask-token').querySelector('form').addEventListener('submit', tokenTaken);
  $('ask-token').addEventListener('cancel', event => event.preventDefault());
  document.addEventListener('keydown', onKey);
  actsStart();
  drillStart();
  enter();
  setTimeout(statusTurn, STATUS_MS);
  listsTurn();
}

start();
