#!/usr/bin/env bash
# Runs jobs/slurm/ on a real Slurm: one node on this machine, made for the trial, removed after it.
#   apt-get install slurm-wlm munge
#   tests/jobs/slurm_trial.sh [FOLDER]   as root, some ten minutes; `audit` must be on PATH
# Not part of `make check`: tests/jobs runs the same files without a scheduler.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
jobs=$(realpath "$here/../../jobs/slurm")
place=${1:-$(mktemp -d)}
mkdir -p "$place"
cd "$place"
for command in slurmctld slurmd munged sbatch audit; do
    command -v "$command" >/dev/null || { echo "error: $command is not on PATH" >&2; exit 2; }
done

# A cluster of one node ----------------------------------------------------------------------------
host=$(hostname --short)
mkdir -p state spool munge
chmod 711 "$place"
chown munge munge
chmod 711 munge
dd if=/dev/urandom of=munge/key bs=1 count=1024 status=none
chown munge munge/key
chmod 400 munge/key
cat > slurm.conf <<END
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
# A requeued job may start again after cred_expire seconds.
AuthInfo=socket=$place/munge/socket,cred_expire=20
CredType=cred/munge
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
JobCompType=jobcomp/filetxt
JobCompLoc=$place/jobs.txt
MinJobAge=3000
KillWait=30
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 State=UP
END
export SLURM_CONF=$place/slurm.conf
daemons=()
stop() {
    scancel --quiet --user="$(id -un)" 2>/dev/null || true
    until_ 90 no_jobs
    # munged last, which the others talk by.
    for ((n = ${#daemons[@]} - 1; n >= 0; n--)); do
        kill "${daemons[n]}" 2>/dev/null || true
        wait "${daemons[n]}" 2>/dev/null || true
    done
}
no_jobs() { [ -z "$(squeue --noheader 2>/dev/null)" ]; }
trap stop EXIT
runuser --user munge -- munged --foreground --key-file="$place/munge/key" \
    --socket="$place/munge/socket" --log-file="$place/munge/log" --pid-file="$place/munge/pid" \
    --seed-file="$place/munge/seed" 2>/dev/null & daemons+=($!)
# until_ SECONDS COMMAND…: wait for it to succeed, for so long at most
until_() {
    local last=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $last ] || { echo "FAILED: waited in vain for: $*" >&2; exit 1; }
        sleep 0.2
    done
}
until_ 20 test -S munge/socket
slurmctld -D 2>/dev/null & daemons+=($!)
slurmd -D -N "$host" 2>/dev/null & daemons+=($!)
idle() { sinfo --noheader --format=%T 2>/dev/null | grep --quiet '^idle$'; }
until_ 30 idle

# What the trials share ----------------------------------------------------------------------------
state() { scontrol show job "$1" | grep --only-matching --perl-regexp 'JobState=\K\w+'; }
all_states() { state "$1" | sort | uniq --count | sed 's/^ *//' | paste --serial --delimiters=,; }
ended() { ! state "$1" | grep --quiet --extended-regexp 'PENDING|RUNNING|COMPLETING|CONFIGURING'; }
code() { scontrol show job "$1" | grep --only-matching --perl-regexp 'ExitCode=\K[0-9]+:[0-9]+'; }
field() { sed --quiet "s/^$1 //p" "$2"; }
check() { # WHAT FOUND EXPECTED
    if [ "$2" = "$3" ]; then echo "ok: $1: $2"; else echo "FAILED: $1: $2, not $3" >&2; exit 1; fi
}
say() { echo "--- $*"; }
small=(--cpus-per-task=1 --mem=0 --time=30)
cat > quick.toml <<END
dataset = "demo"
shard_size = 25
limit = 400
edits = "none"
grids = false
out = "$place/reports"
END
# Slow enough to be stopped in the middle.
sed 's/limit = 400/limit = 400\nmethod = "scorecam,ablationcam,hirescam"\nfaithfulness = true/' \
    quick.toml > slow.toml

say "sbatch --test-only for every file"
for file in "$jobs"/*.sbatch; do
    AUDIT_CONFIG=quick.toml AUDIT_RUN=test sbatch --test-only --nodes=1 "${small[@]}" "$file"
done

say "an array of four and its merge"
"$jobs/submit.sh" quick.toml whole 4 "${small[@]}" | tee submitted
until_ 300 ended "$(field merge submitted)"
check "tasks" "$(all_states "$(field array submitted)")" "4 COMPLETED"
check "merge" "$(state "$(field merge submitted)")" COMPLETED
audit run --config quick.toml --run single >single.log 2>&1
for file in classes.parquet samples/part-000000.parquet samples/part-000015.parquet; do
    cmp reports/demo/cnn/{single,whole}/$file
    echo "ok: $file has the bytes of an audit in one process"
done

parts() { find "reports/demo/cnn/$1/samples" -name 'part-*.parquet' 2>/dev/null | wc --lines; }
some_parts() { [ "$(parts "$1")" -ge "$2" ]; }

say "scancel in the middle"
"$jobs/submit.sh" slow.toml stopped 2 "${small[@]}" | tee submitted
array=$(field array submitted)
until_ 300 some_parts stopped 2
scancel "$array"
until_ 300 ended "$(field merge submitted)"
check "tasks" "$(all_states "$array")" "2 CANCELLED"
cat "audit-${array}_0.log"
check "merge, which names what is missing" "$(code "$(field merge submitted)")" 1:0
tail --lines=3 "audit-merge-$(field merge submitted).log"
before=$(parts stopped)
echo "$before parts were kept"

say "the same line again"
"$jobs/submit.sh" slow.toml stopped 2 "${small[@]}" | tee submitted
array=$(field array submitted)

say "pre-emption in the middle, by a job of another partition that wants the node"
until_ 300 some_parts stopped $((before + 2))
sbatch --parsable --partition=urgent --exclusive --wrap=true --output=/dev/null
until_ 600 ended "$(field merge submitted)"
check "tasks" "$(all_states "$array")" "2 COMPLETED"
check "merge" "$(state "$(field merge submitted)")" COMPLETED
restarts() { scontrol show job "$1" | grep --only-matching --perl-regexp 'Restarts=\K[0-9]+'; }
check "restarts of the first task" "$(restarts "${array}_0")" 1
cat "audit-${array}_0.log"
audit status reports/demo/cnn/stopped

say "the time limit: SIGTERM a minute before it"
# Slurm counts limits in minutes, and may send the signal a minute early: after one minute or two.
sed 's/limit = 400/limit = 900/' slow.toml > long.toml
limited=$(AUDIT_CONFIG=long.toml AUDIT_RUN=limited sbatch --parsable --array=0 --cpus-per-task=1 \
    --mem=0 --time=3 "$jobs/array.sbatch")
until_ 300 ended "$limited"
check "the task's code" "$(code "$limited")" 143:0
cat "audit-${limited}_0.log"

if python -c 'import ray' 2>/dev/null; then
    say "Ray"
    ray=$(AUDIT_CONFIG=quick.toml AUDIT_RUN=ray sbatch --parsable --nodes=1 --mem=0 --time=30 \
        --cpus-per-task="$(nproc --all)" "$jobs/ray.sbatch")
    until_ 600 ended "$ray"
    tail --lines=20 "audit-ray-$ray.log"
    check "the job" "$(state "$ray")" COMPLETED
    cmp reports/demo/cnn/{single,ray}/classes.parquet
    left=$(pgrep --count --full "raylet.*:$((20000 + ray % 10000))" || true)
    check "Ray processes left" "$left" 0
fi
echo "all well"
