#!/usr/bin/env bash
# Everything that is to be shown on a GPU, from a bare clone:
#
#   benchmarks/gpu.sh [DEVICE] [FOLDER]
#
# DEVICE is cuda (or cpu, to prove the script), FOLDER takes the figures (gpu-results). The Python that is
# used is $PYTHON; else .venv, where it exists; else a python3 that has torch already, to which what is
# missing is added by pip, from the wheels in $WHEELS where that is set; else .venv is made, by pip.
# Libraries that cannot be had are left out, and their measurements say so. $BUDGET=short leaves out
# what takes longest; $QUICK=1 only shows that all runs.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:-cuda}
folder=${2:-gpu-results}
mkdir -p "$folder"

has() { "$1" -c "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))" "${@:2}" 2>/dev/null; }

core=(torch torchvision numpy pandas pyarrow tqdm cv2 PIL scipy sklearn safetensors jinja2 matplotlib click
      pydantic fsspec tenacity pycocotools cleanlab)
packages=(pydantic tenacity pycocotools cleanlab click tqdm)
peers=(grad-cam torchcam captum timm efficientnet-lite-pytorch)

if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
elif [ -x .venv/bin/python ]; then
    python=.venv/bin/python
elif has python3 torch torchvision; then
    python=python3
    if ! has python3 "${core[@]}" pytorch_grad_cam torchcam captum; then
        site=$PWD/$folder/site
        # torch stays the one that is there: it was made for this GPU.
        if [ -n "${WHEELS:-}" ]; then
            python3 -m pip install -q --no-index --no-deps --target "$site" "$WHEELS"/*.whl
        else
            python3 -m pip install -q --target "$site" "${packages[@]}" || echo "pip has nothing for us"
            python3 -m pip install -q --no-deps --target "$site" "${peers[@]}" ttach || true
        fi
        export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
    fi
else
    make setup
    .venv/bin/python -m pip install -q -c constraints.txt -e '.[dev]'
    python=.venv/bin/python
fi
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if ! has "$python" "${core[@]}"; then
    echo "error: $python lacks one of: ${core[*]}" >&2
    exit 1
fi
"$python" - "$device" <<'END'
import sys
from benchmarks.machine import describe_machine
print(describe_machine(sys.argv[1]))
END
if command -v nvidia-smi >/dev/null; then nvidia-smi; fi

keep=$folder/results.parquet
failed=
one() { # a script with its options
    echo "== $*"
    "$python" -m "benchmarks.$1" --device "$device" ${QUICK:+--quick} --keep "$keep" "${@:2}" ||
        failed="$failed $1"
}
precisions=float32,bf16
[ "$device" = cpu ] || precisions=float32,tf32,bf16,fp16
if [ -n "${QUICK:-}" ]; then
    one step --subjects resnet20 --precisions bf16
    one peers --subjects resnet20
else
    # What is aimed at comes first, should time run out.
    one step --subjects resnet50 --precisions bf16 --batches 64,256
    one step --subjects resnet20 --precisions bf16 --batches 256,1024,4096,8192,32768
    one peers --subjects resnet20,resnet50
    if [ "${BUDGET:-}" != short ]; then
        one step --precisions "$precisions"
        one step --subjects cnn --precisions bf16 --batches 1,32,1024,4096,32768
        one job
        one growth
        one parts
    fi
fi
"$python" -m benchmarks.targets --from "$keep"
[ -z "$failed" ] || { echo "error: failed:$failed" >&2; exit 1; }
