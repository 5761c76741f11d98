"""Run Snakemake many times but import it once, which takes three times as long as a dry run.

Each line of the standard input is JSON: arguments, working folder, environment, and the files for
what Snakemake prints to stdout and to stderr. It starts a copy of this process, which becomes that
Snakemake; its exit status is the answer.
"""

import gc
import json
import os
import sys

from snakemake.cli import main


def become_snakemake(arguments, folder, environment, *printed):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate((os.devnull, *printed)):
        os.dup2(os.open(file, os.O_RDWR), number)
    sys.stdin = open(0)  # noqa: SIM115
    sys.path.insert(0, folder)
    sys.argv = ["snakemake", *arguments]
    main(arguments)


gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if not child:
        become_snakemake(*json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
