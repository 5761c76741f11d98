# Image with the packages of requirements*. Mount the workflow folder when you run it:
#   docker build -t dst-cbc .
#   docker run --rm --user "$(id -u):$(id -g)" --network none --shm-size 8g -v "$PWD":/work dst-cbc snakemake --cores 2
#
# The digest is that of the index of all platforms, as the Docker Official Images list it
# (repo-info, repos/python/remote/3.11-slim-bookworm.md, 19 September 2026, Python 3.11.16).
# To renew it: docker buildx imagetools inspect python:3.11-slim-bookworm
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# Only the build needs the network; jobs do not. The stages use git to record
# the commit that made a model.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/*
COPY requirements-build.lock requirements.lock requirements-torch.txt /tmp/dst-cbc/
COPY scripts/environment.py /tmp/dst-cbc/scripts/
RUN PIP_NO_CACHE_DIR=1 python /tmp/dst-cbc/scripts/environment.py /opt/dst-cbc \
 && useradd --create-home --uid 1000 researcher

ENV PATH=/opt/dst-cbc/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER researcher
WORKDIR /work
CMD ["snakemake", "--help"]
