#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The dashboard in headless Chromium against a running relay: who may see what, live numbers, acts, hostile text, themes, a phone, a restart."""
import json
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from browser import Browser  # pylint: disable=wrong-import-position
from lab import ROOT, Lab, Skip, can_connect, free_port, wait_until  # pylint: disable=wrong-import-position

lab = Lab('dashboard')
ADMIN, VIEWER = 'admin-token-of-24-signs-', 'viewer-token-of-24-signs'
HOSTILE = '<img src=x onerror="document.title=1"><b>bold</b> &amp; <script>document.title=2</script>'
page = 'http://127.0.0.1:%d/' % free_port()
mx = free_port()
ZONES = {'test': ['%s MX 10 mx.%s' % (name, name) for name in ('quick', 'moody', 'hostile')] +
                 ['mx.%s A 127.0.0.%d' % (name, i) for i, name in enumerate(('quick', 'moody', 'hostile'), 1)]}


def start():
    """A relay with mail that goes, mail that waits, and mail that waits with a nasty reply."""
    replies = lab.write('replies', 'rcpt 451 1 4.7.1 %s\n' % HOSTILE)
    made = lab.relay('''
hostname: relay.test
listen: [{address: "127.0.0.1:@PORT@"}]
dns: {resolvers: ["127.0.0.1:%d"]}
mx_port: %d
destinations: {allow: [127.0.0.0/8]}
retry: {min: 2m, max: 4m}
http: {listen: "%s", admin_token_file: "%s", viewer_token_file: "%s"}
''' % (lab.nsd(ZONES), mx, page[7:-1], lab.secret('admin', ADMIN + '\n'), lab.secret('viewer', VIEWER + '\n')))
    lab.load('sink', '-q', '127.0.0.1:%d' % mx, log='quick.log')
    lab.load('sink', '-q', '-4', 100, '127.0.0.2:%d' % mx, log='moody.log')
    lab.load('sink', '-q', '--reject', 'rcpt:451:100', '--replies', replies, '127.0.0.3:%d' % mx, log='hostile.log')
    wait_until(lambda: all(can_connect('127.0.0.%d' % i, mx) for i in (1, 2, 3)), 'the sinks')
    lab.load('source', '-q', '-m', 12, '-d', 'moody.test,hostile.test', '127.0.0.1:%d' % made.port).wait(60)
    lab.load('source', '-q', '-t', 90, '-R', 40, '-s', 2, '-d', 'quick.test', '127.0.0.1:%d' % made.port)
    return made


def angarium(*arguments):
    return json.loads(relay.cli(*arguments, '--json'))


def sign_in(token):
    browser.wait('document.querySelector("#ask-token").open')
    browser.type('#token', token)
    browser.press('Enter')


def enter(token, role):
    browser.run('sessionStorage.clear()')
    browser.open(page)
    sign_in(token)
    browser.wait('document.querySelector("#link").innerText === "live, %s"' % role)


def nothing_wrong():
    complaints, browser.complaints = browser.complaints, []
    assert complaints == [], complaints[:3]
    foreign = [url for url in browser.requests if not url.startswith((page, 'data:', 'about:'))]
    assert foreign == [], foreign


def act_on(button, reason, within='#drill-acts'):
    """Press a button of an act, give the reason, and go."""
    browser.wait('[...document.querySelectorAll("%s button")].some(b => b.innerText.startsWith("%s"))' % (within, button))
    browser.run('[...document.querySelectorAll("%s button")].find(b => b.innerText.startsWith("%s")).click()' % (within, button))
    browser.wait('document.querySelector("#act").open && !document.querySelector("#act-go").disabled')
    count = browser.text('#act-count')
    if reason:
        browser.type('#act-reason', reason)
    browser.click('#act-go')
    browser.wait('!document.querySelector("#act").open')
    return count


def drill(name):
    browser.run('location.hash = %s' % json.dumps('#/' + name))
    browser.wait('document.querySelector("#drill").open && !document.querySelector("#drill-body").innerText.startsWith("Looking")')


def close():
    browser.press('Escape')
    browser.wait('!document.querySelector("#drill").open')


@lab.check('without a token it shows nothing and asks; a wrong one is refused')
def asks():
    browser.open(page)
    browser.wait('document.querySelector("#ask-token").open')
    assert browser.text('#token-refused') == ''
    sign_in(VIEWER[:-1] + 'x')
    browser.wait('document.querySelector("#token-refused").innerText.includes("refuses")')
    assert browser.run('sessionStorage.length') == 0 and browser.text('#tiles') == ''
    nothing_wrong()


@lab.check('a viewer sees live numbers and no acts')
def viewer():
    enter(VIEWER, 'viewer')
    browser.wait('document.querySelectorAll("#queue tbody tr[tabindex]").length >= 2 && document.querySelectorAll("#sites tbody tr[tabindex]").length >= 3')
    before = angarium('status')['server']['messages_accepted']
    browser.wait('/^[1-9]/.test(document.querySelectorAll("#tiles b")[0].innerText)')
    browser.wait('Number((document.querySelectorAll("#tiles .tile")[0].innerText.match(/([\\d,]+) since the start/) || [0, "0"])[1].replaceAll(",", "")) > %d' % before)
    labels = browser.run('[...document.querySelectorAll("button")].map(b => b.innerText)')
    assert not [label for label in labels if re.match('Suspend|Resume|Retry|Bounce|Delete|Hold', label)], labels
    drill('site/moody.test')
    assert browser.text('#drill-acts') == '' and 'moody.test' in browser.text('#drill-body')
    assert 'binds' in browser.text('#drill-body')
    close()
    nothing_wrong()


@lab.check('every panel is filled; reasons, cores, spool and DNS are those of status')
def panels():
    browser.wait('document.querySelectorAll("#replies tbody tr[tabindex]").length >= 2')
    status = angarium('status')
    assert len(status['per_core']) == status['cores']
    assert sum(row['messages'] for row in status['per_core']) == status['server']['messages_accepted']
    assert len(browser.run('[...document.querySelectorAll("#cores tbody tr")].map(r => r.innerText)')) == status['cores']
    assert 'replies 4xx' in browser.text('#reasons') and 'takes mail' in browser.text('#spool') and 'From the cache' in browser.text('#dns')
    assert 'default' in browser.text('#sources') and 'in use' in browser.text('#sources')
    browser.wait('[...document.querySelectorAll("figure")].filter(f => !f.hidden).every(f => f.querySelector("canvas").width > 50)')
    for by, name in (('domain', 'hostile.test'), ('sender_domain', 'load.example'), ('class', ''), ('source', 'default')):
        browser.click('#queue-by button[data-key=%s]' % by)
        browser.wait('document.querySelector("#queue tbody tr[tabindex]") === null || document.querySelector("#queue").innerText.includes(%s)' % json.dumps(name))
    browser.click('#queue-by button[data-key=site]')
    lists = [url for url in browser.requests if re.search('/(queue/list|queue/summary|site/show|source/show)', url)]
    limits = [re.search(r'limit=(\d+)', url) for url in lists]
    assert lists and all(limit and int(limit.group(1)) <= 200 for limit in limits), lists


@lab.check('hostile replies and addresses stay text')
def hostile():
    drill('site/hostile.test')
    browser.wait('document.querySelector("#drill-body").innerText.includes("<img src=x onerror=")')
    assert '<script>' in browser.text('#drill-body')
    close()
    browser.wait('document.querySelector("#replies").innerText.includes("<img src=x")')
    assert browser.run('document.querySelectorAll("img, main b > b, main script").length') == 0
    assert browser.run('document.title') == 'Angarium'
    drill('mail/' + 'sender=%3Cimg%20src=x%20onerror=alert(1)%3E')
    browser.wait('document.querySelector("#drill-body .bad") !== null || document.querySelector("#drill-body .empty") !== null')
    assert browser.run('document.querySelectorAll("img").length') == 0
    close()
    browser.complaints[:] = [text for text in browser.complaints if 'status of 400' not in text]  # a filter that is none
    nothing_wrong()


@lab.check('keys: find, rows, close, help')
def keys():
    browser.press('/')
    assert browser.run('document.activeElement.id') == 'find'
    browser.type('#find', 'domain=moody.test')
    browser.press('Enter')
    browser.wait('document.querySelector("#drill").open && document.querySelectorAll("#drill-body tbody tr[tabindex]").length === 6')
    browser.run('document.querySelector("#drill-body tbody tr").focus()')
    browser.press('ArrowDown')
    browser.press('Enter')
    browser.wait('/^#\\/message\\//.test(location.hash) && document.querySelector("#drill-body").innerText.includes("Why it does not go")')
    assert 'u' in browser.text('#drill-body') and 'moody.test' in browser.text('#drill-body')
    close()
    browser.run('document.activeElement.blur()')
    browser.press('?')
    browser.wait('document.querySelector("#help-text").open')
    browser.press('Escape')
    browser.wait('!document.querySelector("#help-text").open')
    nothing_wrong()


@lab.check('an admin suspends and resumes a site, with a count first and a reason')
def suspends():
    enter(ADMIN, 'admin')
    browser.wait('[...document.querySelectorAll("#sites button")].some(b => b.innerText === "Suspend")')
    drill('site/moody.test')
    count = act_on('Suspend site', 'their host is down')
    assert '1 site and source' in count, count
    rows = [row for row in angarium('site', 'show', 'moody.test')['rows'] if row['suspended']]
    assert rows and any(order['reason'] == 'their host is down' for row in rows for order in row.get('orders', [])), rows
    browser.wait('document.querySelector("#drill-body").innerText.includes("site suspended")')
    close()
    browser.wait('document.querySelector("#sites").innerText.includes("their host is down")')
    act_on('Resume', '', '#sites')
    assert not [row for row in angarium('site', 'show', 'moody.test')['rows'] if row['suspended']]
    nothing_wrong()


@lab.check('an admin suspends and resumes a source')
def source():
    drill('source/default')
    assert 'State' in browser.text('#drill-body') and 'in use' in browser.text('#drill-body'), browser.text('#drill-body')
    act_on('Suspend source', 'it is on a list')
    assert all(row['suspended'] and row['reason'] == 'it is on a list' for row in angarium('source', 'show')['rows'])
    act_on('Resume source', '')
    assert not any(row['suspended'] for row in angarium('source', 'show')['rows'])
    close()
    nothing_wrong()


@lab.check('an admin retries, holds, and bounces with a reason that is needed')
def bounces():
    drill('site/moody.test')
    tries = [row['attempts'] for row in angarium('queue', 'list', 'domain=moody.test')['rows']]
    assert '6 recipients' in act_on('Retry', '')
    wait_until(lambda: sum(row['attempts'] for row in angarium('queue', 'list', 'domain=moody.test')['rows']) > sum(tries), 'the retry')
    act_on('Hold', 'wait for them')
    wait_until(lambda: len(angarium('queue', 'list', 'domain=moody.test', 'state=held')['rows']) == 6, 'the hold')
    drill('message/' + angarium('queue', 'list', 'domain=moody.test')['rows'][0]['id'])
    browser.run('[...document.querySelectorAll("#drill-acts button")].find(b => b.innerText.startsWith("Bounce")).click()')
    browser.wait('!document.querySelector("#act-go").disabled')
    browser.click('#act-go')
    assert browser.run('document.querySelector("#act").open'), 'it went without a reason'
    browser.type('#act-reason', 'never mind')
    browser.click('#act-go')
    browser.wait('!document.querySelector("#act").open')
    wait_until(lambda: len(angarium('queue', 'list', 'domain=moody.test')['rows']) == 5, 'the bounce')
    assert [row for row in relay.records('order') if 'never mind' in json.dumps(row)]
    close()
    browser.complaints[:] = [text for text in browser.complaints if 'status of 400' not in text]  # the message is gone when it is asked for again
    nothing_wrong()


@lab.check('dark and light, as the system wishes or as was chosen, with contrast in both')
def themes():
    seen = set()
    for name in ('dark', 'light'):
        browser.theme(name)
        browser.wait('document.documentElement.dataset.theme === "%s"' % name)
        seen.add(browser.run('getComputedStyle(document.body).backgroundColor'))
    assert len(seen) == 2, seen
    browser.click('#theme')
    browser.wait('document.documentElement.dataset.theme === "dark"')
    browser.run('localStorage.removeItem("angarium-theme")')
    with open(os.path.join(ROOT, 'control/dashboard/style.css'), encoding='utf-8') as file:
        for colours in re.findall(r'^:root[^{]*\{(.*?)\}', file.read(), re.M | re.S):
            of = dict(re.findall(r'--([a-z-]+): (#[0-9a-f]+)', colours))
            for ink, ground in [(ink, ground) for ink in ('text', 'muted', 'accent', 'bad', 'warn', 'good') for ground in ('panel', 'ground')] + [('on-accent', 'accent'), ('panel', 'bad')]:
                assert contrast(of[ink], of[ground]) >= 4.5, (ink, ground, contrast(of[ink], of[ground]))


def contrast(one, other):
    """WCAG 2.1, 1.4.3."""
    def light(text):
        digits = text[1:] if len(text) == 7 else ''.join(2 * c for c in text[1:])
        parts = [int(digits[i:i + 2], 16) / 255 for i in (0, 2, 4)]
        return sum(w * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for w, c in zip((0.2126, 0.7152, 0.0722), parts))
    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@lab.check('a phone: nothing is wider than the screen, and every control has a name')
def phone():
    browser.size(360, 740, 2, True)
    browser.wait('innerWidth === 360')
    for name in ('', 'site/hostile.test', 'message/' + angarium('queue', 'list', 'domain=hostile.test')['rows'][0]['id']):
        if name:
            drill(name)
        browser.wait('document.documentElement.scrollWidth <= 360 && document.querySelector("#drill").scrollWidth <= 360', 5)
    close()
    assert browser.run('getComputedStyle(document.querySelector("#sites td:last-child"), "::before").content') != 'none', 'rows are no cards'
    nameless = browser.run('''[...document.querySelectorAll("button, input, select")].filter(e => !(e.getAttribute("aria-label") || e.innerText || (e.labels && e.labels.length)))
        .map(e => e.outerHTML)''')
    assert nameless == [], nameless
    browser.size(1440, 900)
    nothing_wrong()


# Answers of the relay made as large as those of a full queue: ten million messages for 40,000 sites, some with long names.
FULL = '''(() => {
  const real = window.fetch, name = i => (i % 3 === 0 ? 'a-rather-long-name-of-a-mail-exchanger-of-'.repeat(3) : '') + 'provider' + i + '.example';
  const ages = n => [0.3, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02].map(part => Math.round(n * part));
  window.fetch = async (url, options) => {
    const answer = await real(url, options);
    if (!/status$|queue.summary/.test(String(url).split('?')[0])) return answer;
    const said = await answer.json();
    if (String(url).includes('summary')) {
      said.rows = Array.from({length: 15}, (_, i) => ({name: name(i), total: 2000000 >> (i / 3), ages: ages(2000000 >> (i / 3))}));
      Object.assign(said, {groups: 40000, total: 10000000, ages: ages(10000000)});
    } else {
      Object.assign(said.queue, {messages: 10000000, deliveries_waiting: 9876543, deliveries_ready: 123457, deliveries_held: 2345678});
    }
    return new Response(JSON.stringify(said), {status: answer.status, headers: {'Content-Type': 'application/json'}});
  };
})()'''


@lab.check('ten million queued messages fit, on a desk and on a phone, and what is asked for does not grow with them')
def full_queue():
    enter(VIEWER, 'viewer')
    begun = len(browser.requests)
    browser.run(FULL)
    browser.wait('document.querySelector("#tiles").innerText.includes("10.0M")')
    browser.wait('document.querySelector("#queue").innerText.includes("10,000,000") && document.querySelector("#queue").innerText.includes("all 40,000")')
    assert '15 with the most of 40,000' in browser.text('#queue-note')
    assert browser.run('document.querySelectorAll("*").length') < 5000
    for width, is_mobile in ((1440, False), (360, True)):
        browser.size(width, 740, 1, is_mobile)
        browser.wait('innerWidth === %d && document.documentElement.scrollWidth <= %d' % (width, width), 5)
    browser.size(1440, 900)
    lists = [url for url in browser.requests[begun:] if re.search('/(queue/list|queue/summary|site/show|source/show)', url)]
    assert lists and all(int(re.search(r'limit=(\d+)', url).group(1)) <= 200 for url in lists), lists
    enter(ADMIN, 'admin')
    nothing_wrong()


@lab.check('a relay that goes away is told, and so is its return')
def restart():
    assert relay.stop() == 0
    browser.wait('document.querySelector("#notices").innerText.includes("cannot be reached since")')
    assert browser.run('document.querySelector("#main").classList.contains("stale")')
    relay.start()
    browser.wait('document.querySelector("#notices").innerText.includes("was restarted at")')
    browser.wait('document.querySelector("#link").innerText === "live, admin" && !document.querySelector("#main").classList.contains("stale")')
    browser.complaints[:] = [text for text in browser.complaints if not re.search('ERR_CONNECTION_|ERR_EMPTY|ERR_CONTENT_LENGTH_MISMATCH|ERR_INCOMPLETE|ERR_SOCKET|status of 503', text)]
    nothing_wrong()


try:
    browser = Browser(lab)
    relay = start()
except Skip as missing:
    print('1..0 # SKIP %s' % missing)
    sys.exit(0)
browser.size(1440, 900)
sys.exit(lab.run())
