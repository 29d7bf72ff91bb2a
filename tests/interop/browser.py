# SPDX-License-Identifier: Apache-2.0
"""A page in headless Chromium, driven over its debugging pipe: two file descriptors, JSON texts that end in a zero octet. Nothing but Chromium is
needed, and no port is opened."""
import base64
import json
import os
import select
import time

from lab import tool

OPTIONS = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--no-default-browser-check',
           '--disable-background-networking', '--disable-component-update', '--disable-default-apps', '--disable-extensions', '--disable-sync',
           '--disable-domain-reliability', '--metrics-recording-only', '--hide-scrollbars', '--force-color-profile=srgb',
           '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1']


class Browser:
    def __init__(self, lab):
        their_input, self.output = os.pipe()
        self.input, their_output = os.pipe()
        high = [os.dup(fd) for fd in (their_input, their_output)]  # above 4, whatever numbers the pipe got

        def take_places():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)
        os.makedirs(lab.path('home'), exist_ok=True)
        arguments = [tool('chromium', 'chromium-browser'), *OPTIONS, '--remote-debugging-pipe', '--user-data-dir=' + lab.path('chromium'), 'about:blank']
        self.child = lab.start(arguments, 'chromium.out', preexec_fn=take_places, close_fds=False, env={**os.environ, 'HOME': lab.path('home')})
        for fd in (their_input, their_output, *high):
            os.close(fd)
        self.rest, self.number, self.session = b'', 0, None
        self.complaints, self.requests = [], []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(domain + '.enable')

    # ---- the pipe ----

    def call(self, method, **parameters):
        self.number += 1
        text = {'id': self.number, 'method': method, 'params': parameters}
        if self.session is not None:
            text['sessionId'] = self.session
        os.write(self.output, json.dumps(text).encode() + b'\0')
        end = time.monotonic() + 60
        while time.monotonic() < end:
            for said in self.read(end - time.monotonic()):
                if said.get('id') == self.number:
                    assert 'error' not in said, (method, said['error'])
                    return said['result']
        raise AssertionError('Chromium does not answer ' + method)

    def read(self, seconds):
        """What came; events are noted."""
        if not select.select([self.input], [], [], max(seconds, 0))[0]:
            return []
        octets = os.read(self.input, 1 << 20)
        assert octets, 'Chromium has ended'
        *texts, self.rest = (self.rest + octets).split(b'\0')
        said = [json.loads(text) for text in texts]
        for one in said:
            self.note(one.get('method'), one.get('params', {}))
        return said

    def note(self, method, event):
        if method == 'Runtime.exceptionThrown':
            details = event['exceptionDetails']
            self.complaints.append(details.get('exception', {}).get('description', details['text']))
        elif method == 'Runtime.consoleAPICalled' and event['type'] in ('error', 'warning', 'assert'):
            self.complaints.append(str([argument.get('value') for argument in event['args']]))
        elif method == 'Log.entryAdded' and event['entry']['level'] in ('error', 'warning'):
            self.complaints.append(event['entry']['text'] + ' ' + event['entry'].get('url', ''))
        elif method == 'Network.requestWillBeSent':
            self.requests.append(event['request']['url'])

    # ---- the page ----

    def open(self, url):
        self.call('Page.navigate', url=url)
        self.wait('document.readyState === "complete"')

    def run(self, script):
        """The value of an expression on the page."""
        answer = self.call('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in answer, (script, answer['exceptionDetails'].get('exception', {}).get('description'))
        return answer['result'].get('value')

    def wait(self, script, seconds=60):
        """Until an expression is true; returns its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            self.read(0.05)
        raise AssertionError('waited %s s in vain: %s; on the page: %s' % (seconds, script, self.run('document.body.innerText.slice(0, 1500)')))

    def text(self, selector):
        return self.run('[...document.querySelectorAll(%s)].map(e => e.innerText).join("\\n")' % json.dumps(selector))

    def click(self, selector):
        self.wait('document.querySelector(%s) !== null' % json.dumps(selector))
        self.run('document.querySelector(%s).click()' % json.dumps(selector))

    def press(self, key):
        """One key, as a person would: "Enter", "/", "ArrowDown"."""
        text = key if len(key) == 1 else '\r' if key == 'Enter' else ''
        code = {'Enter': 13, 'Escape': 27, 'ArrowDown': 40, 'ArrowUp': 38, 'ArrowRight': 39, 'Tab': 9}.get(key, 0)
        self.call('Input.dispatchKeyEvent', type='keyDown', key=key, text=text, windowsVirtualKeyCode=code)
        self.call('Input.dispatchKeyEvent', type='keyUp', key=key, windowsVirtualKeyCode=code)

    def type(self, selector, text):
        self.wait('document.querySelector(%s) !== null' % json.dumps(selector))
        self.run('document.querySelector(%s).focus()' % json.dumps(selector))
        self.call('Input.insertText', text=text)

    def size(self, width, height, scale=1, is_mobile=False):
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=scale, mobile=is_mobile)

    def theme(self, name):
        """What the system prefers: dark, light."""
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': name}])

    def picture(self, path):
        with open(path, 'wb') as file:
            file.write(base64.b64decode(self.call('Page.captureScreenshot', format='png')['data']))
