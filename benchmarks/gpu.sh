#!/usr/bin/env bash
# What needs a GPU, in ten minutes: the tests marked cuda, a step of every system by every engine, and Graph VAE at the paper's
# setting for as many epochs as fit.
#
#     bash benchmarks/gpu.sh [RESULTS] [WHEELS]
#
# RESULTS is a folder for what is printed and measured, by default results-gpu. Where there is no network, WHEELS is a folder of
# the wheels that are missing beside torch and torchvision; an installed torch is used. Each part has a time of its own, and one
# that fails does not keep the others from running.
set -u
cd "$(dirname "$0")/.."
results=$(mkdir -p "${1:-results-gpu}" && cd "${1:-results-gpu}" && pwd)
wheels=${2:-}
environment=$results/environment
python3 -m venv --system-site-packages "$environment"
python=$environment/bin/python
if [ -n "$wheels" ]; then
    "$python" -m pip install --quiet --no-index --find-links "$wheels" "$wheels"/*.whl
    "$python" -m pip install --quiet --no-deps --no-index --no-build-isolation -e .
else
    "$python" -m pip install --quiet -e '.[test]'
fi 2>&1 | tail -5
part() {  # NAME SECONDS COMMAND...: runs a command within its time, and keeps what it prints
    name=$1 seconds=$2
    shift 2
    echo "== $name"
    timeout --signal=TERM --kill-after=20 "$seconds" "$@" >"$results/$name.txt" 2>&1
    echo "exit code $?" | tee -a "$results/$name.txt"
    tail -3 "$results/$name.txt"
}
"$python" - <<'EOF' | tee "$results/machine.txt"
import torch, platform
print(platform.python_version(), torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
EOF
part tests 120 "$python" -m pytest -n 0 -m cuda -q
# Each side of each size is a process of its own, of about six seconds: so few of either are measured.
part steps 230 "$python" -m benchmarks graph-vae compvae slots tvae mib vae --sizes 64 paper monet genesis mpp-monet 100 pair \
    --device cuda --rounds 1 --steps 50 --json "$results/steps.json" \
    --sides handwritten "Pyro's SVI" "fp32 traced" "fp32 captured" "bf16 captured"
part compiled 60 "$python" -m benchmarks vae graph-vae --sizes 64 --device cuda --rounds 1 --steps 50 --json "$results/compiled.json" \
    --sides handwritten "handwritten, compiled" "fp32 compiled"
data=${PYZOO_DATA:-}
# Images that are not at hand are replaced by scikit-learn's, and say so in the folder's name.
if [ -n "$data" ] && [ -e "$data/MNIST" ]; then run=graph-vae preset="--preset paper"
else run=graph-vae-digits preset="--preset digits --steps 100000"; fi
part training 120 "$environment/bin/pyzoo" train graph-vae $preset --device cuda --engine captured --no-progress --no-evaluate \
    --no-figures --out "$results/$run"
rm -rf "$environment" "$results/$run/checkpoints"
