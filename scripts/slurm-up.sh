#!/usr/bin/env bash
# A real Slurm with three virtual nodes on this machine, without systemd or a network: slurm-up.sh DIR [PORT], DIR an absolute folder and
# PORT the first of five free ones. It is ready within seconds; SLURM_CONF=DIR/slurm.conf names it. slurm-down.sh DIR ends it.
# Needs, as root: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
set -euo pipefail
D=${1:?usage: slurm-up.sh DIR [PORT]} PORT=${2:-26817}
mkdir -p "$D"/{state,spool.n1,spool.n2,spool.n3}
cd "$D"
# A lost node is noticed after SlurmdTimeout, and its job begins again once credentials have expired (5 s at the
# least): seconds here, minutes on clusters.
cat > slurm.conf <<C
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$D/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool.%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd.%n.pid
SlurmctldLogFile=$D/slurmctld.log
SlurmdLogFile=$D/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=8
SlurmctldTimeout=10
KillWait=5
MinJobAge=300
MaxArraySize=10001
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=n[1-3] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + 3))] CPUs=2 RealMemory=6000 State=UNKNOWN
PartitionName=low Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=n[1-3] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
C
export SLURM_CONF=$D/slurm.conf
[ -s munge.key ] || (umask 077 && head -c 1024 /dev/urandom > munge.key)
munged --force --key-file="$D/munge.key" --socket="$D/munge.socket" --pid-file="$D/munged.pid" --log-file="$D/munged.log" \
  --seed-file="$D/munged.seed"
slurmctld -c -f "$SLURM_CONF"
for node in n1 n2 n3; do slurmd -N "$node" -f "$SLURM_CONF"; done
for _ in $(seq 300); do
  [ "$(sinfo -h -p low -t idle -o %D 2> /dev/null)" = 3 ] && exec echo "export SLURM_CONF=$SLURM_CONF"
  sleep 0.1
done
sinfo
exit 1
