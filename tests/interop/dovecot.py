# SPDX-License-Identifier: Apache-2.0
"""A whole Dovecot in the lab's folder: it stores mail that comes by LMTP, gives it out by IMAP and POP3, and says who may log in. Needs root.

    store = Dovecot(lab, 'store', {'alice@a.test': 'secret'}, address='10.9.0.1')
    store.lmtp_socket, store.auth_socket
"""
import os
import signal
import subprocess

from lab import Skip, tool, wait_until

CONFIG = '''
base_dir = %(folder)s/run
state_dir = %(folder)s/state
log_path = %(log)s
protocols = lmtp imap pop3
listen = %(address)s
ssl = required
ssl_cert = <%(folder)s/cert.pem
ssl_key = <%(folder)s/key.pem
auth_mechanisms = %(mechanisms)s
auth_failure_delay = 0
mail_location = maildir:%(folder)s/mail/%%u
mail_plugins = quota
first_valid_uid = 5000
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%%u %(folder)s/passwd
}
userdb {
  driver = passwd-file
  args = username_format=%%u %(folder)s/passwd
}
plugin {
  quota = maildir:User quota
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service auth {
  unix_listener auth-client {
    mode = 0666
  }
}
service lmtp {
  unix_listener lmtp {
    mode = 0666
  }
  inet_listener lmtp {
    address = %(address)s
    port = 24
  }
}
'''


def certificate(folder):
    made = subprocess.run([tool('openssl'), 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
                           '/CN=store.test', '-keyout', os.path.join(folder, 'key.pem'), '-out', os.path.join(folder, 'cert.pem')],
                          capture_output=True, check=False, encoding='utf-8')
    assert made.returncode == 0, made.stderr


class Dovecot:
    """`users`: name to password, or to (password, octets that its mailbox may have)."""

    def __init__(self, lab, name, users, address='127.0.0.1', prefix=(), mechanisms='plain login'):
        if os.geteuid() != 0:
            raise Skip('needs root')
        self.program = tool('dovecot')
        for needed in ('lmtp', 'imap', 'pop3'):
            if not os.path.exists('/usr/lib/dovecot/' + needed):
                raise Skip('no dovecot-%sd' % needed)
        self.lab, self.name, self.prefix = lab, name, list(prefix)
        self.folder = lab.path(name)
        self.lmtp_socket, self.auth_socket = lab.path(name, 'run/lmtp'), lab.path(name, 'run/auth-client')
        for part in ('run', 'state', 'mail'):
            os.makedirs(lab.path(name, part), exist_ok=True)
        os.chown(lab.path(name, 'mail'), 5000, 5000)
        rows = []
        for user, password in users.items():
            password, limit = password if isinstance(password, tuple) else (password, None)
            extra = ' userdb_quota_rule=*:bytes=%d' % limit if limit is not None else ''
            rows.append('%s:%s:5000:5000::%s/mail/%s::%s' % (user, password, self.folder, user, extra.strip()))
        lab.write(name + '/passwd', '\n'.join(rows) + '\n')
        certificate(self.folder)
        self.config = lab.write(name + '/dovecot.conf', CONFIG % {'folder': self.folder, 'log': lab.path(name + '-dovecot.log'), 'address': address,
                                                                  'mechanisms': mechanisms})
        self.start()

    def start(self):
        self.child = self.lab.start(self.prefix + [self.program, '-F', '-c', self.config], self.name + '-start.log', start_new_session=True)
        wait_until(lambda: os.path.exists(self.auth_socket) and os.path.exists(self.lmtp_socket), 'Dovecot listens')

    def stop(self):
        """With all its processes: those that we talk to outlive their master otherwise."""
        os.killpg(self.child.pid, signal.SIGKILL)
        self.lab.stop(self.child)
        for path in (self.lmtp_socket, self.auth_socket):
            os.unlink(path)
