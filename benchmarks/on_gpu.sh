#!/usr/bin/env bash
# Test and measure the project on a machine with a GPU; needs no network.
#
#   benchmarks/on_gpu.sh OUT [CAMVID]
#
# OUT: folder for the results. CAMVID: folder of CamVid in SegNet's layout. The parts run in order;
# each has a time limit, and writes what it has found even if it fails or reaches the limit:
#   tests   tests/training/test_cuda.py                        -> tests.txt
#   rows    the rows of a GPU, see benchmarks/README.md        -> gpu.csv
#   study   CamVid: DST-CBC and the control, on three seeds    -> camvid-gpu.csv, jobs.csv, load.csv
# parts.csv gets the seconds and the exit status of each part.
#
# Variables: PARTS, the parts to run. PYTHON, the interpreter. WORK, the folder in which the study
# runs. JOBS, jobs of the study at once. LIMIT, seconds for each part. STUDY and EXPERIMENT, the
# name and the files of the study.
set -uo pipefail
out=$(mkdir -p "${1:?usage: benchmarks/on_gpu.sh OUT [CAMVID]}" && realpath "$1")
data=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.." || exit
python=${PYTHON:-.venv/bin/python}
[[ $python == */* ]] && python=$(realpath -s "$python")
parts=${PARTS:-tests rows study}
limit=${LIMIT:-1800}
jobs=${JOBS:-$(nproc)}
name=${STUDY:-camvid-gpu}
experiment=${EXPERIMENT:-workflow/experiments/camvid.yaml workflow/experiments/variants/camvid-gpu.yaml}
work=${WORK:-$out/work}
export TQDM_DISABLE=1 PYTHONUNBUFFERED=1

tests() {
  OMP_NUM_THREADS=1 timeout -s INT "$limit" "$python" -m pytest -p no:cacheprovider -v \
    tests/training/test_cuda.py 2>&1 | tee "$out/tests.txt"
}

rows() {
  timeout -s INT "$limit" "$python" benchmarks/table.py --only gpu --out "$out/gpu.csv"
}

study() {
  local files=() file status study=$work/results/$name
  for file in $experiment; do files+=("$(realpath "$file")"); done
  mkdir -p "$work"
  load & local watching=$!
  JOBS_PER_GPU=$jobs timeout -s INT -k 20 "$limit" "$python" -m snakemake -s Snakefile \
    --directory "$work" --cores "$jobs" --resources "gpu=$jobs" --keep-going --scheduler greedy --nocolor --quiet rules \
    --configfile "${files[@]}" ${data:+--config "data=$data"} -- "results/$name/summary.csv"
  status=$?
  kill "$watching" && wait "$watching"
  record "$study"
  return $status
}

# Sample the load of the GPU and of the CPU cores, in percent, once a second.
load() {
  echo "second,gpu,gpu_memory_mib,cpu" > "$out/load.csv"
  local before=() now gpu begun=$SECONDS
  while sleep 1; do
    gpu=$(nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits \
      2> /dev/null | head -n 1)
    read -r -a now < /proc/stat
    [[ ${before[*]:-} ]] && echo "$((SECONDS - begun)),${gpu:-,},$(busy)" | tr -d ' ' \
      >> "$out/load.csv"
    before=("${now[@]}")
  done
}

# The share of the cores' time that was neither idle nor waiting since `before`.
busy() {
  local total=0 i
  for i in 1 2 3 4 5 6 7 8; do total=$((total + now[i] - before[i])); done
  echo $((total ? 100 - 100 * (now[4] + now[5] - before[4] - before[5]) / total : 0))
}

# Summarize the models that were evaluated, also if the study is not complete.
record() {
  local models=() tables=(--csv "$1/summary.csv" --markdown "$1/summary.md")
  mapfile -t models < <(cd "$1" && find . -name metrics.json -printf '%P\n' | sort | xargs -rn1 dirname)
  ((${#models[@]})) || return
  "$python" scripts/summarize.py "$1" "${models[@]}" --report val test "${tables[@]}" &&
    "$python" scripts/record.py "$1" --out "$out/$name.csv"
  find "$1/benchmarks" -name '*.tsv' | sort | while read -r file; do
    paste <(printf 'job\n%s\n' "${file#"$1"/benchmarks/}") "$file"
  done | tr '\t' ',' | awk 'NR == 1 || !/^job,/' > "$out/jobs.csv"
}

failed=0
echo "part,seconds,status" > "$out/parts.csv"
for part in $parts; do
  begun=$SECONDS
  "$part"
  status=$?
  echo "$part,$((SECONDS - begun)),$status" | tee -a "$out/parts.csv"
  ((status)) && failed=1
done
exit $failed
