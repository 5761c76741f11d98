# Image with the packages of requirements.lock. Mount the workflow folder when you run it:
#   docker build -t dst-cbc .
#   docker run --rm --user "$(id -u):$(id -g)" --network none --shm-size 8g -v "$PWD":/work dst-cbc snakemake --cores 2
FROM python:3.11-slim-bookworm

# Only the build needs the network; jobs do not. The stages use git to record
# the commit that made a model.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/dst-cbc \
 && /opt/dst-cbc/bin/pip install --no-cache-dir -r /tmp/requirements.lock \
 && useradd --create-home --uid 1000 researcher

ENV PATH=/opt/dst-cbc/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER researcher
WORKDIR /work
CMD ["snakemake", "--help"]
