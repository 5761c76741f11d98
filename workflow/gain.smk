"""One table of gains from several studies: `snakemake --snakefile workflow/gain.smk --cores 2`.

workflow/gain.yaml names the studies, `--configfile FILE` another file. Each study is a module: its
rules have its name before theirs, and its results are those of the study alone. What is finished
stays so. `python scripts/gain.py workflow/gain.yaml --out FILE` makes the table of what is there.
"""

import json
import re
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

REPOSITORY = Path(str(workflow.current_basedir.get_path_or_uri(secret_free=True))).parent
sys.path.insert(0, str(REPOSITORY / "scripts"))

from dst_cbc.runtime.escape import terminal
from dst_cbc.settings.gain_table import read_gain_table
from dst_cbc.settings.yaml_files import ConfigError

FILES = workflow.config_settings.configfiles or [REPOSITORY / "workflow/gain.yaml"]
if len(FILES) > 1:
    raise WorkflowError(f"--configfile: found {len(FILES)} files, expected one: that of a table")
FILE = Path(FILES[0])
CHANGES = dict(workflow.config_settings.config)
OUT = f"results/{FILE.stem}"
try:
    TABLE = read_gain_table(FILE, CHANGES)
    STUDIES = {name: TABLE.experiment(name, FILE.parent) for name in TABLE.studies}
except ConfigError as error:
    raise WorkflowError(terminal(str(error)))
# Names of rules have no hyphens and points.
PREFIXES = {name: re.sub(r"\W", "_", f"{name}_") for name in STUDIES}

for name, experiment in STUDIES.items():
    prefix = PREFIXES[name]

    module:
        name: name
        snakefile:
            "../Snakefile"
        config:
            experiment

    use rule * from name exclude all as prefix*


# Studies of one data set share what is downloaded or drawn; the first study's rule makes it.
FIRST = next(iter(PREFIXES.values()))
for name in [one.name for one in workflow.rules]:
    if name.startswith((f"{FIRST}download_", f"{FIRST}draw_")):
        shared = name.removeprefix(FIRST)
        workflow.ruleorder(*(f"{prefix}{shared}" for prefix in PREFIXES.values()))


def of_studies(wildcards):
    """Input function: the summary of each study, and the files that the table reads."""
    found = []
    for prefix in PREFIXES.values():
        summary = getattr(rules, f"{prefix}summary")
        found += [summary.output.csv, *summary.input.metrics]
    return found


rule gain:
    """Compare each method with the labels alone, over all studies, seeds and test images.

    cells.csv has each model alone.
    """
    default_target: True
    input:
        of_studies,
    output:
        table=f"{OUT}/gain.csv",
        cells=f"{OUT}/cells.csv",
        figure=multiext(f"{OUT}/gain", ".svg", ".png"),
    log:
        f"{OUT}/gain.log",
    localrule: True
    params:
        python=sys.executable,
        script=REPOSITORY / "scripts/gain.py",
        file=FILE,
        changes=[f"{key}={json.dumps(value)}" for key, value in CHANGES.items()],
    shell:
        "END_WITH_PARENT=1 exec {params.python:q} {params.script:q} {params.file:q}"
        " --config {params.changes:q} --out {output.table:q} --cells {output.cells:q}"
        " --figure {output.figure[0]:q} >> {log:q} 2>&1"
