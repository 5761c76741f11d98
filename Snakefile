"""Entry point of DST-CBC: plans the models of an experiment file and includes the rules.

`snakemake` alone runs config.yaml; `--configfile FILE` runs FILE and ignores config.yaml.
"""


include: "workflow/rules/plan.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/messages.smk"
include: "workflow/rules/links.smk"
include: "workflow/rules/remake.smk"


if EXPERIMENT.container:

    container: EXPERIMENT.container


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/label.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/choose.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/download.smk"


rule all:
    """Make the whole study: summary, table, figures, contact sheets and gallery pages."""
    default_target: True
    input:
        whole_study,


onstart:
    require_no_way_out()
    require_meant()
    print(cost_estimate(), file=sys.stderr)


onsuccess:
    print(recommended(), file=sys.stderr)


onerror:
    print(last_words("".join(Path(path).read_text() for path in log)), file=sys.stderr)
