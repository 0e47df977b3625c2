#!/usr/bin/env bash
# Ends what postgresql-up.sh and mlflow-server-up.sh have started with this folder; PostgreSQL's data stay in it.
#
#   scripts/store-down.sh DIR
set -euo pipefail

cd "${1:?usage: store-down.sh DIR}"
for name in mlflow s3; do
  [ ! -f "$name.pid" ] || kill -- "-$(cat "$name.pid")" 2> /dev/null || true # with the processes that it has started
  rm -f "$name.pid"
done
if [ -s data/postmaster.pid ]; then
  kill -INT "$(head -n 1 data/postmaster.pid)" # what `pg_ctl stop -m fast` sends: open connections end, all is written
  while [ -s data/postmaster.pid ]; do sleep 0.1; done
fi
