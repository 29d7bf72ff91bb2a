/* SPDX-License-Identifier: Apache-2.0
 * Elements, and what numbers look like. Whatever the relay says becomes text of an element, never
 * markup: the page's policy (require-trusted-types-for) holds us to it. */

const $ = id => document.getElementById(id);

/* element('td', {class: 'n', onclick: f}, 'text', another) */
function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

const whole = new Intl.NumberFormat('en', {maximumFractionDigits: 0});

/* 12,345; for what is exact. */
const exact = n => (n === null || n === undefined || !Number.isFinite(n) ? '–' : whole.format(n));

function scaled(n, step, units) {
  if (n === null || n === undefined || !Number.isFinite(n)) return '–';
  let unit = 0;
  while (Math.abs(n) >= step * 0.9995 && unit + 1 < units.length) {
    n /= step;
    unit++;
  }
  const digits = unit === 0 && Number.isInteger(n) ? 0 : Math.abs(n) < 9.995 ? 2 : Math.abs(n) < 99.95 ? 1 : 0;
  return n.toFixed(unit === 0 ? Math.min(digits, 1) : digits) + units[unit];
}

/* 12.3k: three digits, for what moves. */
const brief = n =>
  n !== null && Number.isFinite(n) && Math.abs(n) < 10000 && Math.abs(n) >= 100
    ? exact(n)
    : scaled(n, 1000, ['', 'k', 'M', 'G', 'T']);
const octets = n => scaled(n, 1000, [' B', ' kB', ' MB', ' GB', ' TB']);
const percent = (part, of) =>
  part !== null && of > 0 ? ((100 * part) / of).toFixed(part > 0 && part / of < 0.0995 ? 1 : 0) + ' %' : '–';

/* Of microseconds, the two largest units: 3m 4s. */
function duration(us) {
  if (us === null || us === undefined || !Number.isFinite(us)) return '–';
  if (us < 1000) return Math.round(us) + ' µs';
  if (us < 1e6) return scaled(us, 1000, [' µs', ' ms']).replace(/\.0+ /, ' ');
  if (us < 10e6) return (us / 1e6).toFixed(1).replace('.0', '') + ' s';
  const seconds = Math.round(us / 1e6);
  const parts = [
    [Math.floor(seconds / 86400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => n + unit)
    .join(' ');
}

const many = (n, one, more = one + 's') => `${exact(n)} ${n === 1 ? one : more}`;
const clock = (date = new Date()) => date.toTimeString().slice(0, 8);
const sum = list => list.reduce((a, b) => a + b, 0);
