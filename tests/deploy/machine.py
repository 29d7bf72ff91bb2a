# SPDX-License-Identifier: Apache-2.0
"""
A bare Debian 12 that systemd boots in a folder: mmdebstrap makes it, systemd-nspawn runs it, without a
network of its own. What a test wants to install is fetched before it boots.
"""
import glob
import os
import shutil
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = "/etc/apt/sources.list.d/debian.sources"
TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
BASE = ["systemd", "systemd-sysv", "dbus", "python3", "python3-apt", "ca-certificates", "iproute2"]


def why_not():
    """None: a machine can be made here."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        return "needs " + ", ".join(missing)
    return None if os.path.exists(SOURCES) else "needs " + SOURCES


def packages():
    """What script/package has built: the relay, the load."""
    found = {os.path.basename(path).split("_")[0]: path for path in glob.glob(TOP + "/build-package/*.deb")}
    return found["angarium"], found["angarium-load"]


def run(*arguments, seconds=600, **more):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
                          errors="replace", **more)
    return done.returncode, done.stdout


def must(*arguments, **more):
    status, text = run(*arguments, **more)
    if status != 0:
        raise AssertionError(f"{' '.join(arguments)}: {status}\n{text[-3000:]}")
    return text


class Machine:
    def __init__(self, fetched):
        """`fetched`: packages, or paths of .deb files, that can be installed without a network."""
        self.folder = tempfile.mkdtemp(prefix="angarium-deploy.")
        self.root = os.path.join(self.folder, "root")
        self.child = None
        self.pid = None
        try:
            self.make(fetched)
        except BaseException:
            self.remove()
            raise

    def make(self, fetched):
        must("mmdebstrap", "--variant=apt", "--aptopt=Acquire::Check-Valid-Until \"false\"", "--include=" + ",".join(BASE),
             "bookworm", self.root, SOURCES)
        for name in ("/etc/resolv.conf", "/etc/hosts"):
            shutil.copy(name, self.root + name)
        for name in os.listdir("/etc/apt/apt.conf.d"):
            if not name.startswith("docker"):  # those throw away what apt has fetched
                shutil.copy("/etc/apt/apt.conf.d/" + name, self.root + "/etc/apt/apt.conf.d/" + name)
        files = []
        for package in fetched:
            if package.endswith(".deb"):
                shutil.copy(package, self.root + "/root/")
                package = "/root/" + os.path.basename(package)
            files.append(package)
        if files:
            self.chroot("apt-get", "-q", "-o", "Acquire::Check-Valid-Until=false", "update")
            self.chroot("apt-get", "-q", "-y", "--no-install-recommends", "--download-only", "install", *files)

    def chroot(self, *arguments):
        return must("chroot", self.root, "/usr/bin/env", "DEBIAN_FRONTEND=noninteractive", *arguments)

    def boot(self):
        log = open(os.path.join(self.folder, "boot.log"), "wb")
        self.child = subprocess.Popen(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network",
                                       "--capability=CAP_IPC_LOCK", "--directory=" + self.root, "--boot"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        log.close()
        end = time.monotonic() + 90
        while self.pid is None:
            if time.monotonic() > end or self.child.poll() is not None:
                raise AssertionError("systemd does not boot here")
            time.sleep(0.2)
            with open(f"/proc/{self.child.pid}/task/{self.child.pid}/children", encoding="utf-8") as file:
                self.pid = next(iter(file.read().split()), None)
        while self.run("systemctl", "is-system-running")[1].strip() not in ("running", "degraded"):
            if time.monotonic() > end or self.child.poll() is not None:
                raise AssertionError("systemd does not boot here")
            time.sleep(0.2)

    def show_modules(self):
        """/sys/module as a real machine has it: without it the EAL of DPDK does not start."""
        self.must("sh", "-e", "-c", "mkdir /run/sys; mount -t sysfs -o ro sysfs /run/sys; mount -o remount,rw /sys; mkdir /sys/module; "
                  "mount --bind /run/sys/module /sys/module; mount -o remount,ro /sys; umount /run/sys")

    def enter(self, *arguments):
        return ["nsenter", "-t", self.pid, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "/usr/bin/env", "DEBIAN_FRONTEND=noninteractive",
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *arguments]

    def run(self, *arguments):
        return run(*self.enter(*arguments))

    def must(self, *arguments):
        return must(*self.enter(*arguments))

    def path(self, name):
        return self.root + name

    def remove(self):
        if self.child is not None:
            self.child.terminate()
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
