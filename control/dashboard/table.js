/* SPDX-License-Identifier: Apache-2.0
 * Tables that are filled again and again. A row keeps its element as long as its key is there, so
 * that the focus stays where it was. */

/* A choice of few, as radio buttons: arrow keys move, Tab passes by. */
function switchMake(label, choices, chosen, onChoice) {
  const group = element('div', {class: 'switch', role: 'radiogroup', 'aria-label': label});
  switchFill(group, choices, chosen, onChoice);
  return group;
}

function switchFill(group, choices, chosen, onChoice) {
  const buttons = Object.entries(choices).map(([key, text]) => {
    const button = element('button', {type: 'button', role: 'radio', 'data-key': key}, text);
    button.addEventListener('click', () => choose(key));
    return button;
  });
  const mark = key =>
    buttons.forEach(button => {
      button.setAttribute('aria-checked', button.dataset.key === key ? 'true' : 'false');
      button.tabIndex = button.dataset.key === key ? 0 : -1;
    });
  function choose(key) {
    mark(key);
    onChoice(key);
  }
  group.addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    const at = buttons.indexOf(document.activeElement);
    if (step === undefined || at < 0) return;
    const next = buttons[(at + step + buttons.length) % buttons.length];
    event.preventDefault();
    event.stopPropagation();
    next.focus();
    choose(next.dataset.key);
  });
  mark(chosen);
  group.replaceChildren(...buttons);
}

/* A number. */
const right = text => ({text, class: 'n'});

/* A cell is text, an element, or {text, class, title, heat, bar}. */
function cellFill(td, cell) {
  const made = cell instanceof Node || typeof cell !== 'object' || cell === null ? {text: cell} : cell;
  if (td.className !== (made.class || '')) td.className = made.class || '';
  if (made.title !== undefined) td.title = made.title;
  td.style.background = made.heat > 0 ? `rgba(var(--heat), ${made.heat.toFixed(2)})` : '';
  if (made.text instanceof Node) {
    if (td.firstChild !== made.text) td.replaceChildren(made.text);
    return;
  }
  const text = made.text === null || made.text === undefined ? '' : String(made.text);
  if (made.bar !== undefined) barFill(td, made.bar, text);
  else if (td.childElementCount > 0 || td.textContent !== text) td.textContent = text;
}

function barFill(td, part, text) {
  if (td.querySelector('.bar') === null)
    td.replaceChildren(element('span', {class: 'bar', 'aria-hidden': 'true'}, element('i')), ' ', element('span'));
  td.querySelector('i').style.width = Math.min(100, Math.max(0, 100 * part)).toFixed(1) + '%';
  td.lastChild.textContent = text;
}

function rowFill(tr, cells, columns) {
  while (tr.cells.length > cells.length) tr.deleteCell(-1);
  cells.forEach((cell, i) => {
    const td = i < tr.cells.length ? tr.cells[i] : tr.insertCell();
    td.dataset.label = typeof columns[i] === 'string' ? columns[i] : columns[i].text;
    cellFill(td, cell);
  });
}

/*
 * columns: texts, or {text, class, title}. rows: [{key, cells, open}], where open() is what Enter or a click does.
 * empty: what is said when there are none.
 */
function tableFill(table, columns, rows, empty) {
  if (table.tHead === null || table.dataset.columns !== JSON.stringify(columns)) {
    table.dataset.columns = JSON.stringify(columns);
    table.replaceChildren(
      element(
        'thead',
        {},
        element(
          'tr',
          {},
          ...columns.map(column => {
            const made = typeof column === 'string' ? {text: column} : column;
            return element('th', {scope: 'col', class: made.class, title: made.title}, made.text);
          }),
        ),
      ),
      element('tbody'),
    );
  }
  const body = table.tBodies[0];
  const known = new Map([...body.rows].map(tr => [tr.dataset.key, tr]));
  const wanted = rows.map(row => {
    const tr = known.get(row.key) || element('tr', {'data-key': row.key});
    rowFill(tr, row.cells, columns);
    tr.open = row.open;
    if (row.open && !tr.hasAttribute('tabindex')) tr.tabIndex = -1;
    return tr;
  });
  if (wanted.length === 0)
    wanted.push(element('tr', {}, element('td', {class: 'empty', colspan: columns.length}, empty)));
  const isSame = wanted.length === body.rows.length && wanted.every((tr, i) => tr === body.rows[i]);
  if (!isSame) {
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    body.replaceChildren(...wanted);
    if (focused !== null && body.contains(focused)) focused.focus({preventScroll: true});
  }
  tabStop(body, null);
}

/* Of a table's rows Tab stops at one: the last that had the focus, or the first. */
function tabStop(body, wanted) {
  const rows = [...body.rows].filter(tr => tr.hasAttribute('tabindex'));
  const stop = wanted || rows.find(tr => tr.tabIndex === 0) || rows[0];
  for (const tr of rows) tr.tabIndex = tr === stop ? 0 : -1;
}

document.addEventListener('focusin', event => {
  const tr = event.target.closest('tbody tr[tabindex]');
  if (tr !== null && event.target === tr) tabStop(tr.parentElement, tr);
});

document.addEventListener('click', event => {
  const tr = event.target.closest('tbody tr[tabindex]');
  if (tr !== null && event.target.closest('button') === null && String(getSelection()) === '') tr.open();
});

document.addEventListener('keydown', event => {
  const tr = event.target.closest('tbody tr[tabindex]');
  if (tr === null || event.target !== tr) return;
  if (event.key === 'Enter') tr.open();
  const next =
    event.key === 'ArrowDown' ? tr.nextElementSibling : event.key === 'ArrowUp' ? tr.previousElementSibling : null;
  if (next !== null && next.hasAttribute('tabindex')) {
    event.preventDefault();
    next.focus();
  }
});
