"""Public data sets, for users with a network: never run unless asked for by name."""


rule download_camvid:
    output:
        directory("results/downloads/camvid"),
    log:
        "results/downloads/camvid.log",
    localrule: True
    conda:
        "../../envs/dst-cbc.yaml"
    shell:
        'exec "$PYTHON" "$SCRIPTS/download.py" camvid --out {output:q} >> {log:q} 2>&1'
