"""Refuses symbolic links that lead out of results/, before a job writes through one."""


def require_no_way_out():
    """Raise WorkflowError if a file to be made lies elsewhere, because of a link.

    The stages refuse to write there, too; this includes logs and benchmarks, which they do not
    write themselves.
    """
    results = on_disk("results")
    files = {Path(str(file)) for job in workflow.dag.needrun_jobs() for file in written_by(job)}
    root = results.resolve()
    for file in sorted(files):
        if file.is_relative_to(results) and not file.resolve().is_relative_to(root):
            raise WorkflowError(
                f"{file}: a symbolic link leads out of {results}, to {file.resolve()}, and "
                f"nothing is written outside {results}; remove the link, or make {results} itself "
                "the link"
            )


def written_by(job):
    """The files that a job writes: outputs, logs and its benchmark."""
    return [*job.output, *job.log, *([job.benchmark] if job.benchmark else [])]
