#!/usr/bin/env bash
# Submits an audit in pieces: an array of tasks, and the merge behind it.
#   jobs/slurm/submit.sh job.toml week-47 16 [options of sbatch, for both: --partition=gpu …]
# Prints the two job ids. The same line again finishes what a first one left undone.
set -euo pipefail

usage() {
    echo "usage: submit.sh CONFIG RUN PIECES [SBATCH OPTIONS]" >&2
    echo "error: $1" >&2
    exit 2
}
[ $# -ge 3 ] || usage "three arguments are needed, found $#"
config=$1 run=$2 pieces=$3
shift 3
[ -f "$config" ] || usage "the job file $config does not exist"
[[ $run =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || usage "'$run' cannot name a run: letters, digits, ._-"
[[ $pieces =~ ^[1-9][0-9]*$ ]] || usage "'$pieces' is no number of pieces"
for command in sbatch audit; do
    command -v "$command" >/dev/null || usage "the command $command is not on PATH"
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
AUDIT_CONFIG=$(realpath "$config")
export AUDIT_CONFIG AUDIT_RUN=$run

# --parsable prints ID, or ID;CLUSTER.
array=$(sbatch --parsable --export=ALL --array="0-$((pieces - 1))" "$@" "$here/array.sbatch")
array=${array%%;*}
# afterany, not afterok: merge verifies everything itself. After a failed task it ends with code 1
# and names what is missing; under afterok it would wait for ever, or be dropped without a word.
if ! merge=$(sbatch --parsable --export=ALL --dependency="afterany:$array" "$@" \
    "$here/merge.sbatch"); then
    echo "error: array $array is submitted, its merge is not; submit jobs/slurm/merge.sbatch" >&2
    exit 1
fi
echo "array $array"
echo "merge ${merge%%;*}"
