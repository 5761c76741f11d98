import signal
import subprocess
import sys

import pytest

from workflow import REPOSITORY

SCRIPT = """
import signal, sys, time
sys.path.insert(0, sys.argv[1])
from dst_cbc.runtime import signals
signals.BURST = float(sys.argv[2])
signals.listen()
print("listens", flush=True)
while not signals.asked_by():
    time.sleep(0.01)
print(signals.asked_by(), flush=True)
for line in sys.stdin:
    print(line, end="", flush=True)
"""
SCRIPTS = str(REPOSITORY / "scripts")


def listener(burst: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, SCRIPTS, str(burst)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_ends_at_once(second):
    with listener(burst=0) as process:
        assert process.stdout.readline() == "listens\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(60) == -second


@pytest.mark.parametrize("echo", [signal.SIGTERM, signal.SIGINT])
def test_an_echo_of_the_first_signal_does_not_end(echo):
    with listener(burst=600) as process:
        assert process.stdout.readline() == "listens\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        for _ in range(3):
            process.send_signal(echo)
            # An answer shows that the process is still running.
            process.stdin.write("alive\n")
            process.stdin.flush()
            assert process.stdout.readline() == "alive\n"
        process.stdin.close()
        assert process.wait(60) == 0
