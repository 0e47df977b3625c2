#!/usr/bin/env bash
# PostgreSQL on this machine's loopback with a database "mlflow", for trials and tests: no password, so nothing for a network.
#
#   scripts/postgresql-up.sh DIR [PORT]
#
# DIR keeps the data and the log; given again, it starts what has stopped or crashed, with the same data. Its last line is the database's
# address. It needs PostgreSQL (Debian: apt-get install postgresql) and takes 2 s. scripts/store-down.sh DIR stops it.
set -euo pipefail

directory=${1:?usage: postgresql-up.sh DIR [PORT]} port=${2:-25432}
programs=$(ls -d /usr/lib/postgresql/*/bin 2> /dev/null | sort -V | tail -n 1) # where Debian has them; elsewhere they are in PATH
PATH=${programs:+$programs:}$PATH
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)

as_owner=() # PostgreSQL refuses to run as root
if [ "$(id -u)" = 0 ]; then
  chown postgres: "$directory"
  as_owner=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi

cd "$directory"
if [ ! -s data/PG_VERSION ]; then
  "${as_owner[@]}" initdb -D data -U ablate -A trust -E UTF8 --no-sync > initdb.log
fi
if ! "${as_owner[@]}" pg_ctl -D data status > pg_ctl.log; then
  "${as_owner[@]}" pg_ctl -D data -w -l postgresql.log \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=" start > pg_ctl.log
fi
database=(psql -qtA -h 127.0.0.1 -p "$port" -U ablate postgres -c)
if [ -z "$("${database[@]}" "select 1 from pg_database where datname = 'mlflow'")" ]; then
  "${database[@]}" 'create database mlflow'
fi
echo "postgresql+psycopg://ablate@127.0.0.1:$port/mlflow"
