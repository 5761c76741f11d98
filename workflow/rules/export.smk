"""Handing a model over, asked for by name: `snakemake results/demo/…/round5/export/model.onnx`."""


rule export:
    input:
        index=ancient(INDEX),
        images=images,
        model=f"{STUDY}/{{division}}/{{model}}/model.pt",
        metrics=f"{STUDY}/{{division}}/{{model}}/metrics.json",
    output:
        onnx=f"{STUDY}/{{division}}/{{model}}/export/model.onnx",
        program=f"{STUDY}/{{division}}/{{model}}/export/model.pt2",
        card=f"{STUDY}/{{division}}/{{model}}/export/model.md",
    log:
        f"{STUDY}/logs/{{division}}/{{model}}/export.log",
    conda:
        "../../envs/dst-cbc.yaml"
    threads: EXPERIMENT.compute_threads
    params:
        folder=subpath(output.onnx, parent=True),
    shell:
        'exec "$PYTHON" "$SCRIPTS/export.py" --model {input.model:q} --images "$DATA"'
        " --index {input.index:q} --out {params.folder:q} --threads {threads} >> {log:q} 2>&1"
