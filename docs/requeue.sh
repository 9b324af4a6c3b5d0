#!/bin/bash
# A run on a SLURM cluster that may be pre-empted, or is longer than a job may last:
#
#     sbatch docs/requeue.sh runs/de distill.py target=de run=de
#
# The first argument is the run folder; the others are those of `accelerate launch`, its own options first. The job asks
# for a SIGTERM two minutes before its end, has the run save its state, and queues itself again. What SLURM pre-empts
# without a word goes on from the last checkpoint (checkpoint.steps).
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120

folder=$1
shift

state() {
    python -c 'import json, sys; print(json.load(open(sys.argv[1]))["state"])' "$folder/status.json" 2>/dev/null
}

accelerate launch "$@" &
launcher=$!
stopped=
trap 'stopped=yes; kill -TERM $launcher' TERM
wait $launcher
status=$?
if [ "$stopped" ]; then
    # The launcher of a single process ends before the run, which saves its state meanwhile.
    for _ in $(seq 100); do
        [ "$(state)" = running ] || break
        sleep 1
    done
    case "$(state)" in
        stopped | running | "") scontrol requeue "$SLURM_JOB_ID" && exit 0 ;;
    esac
fi
exit $status
