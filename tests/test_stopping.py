import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import signal, sys, time
sys.path.insert(0, sys.argv[1])
from dst_cbc import stopping
stopping.listen()
print("listens", flush=True)
while not stopping.asked_by():
    time.sleep(0.01)
print(stopping.asked_by(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_ends_at_once(second):
    scripts = Path(__file__).parents[1] / "scripts"
    command = [sys.executable, "-c", SCRIPT, str(scripts)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout.readline() == "listens\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "SIGTERM\n"
        assert process.poll() is None
        process.send_signal(second)
        assert process.wait(60) == -second
