#!/usr/bin/env bash
# End the Slurm that slurm-up.sh DIR began, and what runs in it, by process ids.
cd "${1:?usage: slurm-down.sh DIR}" || exit 1
export SLURM_CONF=$PWD/slurm.conf
timeout 5 scancel --user=root --full --signal=KILL 2> /dev/null
timeout 5 scancel --user=root 2> /dev/null
for signal in TERM KILL; do
  for name in slurmd.n1 slurmd.n2 slurmd.n3 slurmctld munged; do
    [ -s "$name.pid" ] && kill "-$signal" "$(cat "$name.pid")" 2> /dev/null
  done
  sleep 1
done
rm -f ./*.pid
