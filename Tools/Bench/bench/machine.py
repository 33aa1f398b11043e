"""Programs, and what the kernel says about them."""
import os
import platform
import re
import resource
import signal
import subprocess
import time

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_TIMEOUT_SECONDS = 10
COMMAND_TIMEOUT_SECONDS = 60


class BenchError(Exception):
    """The run cannot go on, and why: for people, without a stack."""


def run(*command, timeout=COMMAND_TIMEOUT_SECONDS, text=None):
    """Runs a program to its end and returns what it wrote to standard output."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=timeout,
            stdin=None if text is not None else subprocess.DEVNULL)
    except FileNotFoundError:
        raise BenchError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"not within {timeout} s: {' '.join(command)}") from None
    if done.returncode != 0:
        said = (done.stderr + done.stdout).rstrip()
        raise BenchError(f"{' '.join(command)}: exit code {done.returncode}\n{said}")
    return done.stdout


def wait_until(what, condition, timeout=15, interval=0.01):
    """Returns the first true value of `condition()`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise BenchError(f"not within {timeout} s: {what}")
        time.sleep(interval)


class Program:
    """A program running in a network namespace; its output goes to files in `directory`."""

    def __init__(self, namespace, name, command, directory):
        self.name = name
        self._command = command
        self._output = os.path.join(directory, f"{name}.out")
        self._errors = os.path.join(directory, f"{name}.err")
        with open(self._output, "wb") as output, open(self._errors, "wb") as errors:
            # Its own session: Ctrl-C reaches this process only, which then ends the program.
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command], stdin=subprocess.PIPE,
                stdout=output, stderr=errors, start_new_session=True)

    @property
    def pid(self):
        """`ip netns exec` becomes the program, so this is the program's own."""
        return self._process.pid

    def output(self):
        with open(self._output, encoding="utf-8", errors="replace") as file:
            return file.read()

    def transcript(self, limit=3000):
        with open(self._errors, encoding="utf-8", errors="replace") as file:
            errors = file.read()
        return f"--- {self.name}: {' '.join(self._command)}\n{(self.output() + errors)[-limit:]}"

    def wait_until(self, what, condition, timeout=15):
        """Like the function, but a program that ended is not waited for."""
        def check():
            if self._process.poll() is not None:
                raise BenchError(
                    f"{self.name} ended with code {self._process.returncode} before: {what}")
            return condition()
        try:
            return wait_until(what, check, timeout)
        except BenchError as error:
            raise BenchError(f"{error}\n{self.transcript()}") from None

    def wait_for_listener(self, port):
        self.wait_until(f"{self.name} listens on port {port}", lambda: listens(self.pid, port))

    def tell(self, line):
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def process_ids(self):
        """The program and its descendants, such as the workers of nginx."""
        found = [self.pid]
        for pid in found:
            found += _children(pid)
        return found

    def stop(self):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process.stdin.close()


def _children(pid):
    children = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                children += [int(word) for word in file.read().split()]
    except FileNotFoundError:
        pass
    return children


def listens(pid, port):
    """Whether a TCP socket listens on a port in the process's network namespace."""
    listening = re.compile(rf"^ *\d+: [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ", re.MULTILINE)
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                if listening.search(file.read()):
                    return True
        except OSError:  # it has ended, or there is no IPv6
            continue
    return False


def cpu_seconds(program):
    """User and system time of all threads and children so far; the kernel rounds to its tick."""
    total = 0
    for pid in program.process_ids():
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])  # utime, stime: fields 14 and 15 of proc(5)
    return total / CLOCK_TICKS_PER_SECOND


def memory_bytes(program):
    """(resident, anonymous resident) of a program and its children."""
    resident = anonymous = 0
    for pid in program.process_ids():
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            text = file.read()
        resident += int(re.search(r"VmRSS:\s+(\d+) kB", text).group(1)) * 1024
        anonymous += int(re.search(r"RssAnon:\s+(\d+) kB", text).group(1)) * 1024
    return resident, anonymous


def descriptor_limit():
    """What every program started here may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def descriptor_count(program):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in program.process_ids())


def environment():
    """What the figures depend on, as far as the machine tells."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = re.findall(r"model name\s*: (.*)", file.read())
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(re.search(r"MemTotal:\s+(\d+)", file.read()).group(1)) // 1024
    return {
        "kernel": platform.release(),
        "processors": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "memory_mb": memory,
        "congestion_control": _first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
        "load_before": load(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Disturbance:
    """How much of the machine others use, from its making to `share()`: all processor time but our
    own, and that of the programs we started and that have ended. Includes time stolen by the
    hypervisor, and packets processed while nobody ran."""

    def __init__(self):
        self._others, self._all = self._now()

    def share(self):
        others, everything = self._now()
        return max(others - self._others, 0) / max(everything - self._all, 0.01)

    @staticmethod
    def _now():
        fields = [int(field) / CLOCK_TICKS_PER_SECOND
                  for field in _first_line("/proc/stat").split()[1:9]]
        idle = fields[3] + fields[4]
        ours = sum(usage.ru_utime + usage.ru_stime for usage in (
            resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))
        return sum(fields) - idle - ours, sum(fields)


def _first_line(path):
    with open(path, encoding="utf-8") as file:
        return file.readline().strip()


def load():
    """Runnable processes, averaged over a minute."""
    return round(os.getloadavg()[0], 2)
