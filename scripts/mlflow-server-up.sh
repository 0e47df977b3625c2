#!/usr/bin/env bash
# MLflow's server on PostgreSQL with artifacts on S3, on this machine's loopback, for trials and tests: no password anywhere.
#
#   scripts/postgresql-up.sh DIR && scripts/mlflow-server-up.sh DIR [PORT [POSTGRESQL_PORT [S3_PORT]]]
#
# The S3 is moto's, which keeps all in memory: it forgets when it ends. Given again, whatever of the two has ended is started, and the
# rest left alone. Its last line is what MLFLOW_TRACKING_URI is to be. DIR keeps the logs. It needs the group "engines" of
# pyproject.toml in the `python` that is found first (uv run --group engines scripts/...) and takes some 10 s, mostly imports and, the
# first time, the making of tables. scripts/store-down.sh DIR ends all.
set -euo pipefail

directory=${1:?usage: mlflow-server-up.sh DIR [PORT [POSTGRESQL_PORT [S3_PORT]]]}
port=${2:-25433} postgresql_port=${3:-25432} s3_port=${4:-25434}
mkdir -p "$directory"
cd "$directory"

answers() { (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# start NAME PORT COMMAND...: begin it in a session of its own, unless its port answers; its number goes to NAME.pid
start() {
  answers "$2" && return
  setsid nohup "${@:3}" >> "$1.log" 2>&1 < /dev/null &
  echo $! > "$1.pid"
}

# await NAME PORT: until it answers; its log where it ends instead
await() {
  until answers "$2"; do
    kill -0 "$(cat "$1.pid")" 2> /dev/null || { tail -n 5 "$1.log" >&2; exit 1; }
    sleep 0.1
  done
}

# The server alone knows the S3 and its keys. Whoever records asks the server, which passes files on (--artifacts-destination).
export MLFLOW_S3_ENDPOINT_URL=http://127.0.0.1:$s3_port AWS_ACCESS_KEY_ID=trial AWS_SECRET_ACCESS_KEY=trial AWS_DEFAULT_REGION=us-east-1
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # the second: none of the processes that LLM evaluations need
start s3 "$s3_port" python -m moto.server -H 127.0.0.1 -p "$s3_port"
start mlflow "$port" python -m mlflow server --host 127.0.0.1 --port "$port" --workers 1 \
  --backend-store-uri "postgresql+psycopg://ablate@127.0.0.1:$postgresql_port/mlflow" --artifacts-destination s3://mlflow/artifacts
await s3 "$s3_port"
python -c "import boto3, os; boto3.client('s3', endpoint_url=os.environ['MLFLOW_S3_ENDPOINT_URL']).create_bucket(Bucket='mlflow')"
await mlflow "$port"
echo "http://127.0.0.1:$port"
